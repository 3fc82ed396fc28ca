%% Links, monitors and exit signals towards processes of other nodes, each set up by a process of its own.
%%
%% The *_and_collect functions return when Count messages came or the time is over, so a test reads the whole story of
%% one signal from one call. For steps in between (monitor now, demonitor later) use a collector.
-module(remote_signals).
-export([monitor_and_collect/3, monitor_many_and_collect/3, link_and_collect/3]).
-export([spawn_linked/1, spawn_linked_trapping/1, spawn_monitoring/1, unlink_then/2]).
-export([send_exit/2, exit_from/2, round_trip/2, connect/1, disconnect/1]).

%% Monitors Target and returns {Ref, Messages}: up to Count messages that arrived within TimeoutMs.
-spec monitor_and_collect(pid() | atom() | {atom(), node()}, non_neg_integer(), non_neg_integer()) ->
    {reference(), [term()]}.
monitor_and_collect(Target, Count, TimeoutMs) ->
    in_process(fun() -> {monitor(process, Target), gather(Count, TimeoutMs)} end).

%% One monitor on each target by one process: {[Ref], Messages}.
-spec monitor_many_and_collect([pid() | {atom(), node()}], non_neg_integer(), non_neg_integer()) ->
    {[reference()], [term()]}.
monitor_many_and_collect(Targets, Count, TimeoutMs) ->
    in_process(fun() -> {[monitor(process, Target) || Target <- Targets], gather(Count, TimeoutMs)} end).

%% Links to Pid while trapping exits and returns {Linker, Messages}: {'EXIT', Pid, Reason} is among them when Pid ends.
-spec link_and_collect(pid(), non_neg_integer(), non_neg_integer()) -> {pid(), [term()]}.
link_and_collect(Pid, Count, TimeoutMs) ->
    in_process(fun() ->
        process_flag(trap_exit, true),
        link(Pid),
        {self(), gather(Count, TimeoutMs)}
    end).

%% A process that is linked to Pid, does not trap exits and lives until a signal ends it.
-spec spawn_linked(pid()) -> pid().
spawn_linked(Pid) -> spawn_ready(fun() -> link(Pid) end).

%% The same, trapping exits: it drops the {'EXIT', ...} messages and lives on.
-spec spawn_linked_trapping(pid()) -> pid().
spawn_linked_trapping(Pid) ->
    spawn_ready(fun() ->
        process_flag(trap_exit, true),
        link(Pid)
    end).

%% A process that monitors Target and lives until it is ended; it drops the DOWN.
-spec spawn_monitoring(pid() | {atom(), node()}) -> pid().
spawn_monitoring(Target) -> spawn_ready(fun() -> monitor(process, Target) end).

%% Links a fresh process to Pid, unlinks it again and ends it with Reason: Pid must not notice. Returns the process.
-spec unlink_then(pid(), term()) -> pid().
unlink_then(Pid, Reason) ->
    in_process(fun() ->
        link(Pid),
        unlink(Pid),
        self()
    end, Reason).

%% exit(Pid, Reason) from a process of its own, whose pid is returned: it is the sender of the signal.
-spec send_exit(pid(), term()) -> pid().
send_exit(Pid, Reason) ->
    in_process(fun() ->
        exit(Pid, Reason),
        self()
    end).

%% Makes a process which spawn_linked (or its like) made exit with Reason by itself.
-spec exit_from(pid(), term()) -> ok.
exit_from(Process, Reason) ->
    Process ! {?MODULE, exit, Reason},
    ok.

%% Sends {self(), Message} to Dest and waits for {echo, _, Message}: {ok, Microseconds} or timeout.
-spec round_trip(pid() | {atom(), node()}, term()) -> {ok, non_neg_integer()} | timeout.
round_trip(Dest, Message) ->
    in_process(fun() ->
        Start = erlang:monotonic_time(microsecond),
        Dest ! {self(), Message},
        receive
            {echo, _, Message} -> {ok, erlang:monotonic_time(microsecond) - Start}
        after 10000 -> timeout
        end
    end).

-spec connect(node()) -> boolean() | ignored.
connect(Node) -> net_kernel:connect_node(Node).

-spec disconnect(node()) -> boolean() | ignored.
disconnect(Node) -> erlang:disconnect_node(Node).

%% Runs Fun in a fresh process, which then ends with Reason, and returns what Fun returned.
in_process(Fun) -> in_process(Fun, normal).

in_process(Fun, Reason) ->
    Caller = self(),
    Tag = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        Caller ! {Tag, Fun()},
        exit(Reason)
    end),
    receive
        {Tag, Result} ->
            receive
                {'DOWN', Monitor, process, Pid, _} -> Result
            end;
        {'DOWN', Monitor, process, Pid, Failure} ->
            error({helper_process_failed, Failure})
    end.

spawn_ready(SetUp) ->
    Caller = self(),
    Tag = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        SetUp(),
        Caller ! Tag,
        stay()
    end),
    receive
        Tag ->
            demonitor(Monitor, [flush]),
            Pid;
        {'DOWN', Monitor, process, Pid, Failure} ->
            error({helper_process_failed, Failure})
    end.

stay() ->
    receive
        {?MODULE, exit, Reason} -> exit(Reason);
        _ -> stay()
    end.

gather(Count, TimeoutMs) -> gather_before(Count, erlang:monotonic_time(millisecond) + TimeoutMs).

gather_before(0, _Deadline) ->
    [];
gather_before(Count, Deadline) ->
    receive
        Message -> [Message | gather_before(Count - 1, Deadline)]
    after max(0, Deadline - erlang:monotonic_time(millisecond)) -> []
    end.
