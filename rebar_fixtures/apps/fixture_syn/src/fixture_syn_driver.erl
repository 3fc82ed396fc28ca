%% What tests do on a node with scopes: the same for fixture_syn and for the original, if that is on the code path.
-module(fixture_syn_driver).
-export([start/0, stop/0, api/0, version/0, resolve_by/1, call/2, add_scope/1, subcluster/2]).
-export([spawn_process/0, end_process/2, kill/1, messages/2, spawn_processes/1, register_many/3, join_many/3, missing/3]).
-export([crash/3, settle/2, await_settled/3, await_member/3]).
-export([mark/1, mark/2, refuse/1, refuse/2]).

-define(PATIENCE_MS, 20000).

%% Starts what is there, with the recorder of events.
-spec start() -> ok.
start() ->
    fixture_syn_recorder:open(),
    Original = code:which(syn) =/= non_existing,
    persistent_term:put(?MODULE, maps:get(Original, #{true => syn, false => fixture_syn})),
    ok = (api()):start(),
    resolve_by(default).

%% Leaves all scopes.
-spec stop() -> ok.
stop() -> (api()):stop().

%% The module with the API.
-spec api() -> syn | fixture_syn.
api() -> persistent_term:get(?MODULE).

%% {3, 3} or {3, 4}; fixture_syn does as 3.4 does where they differ.
-spec version() -> {integer(), integer()}.
version() ->
    case api() of
        fixture_syn ->
            {3, 4};
        syn ->
            {ok, Version} = application:get_key(syn, vsn),
            [Major, Minor | _] = [list_to_integer(Part) || Part <- string:lexemes(Version, ".")],
            {Major, Minor}
    end.

%% How conflicts are resolved on this node: default, or metadata (see fixture_syn_resolver). Events are recorded as well.
-spec resolve_by(default | metadata) -> ok.
resolve_by(default) -> (api()):set_event_handler(fixture_syn_recorder);
resolve_by(metadata) -> (api()):set_event_handler(fixture_syn_resolver).

%% Function(Arguments...) of the API.
-spec call(atom(), [term()]) -> term().
call(Function, Arguments) -> apply(api(), Function, Arguments).

-spec add_scope(atom()) -> ok.
add_scope(Scope) -> call(add_node_to_scopes, [[Scope]]).

%% The other members of the scope, in order.
-spec subcluster(registry | pg, atom()) -> [node()].
subcluster(Service, Scope) -> lists:sort(call(subcluster_nodes, [Service, Scope])).

%% A process that ends as it is told, keeps its messages, and answers a multi_call with {Message, Meta}; silence is not
%% answered, and end ends it.
-spec spawn_process() -> pid().
spawn_process() -> spawn(fun() -> serve([]) end).

%% The messages that a process of spawn_process has, oldest first: as soon as there are Count, or after 20 s.
-spec messages(pid(), non_neg_integer()) -> [term()].
messages(Pid, Count) ->
    polling:until(fun() -> length(messages(Pid)) >= Count end, ?PATIENCE_MS),
    messages(Pid).

messages(Pid) ->
    Ref = make_ref(),
    Pid ! {tell_messages, self(), Ref},
    receive
        {Ref, Messages} -> Messages
    end.

%% Ends it with Reason, from the inside. Returns when it is gone.
-spec end_process(pid(), term()) -> term().
end_process(Pid, Reason) ->
    Monitor = monitor(process, Pid),
    Pid ! {end_with, Reason},
    receive
        {'DOWN', Monitor, process, Pid, Ended} -> Ended
    end.

%% Returns when it is gone.
-spec kill(pid()) -> term().
kill(Pid) ->
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive
        {'DOWN', Monitor, process, Pid, Reason} -> Reason
    end.

-spec spawn_processes(non_neg_integer()) -> [pid()].
spawn_processes(Count) -> [spawn_process() || _ <- lists:seq(1, Count)].

%% Registers {name, 1}, {name, 2}, ... with their number as metadata.
-spec register_many(atom(), [pid()], non_neg_integer()) -> ok.
register_many(Scope, Pids, Count) -> many(fun(N, Pid) -> ok = call(register, [Scope, {name, N}, Pid, N]) end, Pids, Count).

%% Joins {group, 1}, {group, 2}, ... with their number as metadata.
-spec join_many(atom(), [pid()], non_neg_integer()) -> ok.
join_many(Scope, Pids, Count) -> many(fun(N, Pid) -> ok = call(join, [Scope, {group, N}, Pid, N]) end, Pids, Count).

%% How many of the entries 1 to Count of register_many (registry) or join_many (pg) are not in this node's tables.
-spec missing(registry | pg, atom(), non_neg_integer()) -> non_neg_integer().
missing(registry, Scope, Count) ->
    length([N || N <- lists:seq(1, Count), not is_entry(call(lookup, [Scope, {name, N}]), N)]);
missing(pg, Scope, Count) ->
    length([N || N <- lists:seq(1, Count), not is_entries(call(members, [Scope, {group, N}]), N)]).

is_entry({Pid, N}, N) -> is_pid(Pid);
is_entry(_, _) -> false.

is_entries([Entry], N) -> is_entry(Entry, N);
is_entries(_, _) -> false.

many(Do, Pids, Count) ->
    Tuple = list_to_tuple(Pids),
    lists:foreach(fun(N) -> Do(N, element(1 + N rem tuple_size(Tuple), Tuple)) end, lists:seq(1, Count)).

%% Kills a scope process, and does something before its supervisor gets to know. Returns when another one is there.
-spec crash(registry | pg, atom(), fun(() -> term())) -> true.
crash(Service, Scope, WhileDown) ->
    Name = fixture_syn_scope:process(Service, Scope),
    Pid = whereis(Name),
    {dictionary, Dictionary} = process_info(Pid, dictionary),
    [Supervisor | _] = proplists:get_value('$ancestors', Dictionary),
    ok = sys:suspend(Supervisor),
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive
        {'DOWN', Monitor, process, Pid, _} -> WhileDown()
    end,
    ok = sys:resume(Supervisor),
    true = polling:until(fun() -> is_pid(whereis(Name)) andalso whereis(Name) =/= Pid end, ?PATIENCE_MS).

%% A new process that has a name and is the member of a group, both Key.
-spec settle(atom(), term()) -> pid().
settle(Scope, Key) ->
    Pid = spawn_process(),
    ok = call(register, [Scope, Key, Pid]),
    ok = call(join, [Scope, Key, Pid]),
    Pid.

%% True as soon as all keys of settle are names and groups here, or none is any more; false after 20 s.
-spec await_settled(atom(), [term()], AreThere :: boolean()) -> boolean().
await_settled(Scope, Keys, AreThere) ->
    IsDone = fun(Key) ->
        (call(lookup, [Scope, Key]) =/= undefined) =:= AreThere andalso
            (call(members, [Scope, Key]) =/= []) =:= AreThere
    end,
    polling:until(fun() -> lists:all(IsDone, Keys) end, ?PATIENCE_MS).

%% True as soon as Node is a member for both services here, or for none any more; false after 20 s.
-spec await_member(atom(), node(), IsMember :: boolean()) -> boolean().
await_member(Scope, Node, IsMember) ->
    IsDone = fun(Service) -> lists:member(Node, subcluster(Service, Scope)) =:= IsMember end,
    polling:until(fun() -> lists:all(IsDone, [registry, pg]) end, ?PATIENCE_MS).

serve(Messages) ->
    receive
        {end_with, Reason} ->
            exit(Reason);
        {tell_messages, Asker, Ref} ->
            Asker ! {Ref, lists:reverse(Messages)},
            serve(Messages);
        {syn_multi_call, silence, _Caller, _Meta} ->
            serve(Messages);
        {syn_multi_call, 'end', _Caller, _Meta} ->
            exit(normal);
        {syn_multi_call, Message, Caller, Meta} ->
            call(multi_call_reply, [Caller, {Message, Meta}]),
            serve(Messages);
        Message ->
            serve([Message | Messages])
    end.

%% Functions for update_registry (of pid and metadata) and update_member (of metadata), as funs with a name.
mark(Meta) -> {marked, Meta}.
mark(_Pid, Meta) -> {marked, Meta}.

refuse(Meta) -> exit({refused, Meta}).
refuse(_Pid, Meta) -> exit({refused, Meta}).
