%% A process that links to and monitors others by the ten thousand, and counts what it hears of their ends.
-module(life_watcher).
-export([start/0, holds/1]).

%% To the result: {watch, From, Pids}. From gets {watching, Count} behind the last link and monitor, and when all have
%% ended {ended, Reasons, Odd}: how many had which reason, and which did not fire exactly one link and one monitor.
-spec start() -> pid().
start() ->
    spawn(fun() ->
        process_flag(trap_exit, true),
        loop()
    end).

loop() ->
    receive
        {watch, From, Pids} ->
            Refs = maps:from_list([{watch(Pid), Pid} || Pid <- Pids]),
            From ! {watching, length(Pids)},
            Fired = gather(2 * length(Pids), Refs, #{}),
            Reasons = maps:fold(fun(_, Rs, Counts) -> lists:foldl(fun count/2, Counts, Rs) end, #{}, Fired),
            Odd = [Pid || Pid <- Pids, kinds(Pid, Fired) =/= [down, exit]],
            From ! {ended, Reasons, lists:sublist(Odd, 10)},
            loop()
    end.

watch(Pid) ->
    link(Pid),
    monitor(process, Pid).

gather(0, _Refs, Fired) ->
    Fired;
gather(Left, Refs, Fired) ->
    receive
        {'EXIT', Pid, Reason} -> gather(Left - 1, Refs, note(Pid, {exit, Reason}, Fired));
        {'DOWN', Ref, process, Pid, Reason} ->
            #{Ref := Pid} = Refs,
            gather(Left - 1, Refs, note(Pid, {down, Reason}, Fired))
    end.

note(Pid, What, Fired) -> maps:update_with(Pid, fun(Known) -> [What | Known] end, [What], Fired).

kinds(Pid, Fired) -> lists:sort([Kind || {Kind, _} <- maps:get(Pid, Fired, [])]).

count({_, Reason}, Counts) -> maps:update_with(Reason, fun(N) -> N + 1 end, 1, Counts).

%% What it holds: {Links, Monitors, MessageQueueLength}.
-spec holds(pid()) -> {[pid()], [term()], non_neg_integer()}.
holds(Pid) ->
    [{links, Links}, {monitors, Monitors}, {message_queue_len, Length}] =
        process_info(Pid, [links, monitors, message_queue_len]),
    {Links, Monitors, Length}.
