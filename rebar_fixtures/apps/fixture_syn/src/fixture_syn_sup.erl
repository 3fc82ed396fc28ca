%% Supervises the scopes of this node: the owner of the tables, and for each scope two processes, of the registry and of
%% the groups. A scope process that crashes is back at once and finds its tables as they were.
%%
%% Many restarts are allowed, unlike with the original: tests crash scopes on purpose.
-module(fixture_syn_sup).
-behaviour(supervisor).
-export([start/0, start_scope/1, init/1]).

%% Starts unlinked from the caller, which may be a process that ends at once.
-spec start() -> pid().
start() ->
    {ok, Pid} = supervisor:start_link({local, ?MODULE}, ?MODULE, []),
    unlink(Pid),
    Pid.

-spec start_scope(atom()) -> ok.
start_scope(Scope) ->
    lists:foreach(
        fun(Service) ->
            Start = {fixture_syn_scope, start_link, [Service, Scope]},
            {ok, _} = supervisor:start_child(?MODULE, #{id => {Service, Scope}, start => Start})
        end,
        [registry, pg]
    ).

init([]) ->
    Flags = #{strategy => one_for_one, intensity => 1000, period => 1},
    {ok, {Flags, [#{id => fixture_syn_tables, start => {fixture_syn_tables, start_link, []}}]}}.
