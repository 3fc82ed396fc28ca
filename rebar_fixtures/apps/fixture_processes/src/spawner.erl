%% Spawn requests to other nodes, as code that a collector runs: it is the parent, and its mailbox tells what came of them.
%%
%% The functions under "to be spawned" are started here by other nodes.
-module(spawner).
-export([request_then_abandon/5, request_many/5, option_free_spawn/4, watch_new_processes/0]).
-export([tell/2, tell_then_exit/3, tell_group_leader/1, stay/0]).

%% spawn_request/5 and spawn_request_abandon/1 without anything in between that would let the answer in.
-spec request_then_abandon(node(), module(), atom(), [term()], [term()]) -> {reference(), boolean()}.
request_then_abandon(Node, Module, Function, Args, Options) ->
    Request = erlang:spawn_request(Node, Module, Function, Args, Options),
    {Request, erlang:spawn_request_abandon(Request)}.

%% Count requests at once; their references, oldest first.
-spec request_many(pos_integer(), node(), module(), atom(), [term()]) -> [reference()].
request_many(Count, Node, Module, Function, Options) ->
    [erlang:spawn_request(Node, Module, Function, [Index], Options) || Index <- lists:seq(1, Count)].

%% spawn/4, which is a synchronous spawn_request.
-spec option_free_spawn(node(), module(), atom(), [term()]) -> pid().
option_free_spawn(Node, Module, Function, Args) -> spawn(Node, Module, Function, Args).

%% From now on the caller gets {trace, Pid, exit, Reason} and the like of every process that starts on this node.
-spec watch_new_processes() -> ok.
watch_new_processes() ->
    _ = erlang:trace(new_processes, true, [procs]),
    ok.

%% To be spawned:

-spec tell(pid(), term()) -> term().
tell(Pid, Message) -> Pid ! {told, self(), Message}.

-spec tell_then_exit(pid(), term(), term()) -> no_return().
tell_then_exit(Pid, Message, Reason) ->
    tell(Pid, Message),
    exit(Reason).

-spec tell_group_leader(pid()) -> term().
tell_group_leader(Pid) -> Pid ! {group_leader, group_leader()}.

-spec stay() -> no_return().
stay() ->
    receive
        {exit, Reason} -> exit(Reason)
    end.
