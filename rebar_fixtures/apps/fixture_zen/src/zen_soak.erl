%% The BEAM's part in a soak test: processes to be monitored, subscribers that monitor, and a look at all of it at once.
%%
%% A subscriber is a collector: the DOWN messages it gets stay in its mailbox until `look` takes them, so that demonitor
%% with flush finds them there. One call does many things; the test pays for each call, not for each monitor.
-module(zen_soak).
-export([start/2, subscribe/1, spawn_many/1, spawn_named/1, finish/2]).
-export([monitor/2, take_back/3, take_back_here/2, look/0, counts/0]).

-define(NODES, zen_soak_nodes).
-define(PATIENCE_MS, 20000).

%% Starts both roles, and the subscribers.
-spec start(#{atom() => term()}, [atom()]) -> ok.
start(Settings, Subscribers) ->
    ok = zen_proxy:start(Settings),
    ok = zen_local:start(Settings),
    collector:start(?NODES),
    ok = collector:run(?NODES, net_kernel, monitor_nodes, [true, [{node_type, all}]]),
    persistent_term:put(?MODULE, []),
    lists:foreach(fun subscribe/1, Subscribers).

%% A new subscriber.
-spec subscribe(atom()) -> pid().
subscribe(Name) ->
    persistent_term:put(?MODULE, [Name | persistent_term:get(?MODULE)]),
    collector:start(Name).

-spec spawn_many(non_neg_integer()) -> [pid()].
spawn_many(Count) -> plain_processes:spawn_many(Count).

%% A process with a name whose last holder may be ending just now.
-spec spawn_named(atom()) -> pid().
spawn_named(Name) ->
    true = polling:until(fun() -> whereis(Name) =:= undefined end, ?PATIENCE_MS),
    plain_processes:spawn_named(Name).

%% Ends processes, each with a reason of that kind; tests/soak/ledger.py makes the same.
-spec finish(atom(), [{pid(), integer()}]) -> ok.
finish(killed, Processes) -> lists:foreach(fun({Pid, _}) -> exit(Pid, kill) end, Processes);
finish(Kind, Processes) ->
    lists:foreach(fun({Pid, Number}) -> plain_processes:finish(Pid, reason(Kind, Number)) end, Processes).

reason(plain, Number) -> {soak, Number};
reason(deep, Number) -> {soak, Number, {soak, {soak, {soak, {soak, Number}}}}};
reason(wide, Number) -> {soak, Number, [1000, 1001, 1002, 1003, 1004]};
reason(binary, Number) -> {soak, Number, <<0:(8 * 1500)>>};
reason(huge, Number) -> {soak, Number, <<0:(8 * 300000)>>};
reason(shutdown, Number) -> {shutdown, {soak, Number, lists:seq(1, 300)}};
reason(normal, _Number) -> normal.

%% Monitors by a subscriber, one for each target in their order.
-spec monitor(atom(), [pid() | {atom(), node()}]) -> [reference()].
monitor(Subscriber, Targets) -> collector:run(Subscriber, zen_local, monitor_all, [Targets]).

%% A subscriber takes monitors back: how many DOWN messages of each were in its mailbox by then.
-spec take_back(atom(), [reference()], [flush]) -> [non_neg_integer()].
take_back(Subscriber, Refs, Options) -> collector:run(Subscriber, ?MODULE, take_back_here, [Refs, Options]).

-spec take_back_here([reference()], [flush]) -> [non_neg_integer()].
take_back_here(Refs, Options) ->
    %% When demonitor has returned, the DOWN is in the mailbox or will never be; what flush takes out is counted before.
    ok = zen_local:demonitor_all(Refs, []),
    {messages, Messages} = process_info(self(), messages),
    Fired = [Ref || {'DOWN', Ref, process, _, _} <- Messages],
    ok = zen_local:demonitor_all(Refs, Options),
    [length([Ref || Down <- Fired, Down =:= Ref]) || Ref <- Refs].

%% What came to the subscribers since the last look, which nodes were lost since then, the subscriptions that the Proxy
%% has, and the Connectors. A node is lost before its monitors fire, so it is asked about after them.
-spec look() -> {[{atom(), [term()]}], [node()], [{term(), [pid()]}], #{node() => pid()}}.
look() ->
    Living = [Name || Name <- persistent_term:get(?MODULE), whereis(Name) =/= undefined],
    Messages = [{Name, take_all(Name)} || Name <- Living],
    Lost = [Node || {nodedown, Node, _} <- take_all(?NODES)],
    {state, Connectors, _} = sys:get_state('Elixir.ZenMonitor.Local'),
    {Messages, Lost, zen_proxy:subscriptions(), Connectors}.

take_all(Name) -> collector:take(Name, collector:waiting(Name), 0).

%% All that must be 0 at the end.
-spec counts() -> [non_neg_integer()].
counts() -> [zen_proxy:subscription_count(), zen_proxy:monitor_count(), zen_local:reference_count()].
