%% One of the two processes of a scope: who else is a member, and what they tell and ask.
%%
%% Everything between members goes to {Name, Node}, where Name is the registered name of this process on every node. A
%% pid that a member sends of itself is only monitored. What is told and asked is the affair of the service, a module
%% (fixture_syn_registry, fixture_syn_groups) that is called in this process.
-module(fixture_syn_scope).
-behaviour(gen_server).
-export([start_link/2, process/2, broadcast/2, broadcast/3, watch/2, unwatch/2, tables/1, name/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-record(scope, {
    service :: fixture_syn_tables:service(),
    name :: atom(),
    tables :: fixture_syn_tables:tables(),
    members = #{} :: #{node() => pid()},
    %% {Pid, Monitor} of each process of this node that has an entry. It goes with this process, as the monitors do.
    watched = ets:new(watched, [private, set]) :: ets:table()
}).
-opaque scope() :: #scope{}.
-export_type([scope/0]).

start_link(Service, Scope) ->
    gen_server:start_link({local, process(Service, Scope)}, ?MODULE, {Service, Scope}, []).

%% What the process is registered as, on every node.
-spec process(fixture_syn_tables:service(), atom()) -> atom().
process(Service, Scope) -> list_to_atom(lists:concat(["syn_", Service, "_", Scope])).

-spec tables(scope()) -> fixture_syn_tables:tables().
tables(#scope{tables = Tables}) -> Tables.

-spec name(scope()) -> atom().
name(#scope{name = Name}) -> Name.

%% Tells all members.
-spec broadcast(tuple(), scope()) -> ok.
broadcast(Message, Scope) -> broadcast(Message, node(), Scope).

%% Tells all members but one: the node that asked for the change learns of it by the reply.
-spec broadcast(tuple(), node(), scope()) -> ok.
broadcast(Message, But, #scope{members = Members} = Scope) ->
    lists:foreach(fun(Node) -> send(Node, Message, Scope) end, maps:keys(maps:remove(But, Members))).

%% Has the end of a process of this node reported to the service; once, however often it is asked for.
-spec watch(pid(), scope()) -> true.
watch(Pid, #scope{watched = Watched}) ->
    ets:member(Watched, Pid) orelse ets:insert(Watched, {Pid, monitor(process, Pid)}).

%% To be called after an entry of a process of this node was removed: without any other entry it need not be watched.
-spec unwatch(pid(), scope()) -> true.
unwatch(Pid, #scope{watched = Watched, tables = Tables}) ->
    case {fixture_syn_tables:keys_of(Pid, Tables), ets:lookup(Watched, Pid)} of
        {[], [{Pid, Monitor}]} ->
            demonitor(Monitor, [flush]),
            ets:delete(Watched, Pid);
        _ ->
            true
    end.

init({Service, Name}) ->
    ok = net_kernel:monitor_nodes(true),
    Scope = #scope{service = Service, name = Name, tables = fixture_syn_tables:names(Service, Name)},
    rebuild(Scope),
    lists:foreach(fun(Node) -> send(Node, discover(), Scope) end, nodes()),
    {ok, Scope}.

handle_call({'3.0', subcluster_nodes}, _From, #scope{members = Members} = Scope) ->
    {reply, maps:keys(Members), Scope};
handle_call(Request, _From, Scope) when element(1, Request) =:= '3.0' ->
    {reply, (module(Scope)):requested(erlang:delete_element(1, Request), Scope), Scope};
handle_call(_Request, _From, Scope) ->
    {reply, undefined, Scope}.

handle_cast(Cast, Scope) ->
    logger:warning("~s: unexpected cast ~p", [process(Scope#scope.service, Scope#scope.name), Cast]),
    {noreply, Scope}.

handle_info({'3.0', discover, Pid}, Scope) ->
    send(node(Pid), acknowledgement(Scope), Scope),
    {noreply, add(Pid, Scope)};
handle_info({'3.0', ack_sync, Pid, Entries}, #scope{members = Members} = Scope) ->
    (module(Scope)):merge(Entries, {syn_remote_scope_node_up, Scope#scope.name, node(Pid)}, Scope),
    is_map_key(node(Pid), Members) orelse send(node(Pid), acknowledgement(Scope), Scope),
    {noreply, add(Pid, Scope)};
handle_info({nodeup, Node}, Scope) ->
    send(Node, discover(), Scope),
    {noreply, Scope};
handle_info({nodedown, _Node}, Scope) ->
    %% The DOWN of that node's scope process does the work.
    {noreply, Scope};
handle_info({'DOWN', _Monitor, process, Pid, Reason}, Scope) when node(Pid) =:= node() ->
    ets:delete(Scope#scope.watched, Pid),
    (module(Scope)):ended(Pid, Reason, Scope),
    {noreply, Scope};
handle_info({'DOWN', _Monitor, process, Pid, _Reason}, #scope{members = Members} = Scope) ->
    #{node(Pid) := Pid} = Members,
    purge(node(Pid), Scope),
    {noreply, Scope#scope{members = maps:remove(node(Pid), Members)}};
handle_info(Message, Scope) when element(1, Message) =:= '3.0' ->
    (module(Scope)):told(erlang:delete_element(1, Message), fun(Node) -> is_map_key(Node, Scope#scope.members) end, Scope),
    {noreply, Scope};
handle_info(Message, Scope) ->
    logger:warning("~s: unexpected message ~p", [process(Scope#scope.service, Scope#scope.name), Message]),
    {noreply, Scope}.

%% The scope process that a node is known by is kept until its DOWN, whatever else that node says of itself.
add(Pid, #scope{members = Members} = Scope) when is_map_key(node(Pid), Members) ->
    Scope;
add(Pid, #scope{members = Members} = Scope) ->
    _ = monitor(process, Pid),
    Scope#scope{members = Members#{node(Pid) => Pid}}.

%% After a crash: others' entries go, for nobody tells of their changes meanwhile; own processes are watched again.
rebuild(#scope{tables = Tables} = Scope) ->
    Entries = fixture_syn_tables:entries(any, Tables),
    lists:foreach(fun(Node) -> purge(Node, Scope) end, lists:usort([node(Pid) || {_, Pid, _, _} <- Entries]) -- [node()]),
    lists:foreach(
        fun(Pid) ->
            case is_process_alive(Pid) of
                true -> watch(Pid, Scope);
                false -> (module(Scope)):ended(Pid, undefined, Scope)
            end
        end,
        lists:usort([Pid || {_, Pid, _, _} <- Entries, node(Pid) =:= node()])
    ).

purge(Node, #scope{tables = Tables} = Scope) ->
    Entries = fixture_syn_tables:entries(Node, Tables),
    Reason = {syn_remote_scope_node_down, Scope#scope.name, Node},
    lists:foreach(fun(Entry) -> (module(Scope)):gone(Entry, Reason, Scope) end, Entries),
    lists:foreach(fun({Key, Pid, _, _}) -> fixture_syn_tables:delete(Key, Pid, Tables) end, Entries).

discover() -> {'3.0', discover, self()}.

acknowledgement(#scope{tables = Tables}) -> {'3.0', ack_sync, self(), fixture_syn_tables:entries(node(), Tables)}.

%% noconnect: whoever connects nodes, it is not a scope.
send(Node, Message, #scope{service = Service, name = Name}) ->
    _ = erlang:send({process(Service, Name), Node}, Message, [noconnect]),
    ok.

module(#scope{service = registry}) -> fixture_syn_registry;
module(#scope{service = pg}) -> fixture_syn_groups.
