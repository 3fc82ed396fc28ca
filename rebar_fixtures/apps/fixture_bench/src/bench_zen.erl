%% ZenMonitor's workloads. The peer plays one of the two roles with all its layers; the driver plays the other one raw,
%% with no more than the wire asks for, so that the peer is what is measured.
%%
%% | workload               | the peer is the Proxy: the driver sends casts as a Local does, and takes the summaries     |
%% | zen_subscribe          | subscriptions to distinct processes of the peer, 5,000 a cast, until all are in place      |
%% | zen_subscribe_again    | the same once more: all are duplicates                                                     |
%% | zen_unsubscribe        | the same taken back                                                                        |
%% | zen_subscribe_at_once  | the same in a single cast                                                                  |
%% | zen_certificates       | the processes end, until the last death certificate is here                                |
%% | zen_certificate_latency| default settings: from one death to its certificate                                        |
%% | zen_subscription_bytes | memory that each subscription takes there                                                  |
%% | workload               | the peer is the Local: the driver takes its casts, monitors, and sends summaries           |
%% | zen_monitor_calls      | calls of monitor, until all have returned                                                  |
%% | zen_monitors           | the same, until the driver has monitored all targets                                       |
%% | zen_downs              | the targets end, until the last DOWN is in the subscriber's mailbox                        |
%% | zen_nodedowns          | the driver cuts the connection, until then                                                 |
%% | zen_pace               | default settings: DOWNs a second from the first to the last, which should be 10,000        |
%% | zen_down_latency       | default settings: from one death to its DOWN                                               |
%% | zen_monitor_bytes      | memory that each monitor takes there                                                       |
%%
%% Where nothing else is said the settings let everything through at once. Each workload checks that every subscription
%% and monitor has fired once.
-module(bench_zen).
-export([proxy/3, local/3]).

-define(PROXY, 'Elixir.ZenMonitor.Proxy').
-define(CHUNK, 5000).
-define(WARM_UP, 2000).
-define(TIMEOUT_MS, 60000).
-define(SAMPLES, 20).
%% Of the sweeps and of the demand, by default.
-define(INTERVAL_MS, 100).
-define(DEMAND, 1000).
-define(PACED, 10000).
-define(UNTHROTTLED, #{
    connector_sweep_interval => 1,
    connector_chunk_size => 1000000,
    batcher_sweep_interval => 1,
    batcher_chunk_size => 1000000,
    demand_interval => 1,
    demand_amount => 1000000
}).

%% The workloads of the peer's Proxy with Count processes.
-spec proxy({sink, node()}, pos_integer(), bench_meter:os_pid()) -> [bench_meter:result()].
proxy(Sink, Count, OsPid) ->
    with_role(Sink, proxy, ?UNTHROTTLED, fun() -> subscribe_and_end(Sink, make_processes(Sink, ?WARM_UP), none) end),
    Pids = make_processes(Sink, Count),
    Bytes = with_role(Sink, proxy, ?UNTHROTTLED, fun() -> subscription_bytes(Sink, Pids) end),
    Rates = with_role(Sink, proxy, ?UNTHROTTLED, fun() -> subscribe_and_end(Sink, Pids, OsPid) end),
    Latency = with_role(Sink, proxy, #{}, fun() -> certificate_latency(Sink) end),
    Rates ++ [Latency, Bytes].

%% The workloads of the peer's Local with Count monitors.
-spec local({sink, node()}, pos_integer(), bench_meter:os_pid()) -> [bench_meter:result()].
local(Sink, Count, OsPid) ->
    Bytes = with_proxy(Sink, ?UNTHROTTLED, fun() -> monitor_bytes(Sink, Count) end),
    Rates = with_proxy(Sink, ?UNTHROTTLED, fun() ->
        monitor_and_end(Sink, ?WARM_UP, none),
        monitor_and_end(Sink, Count, OsPid) ++ [nodedown(Sink, Count, OsPid)]
    end),
    Paced = with_proxy(Sink, #{}, fun() -> [pace(Sink), down_latency(Sink)] end),
    Rates ++ Paced ++ [Bytes].

%% ------------------------------------------------------------------------------------------------ the peer's Proxy

subscribe_and_end(Sink, Pids, OsPid) ->
    Count = length(Pids),
    Subscribe = [{subscribe, Pid} || Pid <- Pids],
    Unsubscribe = [{unsubscribe, Pid} || Pid <- Pids],
    Measured = [
        element(2, bench_meter:measure(Workload, Count, fun() -> instruct(Sink, Casts) end, OsPid))
     || {Workload, Casts} <- [
            {zen_subscribe, chunks(Subscribe)},
            {zen_subscribe_again, chunks(Subscribe)},
            {zen_unsubscribe, chunks(Unsubscribe)},
            {zen_subscribe_at_once, [Subscribe]}
        ]
    ],
    EndAll = fun() ->
        Sink ! killall,
        certificates(Sink, Count, [])
    end,
    {Certificates, Ended} = bench_meter:measure(zen_certificates, Count, EndAll, OsPid),
    ExpectedPids = lists:sort(Pids),
    ExpectedPids = lists:sort([Pid || {Pid, normal} <- Certificates]),
    await_barrier(Sink),
    Measured ++ [Ended].

subscription_bytes(Sink, Pids) ->
    Before = zen(Sink, memory_begin),
    instruct(Sink, chunks([{subscribe, Pid} || Pid <- Pids])),
    #{workload => zen_subscription_bytes, bytes_each => (zen(Sink, memory_end) - Before) / length(Pids)}.

certificate_latency(Sink) ->
    Pids = make_processes(Sink, ?SAMPLES),
    instruct(Sink, [[{subscribe, Pid} || Pid <- Pids]]),
    Sample = fun(Pid) ->
        plain_processes:finish(Pid, normal),
        [{Pid, normal}] = certificates(Sink, 1, [])
    end,
    Latency = latency(zen_certificate_latency, Sample, Pids),
    await_barrier(Sink),
    Sink ! killall,
    Latency.

instruct(Sink, Casts) ->
    lists:foreach(fun(Instructions) -> cast(Sink, Instructions) end, Casts),
    await_barrier(Sink).

cast({sink, Node}, Instructions) -> {?PROXY, Node} ! {'$gen_cast', {process, self(), Instructions}}.

%% A Proxy carries out instructions in order. The certificate of a name that nobody has says that it is done with those
%% sent before; and that no other certificate is under way, for this one must be alone.
await_barrier({sink, Node} = Sink) ->
    Nobody = {bench_zen_nobody, Node},
    cast(Sink, [{subscribe, Nobody}]),
    [{Nobody, noproc}] = certificates(Sink, 1, []),
    ok.

%% The next Count certificates; more than that in the last summary are an error.
certificates(_Sink, 0, Summaries) ->
    lists:append(Summaries);
certificates({sink, Node} = Sink, Count, Summaries) when Count > 0 ->
    receive
        {dead, Node, Certificates} -> certificates(Sink, Count - length(Certificates), [Certificates | Summaries])
    after ?TIMEOUT_MS -> error({certificates_missing, Count})
    end;
certificates(_Sink, Beyond, _Summaries) ->
    error({certificates_beyond, -Beyond}).

chunks(Instructions) when length(Instructions) > ?CHUNK ->
    {Chunk, Rest} = lists:split(?CHUNK, Instructions),
    [Chunk | chunks(Rest)];
chunks(Instructions) ->
    [Instructions].

%% ------------------------------------------------------------------------------------------------ the peer's Local

monitor_and_end(Sink, Count, OsPid) ->
    [Last | Pids] = targets(Sink, Count + 1),
    {CallsUs, Monitors} = bench_meter:measure(zen_monitors, Count, fun() -> monitor_all(Sink, Count + 1) end, OsPid),
    Downs = await_downs(Sink, Count),
    EndAll = fun() ->
        plain_processes:finish_all(Pids, normal),
        bench_meter:await_answer(Downs, zen_downs)
    end,
    {_, Ended} = bench_meter:measure(zen_downs, Count, EndAll, OsPid),
    once_each(Sink, Count, Last),
    [bench_meter:result(zen_monitor_calls, Count, CallsUs), Monitors, Ended].

nodedown({sink, Node} = Sink, Count, OsPid) ->
    Pids = targets(Sink, Count),
    monitor_all(Sink, Count),
    Downs = await_downs(Sink, Count),
    Cut = fun() ->
        Start = os:system_time(microsecond),
        true = erlang:disconnect_node(Node),
        %% The answer connects the nodes again, after the last DOWN.
        {_FirstAt, LastAt} = bench_meter:await_answer(Downs, zen_nodedowns),
        LastAt - Start
    end,
    {Microseconds, Measured} = bench_meter:measure(zen_nodedowns, Count, Cut, OsPid),
    {Count, Count, [nodedown]} = zen(Sink, finish),
    plain_processes:finish_all(Pids, normal),
    maps:merge(Measured, bench_meter:result(zen_nodedowns, Count, Microseconds)).

%% The DOWN of Starter ends an interval, and all others wait when the next one begins: its demand is not met half.
pace(Sink) ->
    [Starter, Last | Pids] = targets(Sink, ?PACED + 2),
    monitor_all(Sink, ?PACED + 2),
    Started = await_downs(Sink, 1),
    plain_processes:finish(Starter, normal),
    _ = bench_meter:await_answer(Started, zen_pace),
    Downs = await_downs(Sink, ?PACED),
    plain_processes:finish_all(Pids, normal),
    {FirstAt, LastAt} = bench_meter:await_answer(Downs, zen_pace),
    once_each(Sink, ?PACED + 1, Last),
    %% The demand of one interval comes at the moment of the first.
    bench_meter:result(zen_pace, ?PACED - ?DEMAND, LastAt - FirstAt).

down_latency(Sink) ->
    Pids = targets(Sink, ?SAMPLES),
    monitor_all(Sink, ?SAMPLES),
    ok = zen(Sink, forward_downs),
    Sample = fun(Pid) ->
        plain_processes:finish(Pid, normal),
        receive
            {down, Pid} -> ok
        after ?TIMEOUT_MS -> error({down_missing, Pid})
        end
    end,
    Latency = latency(zen_down_latency, Sample, Pids),
    {?SAMPLES, ?SAMPLES, [normal]} = zen(Sink, finish),
    Latency.

monitor_bytes(Sink, Count) ->
    Before = zen(Sink, memory_begin),
    Pids = targets(Sink, Count),
    monitor_all(Sink, Count),
    Bytes = zen(Sink, memory_end) - Before,
    plain_processes:finish_all(Pids, normal),
    #{workload => zen_monitor_bytes, bytes_each => Bytes / Count}.

%% New processes here, told to the peer's subscriber.
targets(Sink, Count) ->
    Pids = plain_processes:spawn_many(Count),
    ok = zen(Sink, {targets, Pids}),
    Pids.

%% Lets the subscriber monitor all, and waits until they are here. How long the calls took there, in microseconds.
monitor_all(Sink, Count) ->
    Ref = make_ref(),
    ?PROXY ! {await, self(), Ref, Count},
    CallsUs = zen(Sink, monitor_all),
    all_here = bench_meter:await_answer(Ref, zen_monitors),
    CallsUs.

%% The subscriber has Count DOWNs. With that of Last, which ends now, it has one of each target: DOWNs come in the order of
%% the deaths, so none is under way any more.
once_each(Sink, Count, Last) ->
    Down = await_downs(Sink, 1),
    plain_processes:finish(Last, normal),
    _ = bench_meter:await_answer(Down, zen_downs),
    All = Count + 1,
    {All, All, [normal]} = zen(Sink, finish),
    ok.

%% {Ref, {FirstAt, LastAt}}, system times in microseconds, will come when the subscriber has so many more DOWNs.
await_downs({sink, Node} = Sink, Count) ->
    Ref = make_ref(),
    Sink ! {zen, self(), Ref, {await_downs, Count}},
    bench_meter:round_trip({sink, Node}),
    Ref.

%% ----------------------------------------------------------------------------------------------- the driver's Proxy

with_proxy(Sink, Settings, Work) ->
    {Proxy, Monitor} = spawn_opt(fun() -> serve(none, 0, none) end, [monitor, link, {message_queue_data, off_heap}]),
    true = register(?PROXY, Proxy),
    Results = with_role(Sink, local, Settings, Work),
    Proxy ! stop,
    receive
        {'DOWN', Monitor, process, Proxy, normal} -> Results
    end.

%% Subscriber is the peer's Connector; Here counts the monitors set since the last time somebody awaited so many.
serve(Subscriber, Here, {From, Ref, Here}) ->
    From ! {Ref, all_here},
    serve(Subscriber, 0, none);
serve(Subscriber, Here, Awaiting) ->
    receive
        {'$gen_cast', {process, Connector, Instructions}} ->
            lists:foreach(fun({subscribe, Target}) -> monitor(process, Target) end, Instructions),
            serve(Connector, Here + length(Instructions), Awaiting);
        {'DOWN', _, process, Target, Reason} ->
            Subscriber ! {dead, node(), [{Target, Reason} | more_deaths(?CHUNK - 1)]},
            serve(Subscriber, Here, Awaiting);
        {'$gen_call', From, ping} ->
            gen_server:reply(From, pong),
            serve(Subscriber, Here, Awaiting);
        {await, From, Ref, Count} ->
            serve(Subscriber, Here, {From, Ref, Count});
        stop ->
            ok
    end.

%% Those that are here already.
more_deaths(0) ->
    [];
more_deaths(Room) ->
    receive
        {'DOWN', _, process, Target, Reason} -> [{Target, Reason} | more_deaths(Room - 1)]
    after 0 -> []
    end.

%% ----------------------------------------------------------------------------------------------------- the peer

with_role(Sink, Role, Settings, Work) ->
    ok = zen(Sink, {start, Role, Settings}),
    Results = Work(),
    ok = zen(Sink, {stop, Role}),
    Results.

make_processes(Sink, Count) -> bench_meter:ask(Sink, fun(From, Ref) -> {mkpids, From, Ref, Count} end).

zen(Sink, Request) -> bench_meter:ask(Sink, fun(From, Ref) -> {zen, From, Ref, Request} end).

%% Each alone: when the sweeps that the one before has caused are over, and at a moment of its own between two others.
latency(Workload, Sample, Pids) ->
    Latencies = [
        begin
            timer:sleep(?INTERVAL_MS + rand:uniform(?INTERVAL_MS)),
            Start = erlang:monotonic_time(microsecond),
            Sample(Pid),
            (erlang:monotonic_time(microsecond) - Start) / 1000
        end
     || Pid <- Pids
    ],
    #{workload => Workload, count => length(Pids), p50_ms => bench_load:percentile(50, Latencies)}.
