%% The tables of all scopes of this node, and the process that owns them: they outlive the scope processes.
%%
%% The names of the tables are part of the wire contract: a reply names them, and the caller writes into the tables that
%% the reply names. What a row looks like is each node's own affair:
%%
%%     syn_registry_by_name_S   {Name, Pid, Meta, Time}
%%     syn_pg_by_name_S         {{exact(Group), Pid}, Group, Meta, Time}
%%     syn_*_by_pid_S           {{Pid, exact(Key)}, Key}           Key: a Name or a Group
%%
%% An entry outside the tables is {Key, Pid, Meta, Time} for both services, as on the wire. All tables are public: an API
%% call for a process of another node writes from the calling process.
-module(fixture_syn_tables).
-behaviour(gen_server).
-export([start_link/0, create/1, scopes/0, has/1, names/2]).
-export([insert/2, delete/3, find/3, keys_of/2, entries/2, members/2, count/2]).
-export([init/1, handle_call/3, handle_cast/2]).

-type service() :: registry | pg.
%% The table by name and the one by pid. The service is told from the first one's shape of rows.
-type tables() :: {service(), ByName :: atom(), ByPid :: atom()}.
-type entry() :: {Key :: term(), pid(), Meta :: term(), Time :: integer()}.
-export_type([service/0, tables/0, entry/0]).

start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% Makes the four tables of a scope.
-spec create(atom()) -> ok.
create(Scope) -> gen_server:call(?MODULE, {create, Scope}).

-spec scopes() -> [atom()].
scopes() -> gen_server:call(?MODULE, scopes).

-spec has(atom()) -> boolean().
has(Scope) ->
    {_, ByName, _} = names(registry, Scope),
    ets:whereis(ByName) =/= undefined.

-spec names(service(), atom()) -> tables().
names(Service, Scope) ->
    Name = fun(Kind) -> list_to_atom(lists:concat(["syn_", Service, "_by_", Kind, "_", Scope])) end,
    {Service, Name(name), Name(pid)}.

%% Writes an entry, in place of the one that was there.
-spec insert(entry(), tables()) -> true.
insert({Key, Pid, Meta, Time}, {registry, ByName, ByPid}) ->
    case ets:lookup(ByName, Key) of
        [{Key, Other, _, _}] when Other =/= Pid -> ets:delete(ByPid, {Other, exact(Key)});
        _ -> ok
    end,
    ets:insert(ByName, {Key, Pid, Meta, Time}),
    ets:insert(ByPid, {{Pid, exact(Key)}, Key});
insert({Key, Pid, Meta, Time}, {pg, ByName, ByPid}) ->
    ets:insert(ByName, {{exact(Key), Pid}, Key, Meta, Time}),
    ets:insert(ByPid, {{Pid, exact(Key)}, Key}).

%% Removes an entry that is there, with exactly this pid.
-spec delete(term(), pid(), tables()) -> true.
delete(Key, Pid, {registry, ByName, ByPid}) ->
    ets:delete(ByName, Key),
    ets:delete(ByPid, {Pid, exact(Key)});
delete(Key, Pid, {pg, ByName, ByPid}) ->
    ets:delete(ByName, {exact(Key), Pid}),
    ets:delete(ByPid, {Pid, exact(Key)}).

%% The entry of a name, whosever it is (Pid is not looked at); that of a process in a group.
-spec find(term(), pid() | any, tables()) -> entry() | none.
find(Key, _Pid, {registry, ByName, _}) ->
    case ets:lookup(ByName, Key) of
        [Entry] -> Entry;
        [] -> none
    end;
find(Key, Pid, {pg, ByName, _}) ->
    case ets:lookup(ByName, {exact(Key), Pid}) of
        [{_, Key, Meta, Time}] -> {Key, Pid, Meta, Time};
        [] -> none
    end.

%% The names or groups of a process.
-spec keys_of(pid(), tables()) -> [term()].
keys_of(Pid, {_, _, ByPid}) -> ets:select(ByPid, [{{{Pid, '_'}, '$1'}, [], ['$1']}]).

%% All entries of processes of a node.
-spec entries(node() | any, tables()) -> [entry()].
entries(any, {registry, ByName, _}) -> ets:tab2list(ByName);
entries(any, {pg, ByName, _}) -> [{Key, Pid, Meta, Time} || {{_, Pid}, Key, Meta, Time} <- ets:tab2list(ByName)];
entries(Node, Tables) -> [Entry || {_, Pid, _, _} = Entry <- entries(any, Tables), node(Pid) =:= Node].

%% The members of a group with their metadata, in the order of pids.
-spec members(term(), tables()) -> [{pid(), term()}].
members(Group, {pg, ByName, _}) -> ets:select(ByName, [{{{exact(Group), '$1'}, '_', '$2', '_'}, [], [{{'$1', '$2'}}]}]).

-spec count(node() | any, tables()) -> non_neg_integer().
count(any, {_, ByName, _}) -> ets:info(ByName, size);
count(Node, Tables) -> length(entries(Node, Tables)).

%% A key that equals another one only if the terms are the same, 1 and 1.0 not: an ordered_set compares by ==.
exact(Term) -> term_to_binary(Term, [deterministic]).

%% The state is the list of scopes.
init([]) -> {ok, []}.

handle_call(scopes, _From, Scopes) ->
    {reply, Scopes, Scopes};
handle_call({create, Scope}, _From, Scopes) ->
    lists:foreach(
        fun({Service, Type}) ->
            {_, ByName, ByPid} = names(Service, Scope),
            ets:new(ByName, [named_table, public, Type, {read_concurrency, true}]),
            ets:new(ByPid, [named_table, public, ordered_set, {read_concurrency, true}])
        end,
        [{registry, set}, {pg, ordered_set}]
    ),
    {reply, ok, [Scope | Scopes]}.

handle_cast(Cast, State) -> {stop, {unexpected_cast, Cast}, State}.
