%% The two roles against each other, BEAM to BEAM: proof that the stand-in does what the tests of other nodes rely on.
%%
%% run() starts a second BEAM of the same OTP; run(Node) uses a connected visible node which has these modules loaded,
%% of another OTP for instance. Local here and Proxy there first, then the other way round. Every case returns ok, and
%% the result is a list of {Where, Case, ok | {failed, Class, Reason, Stacktrace}}.
-module(zen_selftest).
-export([run/0, run/1, failures/1, run_cases/1, start_cases/3]).

-define(PROXY, 'Elixir.ZenMonitor.Proxy').
-define(PATIENCE_MS, 10000).

-type result() :: {node(), atom(), ok | {failed, atom(), term(), list()}}.

%% Needs a node that is alive with long names and can find EPMD.
-spec run() -> [result()].
run() ->
    {ok, Peer, Node} = peer:start(#{
        name => peer:random_name(?MODULE),
        host => "127.0.0.1",
        longnames => true,
        %% Not over the distribution: a case disconnects the node.
        connection => standard_io,
        exec => filename:join([code:root_dir(), "bin", "erl"]),
        args => ["-pa", filename:dirname(code:which(?MODULE)), "-setcookie", atom_to_list(erlang:get_cookie())]
    }),
    true = net_kernel:connect_node(Node),
    try
        run(Node)
    after
        peer:stop(Peer)
    end.

-spec run(node()) -> [result()].
run(Node) ->
    Here = run_cases(Node),
    Tag = make_ref(),
    %% The cases disconnect the nodes, so their results come as a message, which connects them if need be.
    ok = erpc:call(Node, ?MODULE, start_cases, [node(), self(), Tag]),
    receive
        {Tag, There} -> Here ++ There
    after 120000 -> error({no_results_from, Node})
    end.

%% Runs the cases in the background and sends {Tag, Results} to Collector.
-spec start_cases(node(), pid(), reference()) -> ok.
start_cases(Node, Collector, Tag) ->
    _ = spawn(fun() -> Collector ! {Tag, run_cases(Node)} end),
    ok.

%% Only what failed.
-spec failures([result()]) -> [result()].
failures(Results) -> [Result || {_, _, Outcome} = Result <- Results, Outcome =/= ok].

%% Local here, Proxy on Node.
-spec run_cases(node()) -> [result()].
run_cases(Node) ->
    Cases = [
        {pid_ends, fun pid_ends/1},
        {name_ends, fun name_ends/1},
        {dead_targets, fun dead_targets/1},
        {reason_is_truncated, fun reason_is_truncated/1},
        {many_targets_fire_once, fun many_targets_fire_once/1},
        {one_subscribe_for_many_references, fun one_subscribe_for_many_references/1},
        {instructions_keep_their_order, fun instructions_keep_their_order/1},
        {demonitor_prevents_a_queued_down, fun demonitor_prevents_a_queued_down/1},
        {demonitor_flushes_a_delivered_down, fun demonitor_flushes_a_delivered_down/1},
        {default_pace, fun default_pace/1},
        {subscriber_ends, fun subscriber_ends/1},
        {connector_node_is_own_node, fun connector_node_is_own_node/1},
        {older_subscribe, fun older_subscribe/1},
        {proxy_crash, fun proxy_crash/1},
        {no_proxy, fun no_proxy/1},
        {wrong_answer_to_ping, fun wrong_answer_to_ping/1},
        {silent_proxy, fun silent_proxy/1},
        {disconnect_and_reconnect, fun disconnect_and_reconnect/1},
        {unconnected_node, fun unconnected_node/1}
    ],
    [{node(), Name, run_case(Case, Node)} || {Name, Case} <- Cases].

run_case(Case, Node) ->
    true = net_kernel:connect_node(Node),
    zen_local:start((zen_settings:fast())#{record => true}),
    ok = start_proxy(Node, #{}),
    collector:start(zen_selftest_watcher),
    try
        ok = Case(Node)
    catch
        Class:Reason:Stacktrace -> {failed, Class, Reason, Stacktrace}
    after
        collector:stop(zen_selftest_watcher),
        zen_local:stop(),
        true = net_kernel:connect_node(Node),
        stop_proxy(Node)
    end.

pid_ends(Node) ->
    [
        begin
            Target = remote(Node, plain_processes, spawn_waiting, []),
            Ref = watch_established(Node, Target),
            remote(Node, plain_processes, finish, [Target, Reason]),
            [{'DOWN', Ref, process, Target, {zen_monitor, Reason}}] = downs(1)
        end
     || Reason <- [normal, shutdown, {shutdown, lists:seq(1, 10)}, custom, noconnection]
    ],
    Target = remote(Node, plain_processes, spawn_waiting, []),
    Ref = watch_established(Node, Target),
    remote(Node, plain_processes, kill, [Target]),
    [{'DOWN', Ref, process, Target, {zen_monitor, killed}}] = downs(1),
    nothing_else().

name_ends(Node) ->
    remote(Node, plain_processes, spawn_named, [zen_selftest_target]),
    Target = {zen_selftest_target, Node},
    Ref = watch_established(Node, Target),
    plain_processes:finish(Target, first_life),
    [{'DOWN', Ref, process, Target, {zen_monitor, first_life}}] = downs(1),
    remote(Node, plain_processes, spawn_named, [zen_selftest_target]),
    Ref2 = watch_established(Node, Target),
    plain_processes:finish(Target, second_life),
    [{'DOWN', Ref2, process, Target, {zen_monitor, second_life}}] = downs(1),
    nothing_else().

dead_targets(Node) ->
    Dead = remote(Node, plain_processes, dead_pid, []),
    Ref = watch(Dead),
    [{'DOWN', Ref, process, Dead, {zen_monitor, noproc}}] = downs(1),
    Unknown = {zen_selftest_nobody, Node},
    Ref2 = watch(Unknown),
    [{'DOWN', Ref2, process, Unknown, {zen_monitor, noproc}}] = downs(1),
    nothing_else().

reason_is_truncated(Node) ->
    Target = remote(Node, plain_processes, spawn_waiting, []),
    Ref = watch_established(Node, Target),
    plain_processes:finish(Target, {a, {b, {c, {d, 1}}}, binary:copy(<<"x">>, 2000)}),
    Cut = <<(binary:copy(<<"x">>, 1021))/binary, "...">>,
    [{'DOWN', Ref, process, Target, {zen_monitor, {a, {b, {truncated, truncated}}, Cut}}}] = downs(1),
    nothing_else().

many_targets_fire_once(Node) ->
    Count = 5000,
    Targets = remote(Node, plain_processes, spawn_many, [Count]),
    Refs = collector:run(zen_selftest_watcher, zen_local, monitor_all, [Targets]),
    true = await_subscriptions(Node, Count),
    remote(Node, plain_processes, kill_all, [Targets]),
    Downs = downs(Count),
    Expected = lists:sort([{'DOWN', Ref, process, Pid, {zen_monitor, killed}} || {Ref, Pid} <- lists:zip(Refs, Targets)]),
    Expected = lists:sort(Downs),
    0 = zen_local:reference_count(),
    0 = remote(Node, zen_proxy, monitor_count, []),
    nothing_else().

one_subscribe_for_many_references(Node) ->
    Target = remote(Node, plain_processes, spawn_waiting, []),
    [Ref1, Ref2, Ref3] = collector:run(zen_selftest_watcher, zen_local, monitor_all, [[Target, Target, Target]]),
    true = await_subscriptions(Node, 1),
    collector:run(zen_selftest_watcher, zen_local, demonitor_all, [[Ref1, Ref2], []]),
    1 = remote(Node, zen_proxy, subscription_count, []),
    plain_processes:finish(Target, done),
    [{'DOWN', Ref3, process, Target, {zen_monitor, done}}] = downs(1),
    [[{subscribe, Target}]] = instructions(Node),
    nothing_else().

instructions_keep_their_order(Node) ->
    compatible = zen_local:connect(Node),
    zen_settings:set(connector_chunk_size, 3),
    zen_settings:set(connector_sweep_interval, 100),
    %% The sweep that is already scheduled still has the short interval: wait for one cast, which ends it.
    First = remote(Node, plain_processes, spawn_waiting, []),
    _ = watch_established(Node, First),
    [[{subscribe, First}]] = instructions(Node),
    [A, B, C, D, E] = remote(Node, plain_processes, spawn_many, [5]),
    [RefA, _, _] = collector:run(zen_selftest_watcher, zen_local, monitor_all, [[A, B, C]]),
    collector:run(zen_selftest_watcher, zen_local, demonitor, [RefA]),
    collector:run(zen_selftest_watcher, zen_local, monitor_all, [[D, E, A]]),
    true = await_subscriptions(Node, 6),
    [
        [{subscribe, A}, {subscribe, B}, {subscribe, C}],
        [{unsubscribe, A}, {subscribe, D}, {subscribe, E}],
        [{subscribe, A}]
    ] = instructions(Node),
    nothing_else().

demonitor_prevents_a_queued_down(Node) ->
    zen_settings:set(demand_amount, 0),
    Targets = remote(Node, plain_processes, spawn_many, [100]),
    Refs = collector:run(zen_selftest_watcher, zen_local, monitor_all, [Targets]),
    true = await_subscriptions(Node, 100),
    remote(Node, plain_processes, kill_all, [Targets]),
    true = polling:until(fun() -> certificates() =:= 100 end, ?PATIENCE_MS),
    {Taken, Left} = lists:split(60, Refs),
    collector:run(zen_selftest_watcher, zen_local, demonitor_all, [Taken, []]),
    zen_settings:set(demand_amount, 1000),
    Expected = lists:sort(Left),
    Expected = lists:sort([Ref || {'DOWN', Ref, process, _, {zen_monitor, killed}} <- downs(40)]),
    nothing_else().

demonitor_flushes_a_delivered_down(Node) ->
    Target = remote(Node, plain_processes, spawn_waiting, []),
    [Ref, Ref2] = collector:run(zen_selftest_watcher, zen_local, monitor_all, [[Target, Target]]),
    true = await_subscriptions(Node, 1),
    plain_processes:finish(Target, done),
    true = polling:until(fun() -> collector:waiting(zen_selftest_watcher) =:= 2 end, ?PATIENCE_MS),
    true = collector:run(zen_selftest_watcher, zen_local, demonitor, [Ref, [flush]]),
    true = collector:run(zen_selftest_watcher, zen_local, demonitor, [Ref2, []]),
    [{'DOWN', Ref2, process, Target, {zen_monitor, done}}] = downs(1),
    nothing_else().

%% The default settings: 1000 messages every 100 ms.
default_pace(Node) ->
    Targets = remote(Node, plain_processes, spawn_many, [2500]),
    collector:run(zen_selftest_watcher, zen_local, monitor_all, [Targets]),
    true = await_subscriptions(Node, 2500),
    zen_settings:set(demand_interval, 100),
    zen_settings:set(demand_amount, 1000),
    remote(Node, plain_processes, kill_all, [Targets]),
    Times = [Time || {Time, {'DOWN', _, _, _, _}} <- collector:take_timed(zen_selftest_watcher, 2500, ?PATIENCE_MS)],
    2500 = length(Times),
    Gap = lists:nth(2500, Times) - lists:nth(1000, Times),
    true = Gap >= 100,
    nothing_else().

subscriber_ends(Node) ->
    Targets = remote(Node, plain_processes, spawn_many, [5]),
    collector:start(zen_selftest_short_lived),
    collector:run(zen_selftest_short_lived, zen_local, monitor_all, [Targets]),
    true = await_subscriptions(Node, 5),
    collector:stop(zen_selftest_short_lived),
    true = await_subscriptions(Node, 0),
    0 = zen_local:reference_count(),
    ok.

connector_node_is_own_node(_Node) ->
    ok = zen_proxy:start(),
    try
        Target = plain_processes:spawn_named(zen_selftest_target),
        Ref = watch(Target),
        Ref2 = watch(zen_selftest_target),
        true = zen_proxy:await_subscriptions(2, ?PATIENCE_MS),
        plain_processes:finish(Target, done),
        Named = {zen_selftest_target, node()},
        Expected = lists:sort([
            {'DOWN', Ref, process, Target, {zen_monitor, done}},
            {'DOWN', Ref2, process, Named, {zen_monitor, done}}
        ]),
        Expected = lists:sort(downs(2)),
        nothing_else()
    after
        zen_proxy:stop()
    end.

older_subscribe(Node) ->
    Targets = [Target, _] = remote(Node, plain_processes, spawn_many, [2]),
    gen_server:cast({?PROXY, Node}, {subscribe, whereis(zen_selftest_watcher), Targets}),
    true = await_subscriptions(Node, 2),
    plain_processes:finish(Target, done),
    [{dead, Node, [{Target, done}]}] = collector:take(zen_selftest_watcher, 1, ?PATIENCE_MS),
    true = await_subscriptions(Node, 1),
    ok.

proxy_crash(Node) ->
    Targets = remote(Node, plain_processes, spawn_many, [3]),
    Refs = collector:run(zen_selftest_watcher, zen_local, monitor_all, [Targets]),
    true = await_subscriptions(Node, 3),
    ok = remote(Node, zen_proxy, kill, []),
    all_nodedown(Refs),
    {1, Remaining} = zen_local:penalty(Node),
    true = Remaining > 1000 andalso Remaining =< 2000,
    [During] = collector:run(zen_selftest_watcher, zen_local, monitor_all, [[hd(Targets)]]),
    all_nodedown([During]),
    true = zen_local:await_compatibility(Node, compatible, ?PATIENCE_MS),
    nothing_else().

no_proxy(Node) ->
    ok = stop_proxy(Node),
    Target = remote(Node, plain_processes, spawn_waiting, []),
    [Ref] = collector:run(zen_selftest_watcher, zen_local, monitor_all, [[Target]]),
    all_nodedown([Ref]),
    incompatible = zen_local:compatibility(Node),
    true = polling:until(fun() -> element(1, zen_local:penalty(Node)) =:= 2 end, ?PATIENCE_MS),
    {2, Remaining} = zen_local:penalty(Node),
    true = Remaining > 3000 andalso Remaining =< 4000,
    nothing_else().

wrong_answer_to_ping(Node) ->
    ok = set_proxy(Node, ping_answer, {answer, ok}),
    incompatible = zen_local:connect(Node),
    ok.

silent_proxy(Node) ->
    zen_settings:set(ping_timeout, 100),
    ok = set_proxy(Node, ping_answer, silent),
    Target = remote(Node, plain_processes, spawn_waiting, []),
    [Ref] = collector:run(zen_selftest_watcher, zen_local, monitor_all, [[Target]]),
    all_nodedown([Ref]),
    incompatible = zen_local:compatibility(Node),
    nothing_else().

disconnect_and_reconnect(Node) ->
    Targets = remote(Node, plain_processes, spawn_many, [3]),
    Refs = collector:run(zen_selftest_watcher, zen_local, monitor_all, [Targets]),
    true = await_subscriptions(Node, 3),
    true = erlang:disconnect_node(Node),
    all_nodedown(Refs),
    unavailable = zen_local:compatibility(Node),
    true = net_kernel:connect_node(Node),
    true = zen_local:await_compatibility(Node, compatible, 1000),
    nothing_else().

unconnected_node(_Node) ->
    Target = {zen_selftest_target, 'nobody@127.0.0.1'},
    [Ref] = collector:run(zen_selftest_watcher, zen_local, monitor_all, [[Target]]),
    all_nodedown([Ref]),
    unavailable = zen_local:compatibility('nobody@127.0.0.1'),
    nothing_else().

%% Monitors from the collector.
watch(Target) -> collector:run(zen_selftest_watcher, zen_local, monitor, [Target]).

%% The same, and waits until the Proxy knows: the target may be ended then. For the only subscription there is.
watch_established(Node, Target) ->
    Ref = watch(Target),
    true = await_subscriptions(Node, 1),
    Ref.

downs(Count) -> collector:take(zen_selftest_watcher, Count, ?PATIENCE_MS).

%% A few sweeps long: what fires twice would have done so by then.
nothing_else() ->
    [] = collector:take(zen_selftest_watcher, 1, 50),
    ok.

all_nodedown(Refs) ->
    Downs = downs(length(Refs)),
    Expected = lists:sort(Refs),
    Expected = lists:sort([Ref || {'DOWN', Ref, process, _, {zen_monitor, nodedown}} <- Downs]),
    ok.

%% How many certificates came to the Local so far; takes nothing out of the record.
certificates() -> length([Row || {_, {dead, _, Rows}} <- ets:tab2list(zen_local_record), Row <- Rows]).

instructions(Node) -> [Instructions || {_, {process, _, Instructions}} <- remote(Node, zen_proxy, recorded, [])].

await_subscriptions(Node, Count) -> remote(Node, zen_proxy, await_subscriptions, [Count, ?PATIENCE_MS]).

start_proxy(Node, Changes) ->
    remote(Node, zen_proxy, start, [maps:merge((zen_settings:fast())#{record => true}, Changes)]).

set_proxy(Node, Name, Value) -> remote(Node, zen_settings, set, [Name, Value]).

stop_proxy(Node) ->
    case remote(Node, erlang, whereis, [zen_proxy_sup]) of
        undefined -> ok;
        _ -> remote(Node, zen_proxy, stop, [])
    end.

remote(Node, Module, Function, Arguments) -> erpc:call(Node, Module, Function, Arguments, 30000).
