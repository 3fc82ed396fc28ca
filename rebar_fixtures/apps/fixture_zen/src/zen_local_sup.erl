%% Supervises the Local role: the Dispatcher and zen_local, which is linked to its Connectors.
%%
%% No restarts: a crash of any of them (a malformed message from the other node, say) ends the role with an error report,
%% and the next zen_local call fails. A stand-in that silently lost its monitors would make a test wait for nothing.
-module(zen_local_sup).
-behaviour(supervisor).
-export([start/0, init/1]).

%% Starts unlinked from the caller, which may be a process that ends at once.
-spec start() -> pid().
start() ->
    {ok, Pid} = supervisor:start_link({local, ?MODULE}, ?MODULE, []),
    unlink(Pid),
    Pid.

init([]) ->
    ok = zen_record:open(zen_local_record),
    %% {Ref, Subscriber, Target}: a row is there as long as its monitor may fire.
    zen_references = ets:new(zen_references, [named_table, public, set, {write_concurrency, true}]),
    %% {Node, compatible | unavailable | {incompatible, Attempt, UntilMonotonicMs}}
    zen_compatibility = ets:new(zen_compatibility, [named_table, public, set]),
    Flags = #{strategy => one_for_all, intensity => 0, period => 1},
    {ok, {Flags, [#{id => Module, start => {Module, start_link, []}} || Module <- [zen_dispatcher, zen_local]]}}.
