%% Processes that wait, echo or end with a given reason, one at a time or by the hundred thousand.
%%
%% No process here is linked to its maker unless the name says so: each lives until it is told to end.
-module(plain_processes).
-export([spawn_waiting/0, spawn_named/1, spawn_many/1, spawn_many_named/2, spawn_echo/0, spawn_echo/1]).
-export([spawn_ending/1, spawn_raising/1, spawn_busy/1, dead_pid/0]).
-export([finish/2, finish_all/2, kill/1, kill_all/1, kill_staggered/3]).
-export([await_gone/2, await_registered/2, await_monitored/3, monitored_by/1, are_alive/1]).

%% A process that does nothing until it gets {finish, Reason}, then exits with Reason. All else it gets is dropped.
-spec spawn_waiting() -> pid().
spawn_waiting() -> spawn(fun wait/0).

%% The same, registered as Name before this returns.
-spec spawn_named(atom()) -> pid().
spawn_named(Name) ->
    Pid = spawn_waiting(),
    true = register(Name, Pid),
    Pid.

-spec spawn_many(non_neg_integer()) -> [pid()].
spawn_many(Count) -> [spawn_waiting() || _ <- lists:seq(1, Count)].

%% Count waiting processes registered as Prefix ++ "1", Prefix ++ "2", ...: [{Name, Pid}].
-spec spawn_many_named(string(), non_neg_integer()) -> [{atom(), pid()}].
spawn_many_named(Prefix, Count) ->
    [
        begin
            Name = list_to_atom(Prefix ++ integer_to_list(Index)),
            {Name, spawn_named(Name)}
        end
     || Index <- lists:seq(1, Count)
    ].

%% A process that answers {From, Message} with {echo, self(), Message}.
-spec spawn_echo() -> pid().
spawn_echo() -> spawn(fun echo/0).

-spec spawn_echo(atom()) -> pid().
spawn_echo(Name) ->
    Pid = spawn_echo(),
    true = register(Name, Pid),
    Pid.

%% A process that ends with Reason at once; it may be gone before its pid is returned.
-spec spawn_ending(term()) -> pid().
spawn_ending(Reason) -> spawn(fun() -> exit(Reason) end).

%% A process that waits for `go` and then fails as real code does:
%% error (`{Reason, Stacktrace}`), throw (`{{nocatch, Ball}, Stacktrace}`) or badmatch.
-spec spawn_raising({error | throw, term()} | badmatch) -> pid().
spawn_raising(How) ->
    spawn(fun() ->
        receive
            go -> fail(How)
        end
    end).

%% A process whose mailbox already holds Count messages of its own making, which it never reads.
-spec spawn_busy(non_neg_integer()) -> pid().
spawn_busy(Count) ->
    Pid = spawn(fun() ->
        receive
            {finish, Reason} -> exit(Reason)
        end
    end),
    [Pid ! {unread, Index} || Index <- lists:seq(1, Count)],
    Pid.

%% The pid of a process that is certainly dead.
-spec dead_pid() -> pid().
dead_pid() ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive
        {'DOWN', Monitor, process, Pid, normal} -> Pid
    end.

%% Makes a waiting process exit with Reason by its own doing: unlike exit/2, `kill` and `normal` are reasons like others.
-spec finish(pid() | atom() | {atom(), node()}, term()) -> ok.
finish(Process, Reason) ->
    Process ! {finish, Reason},
    ok.

-spec finish_all([pid() | atom()], term()) -> ok.
finish_all(Processes, Reason) -> lists:foreach(fun(Process) -> finish(Process, Reason) end, Processes).

-spec kill(pid() | atom()) -> true.
kill(Name) when is_atom(Name) -> exit(whereis(Name), kill);
kill(Pid) -> exit(Pid, kill).

-spec kill_all([pid()]) -> ok.
kill_all(Pids) -> lists:foreach(fun kill/1, Pids).

%% Kills ChunkSize processes every IntervalMs milliseconds in the background. Returns the pid of the killer at once;
%% it ends (normal) after the last one.
-spec kill_staggered([pid()], pos_integer(), non_neg_integer()) -> pid().
kill_staggered(Pids, ChunkSize, IntervalMs) -> spawn(fun() -> kill_chunks(Pids, ChunkSize, IntervalMs) end).

%% Waits until none of these processes is alive: false when TimeoutMs passes first.
-spec await_gone(pid() | atom() | [pid() | atom()], non_neg_integer()) -> boolean().
await_gone(Processes, TimeoutMs) when is_list(Processes) ->
    Monitors = [monitor(process, Process) || Process <- Processes],
    Deadline = erlang:monotonic_time(millisecond) + TimeoutMs,
    Gone = lists:all(
        fun(Monitor) ->
            receive
                {'DOWN', Monitor, process, _, _} -> true
            after max(0, Deadline - erlang:monotonic_time(millisecond)) -> false
            end
        end,
        Monitors
    ),
    lists:foreach(fun(Monitor) -> demonitor(Monitor, [flush]) end, Monitors),
    Gone;
await_gone(Process, TimeoutMs) ->
    await_gone([Process], TimeoutMs).

%% Waits until Name is registered on this node.
-spec await_registered(atom(), non_neg_integer()) -> boolean().
await_registered(Name, TimeoutMs) -> polling:until(fun() -> whereis(Name) =/= undefined end, TimeoutMs).

%% Waits until exactly Count monitors are set on a process of this node, remote ones included.
-spec await_monitored(pid() | atom(), non_neg_integer(), non_neg_integer()) -> boolean().
await_monitored(Process, Count, TimeoutMs) ->
    polling:until(fun() -> length(monitored_by(Process)) =:= Count end, TimeoutMs).

%% Who monitors a process of this node: one pid per monitor.
-spec monitored_by(pid() | atom()) -> [pid()].
monitored_by(Name) when is_atom(Name) ->
    monitored_by(whereis(Name));
monitored_by(Pid) ->
    case process_info(Pid, monitored_by) of
        {monitored_by, Pids} -> Pids;
        undefined -> []
    end.

-spec are_alive([pid()]) -> boolean().
are_alive(Pids) -> lists:all(fun is_process_alive/1, Pids).

wait() ->
    receive
        {finish, Reason} -> exit(Reason);
        _ -> wait()
    end.

echo() ->
    receive
        {finish, Reason} ->
            exit(Reason);
        {From, Message} ->
            From ! {echo, self(), Message},
            echo()
    end.

fail({error, Reason}) -> error(Reason);
fail({throw, Ball}) -> throw(Ball);
fail(badmatch) -> {ok, _} = whereis(no_such_name).

kill_chunks([], _ChunkSize, _IntervalMs) ->
    ok;
kill_chunks(Pids, ChunkSize, IntervalMs) ->
    {Chunk, Rest} = lists:split(min(ChunkSize, length(Pids)), Pids),
    kill_all(Chunk),
    receive
    after IntervalMs -> kill_chunks(Rest, ChunkSize, IntervalMs)
    end.
