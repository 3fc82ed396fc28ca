%% Processes that do what a script says: the BEAM's side of tests/interop/test_signal_scripts.py.
%%
%% Each command is run inside the process it is for. Whatever else a process gets stays in its mailbox, where look/1
%% finds it. What came over the distribution before a mark is handled when await_mark/2 returns.
-module(signal_driver).
-export([start/0, stop/1, spawn_process/0, tell/2, finish/2, look/1, await_mark/2, entries/1]).

-define(NAME, the_name).
-define(PATIENCE_MS, 20000).

%% Registers the process that takes marks: plain messages {mark, Number}. One that a failed test left is ended.
-spec start() -> pid().
start() ->
    case whereis(?MODULE) of
        undefined -> ok;
        Left -> stop(Left)
    end,
    Pid = spawn(fun marks/0),
    register(?MODULE, Pid),
    Pid.

-spec stop(pid()) -> true.
stop(Pid) ->
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive
        {'DOWN', Monitor, process, Pid, _} -> true
    end.

%% Answers who waits for a mark that has come; marks come in order.
marks() ->
    receive
        {await, From, Tag, Number} ->
            receive
                {mark, Number} -> From ! {Tag, done}
            end,
            marks()
    end.

-spec spawn_process() -> pid().
spawn_process() -> spawn(fun loop/0).

loop() ->
    receive
        {?MODULE, From, Tag, Command} ->
            From ! {Tag, {done, run(Command)}},
            loop()
    end.

run(ping) -> pong;
run({link, Pid}) ->
    %% erlang(3): it may raise what otherwise would be an exit signal.
    try link(Pid) catch error:noproc -> exit(noproc) end;
run({unlink, Pid}) -> unlink(Pid);
run({trap_exit, On}) -> process_flag(trap_exit, On);
run({monitor, Target, nil}) -> monitor(process, Target);
run({monitor, Target, Mode}) -> monitor(process, Target, [{alias, Mode}]);
run({demonitor, Ref, true}) -> demonitor(Ref, [flush]);
run({demonitor, Ref, false}) -> demonitor(Ref);
run({alias, Mode}) -> alias([Mode]);
run({unalias, Ref}) -> unalias(Ref);
run({send, Dest, Message}) -> Dest ! Message;
run({exit, Pid, Reason}) -> exit(Pid, Reason);
run(register) -> register(?NAME, self());
run({finish, Reason}) -> exit(Reason).

%% Lets Pid run a command: {done, Result}, or ended when that was its end, or it has ended before.
-spec tell(pid(), term()) -> {done, term()} | ended.
tell(Pid, Command) ->
    Tag = monitor(process, Pid),
    Pid ! {?MODULE, self(), Tag, Command},
    receive
        {Tag, Answer} ->
            demonitor(Tag, [flush]),
            Answer;
        {'DOWN', Tag, process, Pid, _} ->
            ended
    after ?PATIENCE_MS -> error({silent, Pid, Command})
    end.

-spec finish(pid(), term()) -> ended.
finish(Pid, Reason) -> ended = tell(Pid, {finish, Reason}).

%% Waits until the mark has come over the distribution and each process has handled what came before it.
-spec await_mark(non_neg_integer(), [pid()]) -> ok.
await_mark(Number, Pids) ->
    Tag = make_ref(),
    ?MODULE ! {await, self(), Tag, Number},
    receive
        {Tag, done} -> ok
    after ?PATIENCE_MS -> error({no_mark, Number})
    end,
    lists:foreach(fun(Pid) -> tell(Pid, ping) end, Pids).

%% Of each process that lives: {Pid, Messages, Links, Monitors, Watchers}, the last two as numbers.
-spec look([pid()]) -> [{pid(), [term()], [pid()], non_neg_integer(), non_neg_integer()}].
look(Pids) ->
    lists:append([look_at(Pid) || Pid <- Pids]).

look_at(Pid) ->
    case process_info(Pid, [messages, links, monitors, monitored_by]) of
        undefined ->
            [];
        [{messages, Messages}, {links, Links}, {monitors, Monitors}, {monitored_by, Watchers}] ->
            [{Pid, Messages, Links, length(Monitors), length(Watchers)}]
    end.

%% What the runtime system holds for a connection: {Links, Monitors}, as its own test suites look at them.
-spec entries(node()) -> {[term()], [term()]}.
entries(Node) ->
    try {list_of(link_list, Node), list_of(monitor_list, Node)}
    catch error:_ ->
        erts_debug:set_internal_state(available_internal_state, true),
        {list_of(link_list, Node), list_of(monitor_list, Node)}
    end.

list_of(Kind, Node) -> erts_debug:get_internal_state({Kind, Node}).
