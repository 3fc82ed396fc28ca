%% Supervises the Proxy role: a Proxy that crashes is back at once, with no memory of its subscriptions.
-module(zen_proxy_sup).
-behaviour(supervisor).
-export([start/0, init/1]).

%% Starts unlinked from the caller, which may be a process that ends at once.
-spec start() -> pid().
start() ->
    {ok, Pid} = supervisor:start_link({local, ?MODULE}, ?MODULE, []),
    unlink(Pid),
    Pid.

init([]) ->
    ok = zen_record:open(zen_proxy_record),
    Flags = #{strategy => one_for_one, intensity => 16, period => 5},
    {ok, {Flags, [#{id => zen_proxy, start => {zen_proxy, start_link, []}}]}}.
