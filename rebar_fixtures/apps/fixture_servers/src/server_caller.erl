%% The genuine calling side of gen_server and net_adm, with results that can be printed and compared.
-module(server_caller).
-export([call/2, call/3, cast/2, multi_call/4, call_many/3, call_side_by_side/4, ping/1, reply/2]).

-type destination() :: pid() | atom() | {atom(), node()}.

-spec call(destination(), term()) -> {ok, term()} | {exit, term()}.
call(Dest, Request) -> call(Dest, Request, 20000).

%% gen_server:call in a process of its own, so that a late reply or a crash never reaches the process that asked.
%% {exit, Reason} has the reason the caller exits with, e.g. {noproc, {gen_server, call, [...]}}.
-spec call(destination(), term(), timeout()) -> {ok, term()} | {exit, term()}.
call(Dest, Request, TimeoutMs) ->
    in_process(fun() ->
        try
            {ok, gen_server:call(Dest, Request, TimeoutMs)}
        catch
            exit:Reason -> {exit, Reason}
        end
    end).

-spec cast(destination(), term()) -> ok.
cast(Dest, Request) -> gen_server:cast(Dest, Request).

%% {Replies, BadNodes} of gen_server:multi_call.
-spec multi_call([node()], atom(), term(), timeout()) -> {[{node(), term()}], [node()]}.
multi_call(Nodes, Name, Request, TimeoutMs) ->
    in_process(fun() -> gen_server:multi_call(Nodes, Name, Request, TimeoutMs) end).

%% Count calls {echo, Index} one after the other by one process: the replies in order.
-spec call_many(destination(), pos_integer(), timeout()) -> [term()].
call_many(Dest, Count, TimeoutMs) ->
    in_process(fun() -> [gen_server:call(Dest, {echo, Index}, TimeoutMs) || Index <- lists:seq(1, Count)] end).

%% Callers processes at once, each with Count calls {echo, {Caller, Index}}: how many replies were right.
-spec call_side_by_side(destination(), pos_integer(), pos_integer(), timeout()) -> non_neg_integer().
call_side_by_side(Dest, Callers, Count, TimeoutMs) ->
    Started = [
        spawn_monitor(fun() ->
            Right = [
                Index
             || Index <- lists:seq(1, Count),
                gen_server:call(Dest, {echo, {Caller, Index}}, TimeoutMs) =:= {Caller, Index}
            ],
            exit({right, length(Right)})
        end)
     || Caller <- lists:seq(1, Callers)
    ],
    lists:sum([
        receive
            {'DOWN', Monitor, process, Pid, {right, Right}} -> Right;
            {'DOWN', Monitor, process, Pid, Failure} -> error({caller_failed, Failure})
        end
     || {Pid, Monitor} <- Started
    ]).

-spec ping(node()) -> pong | pang.
ping(Node) -> net_adm:ping(Node).

%% gen_server:reply: for a test that got a {'$gen_call', From, Request} in a collector.
-spec reply({pid(), term()}, term()) -> ok.
reply(From, Reply) -> gen_server:reply(From, Reply).

in_process(Fun) ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit({?MODULE, Fun()}) end),
    receive
        {'DOWN', Monitor, process, Pid, {?MODULE, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, Failure} -> error({caller_failed, Failure})
    end.
