%% Drives the benchmarks from a BEAM against the process `sink` of a node: a BEAM's bench_peer or any node that answers
%% the same messages (see bench_peer). Names of workloads are from the peer's point of view.
%%
%% | workload       | what is measured                                                                        |
%% | receive_casts  | W1: small casts driver to peer, one sender, until the peer has counted them all         |
%% | send_casts     | W2: small casts peer to driver                                                          |
%% | answer_calls   | W3: request and answer, one at a time                                                   |
%% | answer_calls_64| W3: the same by 64 callers side by side                                                 |
%% | gen_server_calls, gen_server_calls_64 | W3 with gen_server:call: monitor and demonitor included          |
%% | make_calls, make_calls_64 | W3 the other way: the peer calls `echo` on the driver's node                 |
%% | receive_bulk, send_bulk | W4: one term {dead_summary, [{Pid, normal}]} of 100,000 items, counted in items |
%% | receive_batches, send_batches | W4: casts of 5,000 {subscribe, Pid}, counted in items                |
%% | decode_mixed, decode_dead_summary, decode_batch | binary_to_term at the peer, least of some repetitions, per item |
%% | encode_mixed, encode_dead_summary, encode_batch | term_to_binary, the same                           |
%% | set_monitors   | W5: monitors set on processes of the peer                                               |
%% | send_downs     | W5: the peer ends these processes, until all DOWNs are here                             |
%% | answer_noproc  | W5: monitors on processes that are gone, until all DOWNs are here                       |
%% | demonitors     | W5: monitor and demonitor in turn                                                       |
%% | monitor_driver | W5: the peer sets monitors on processes of the driver                                   |
%% | receive_downs  | W5: these processes end, until the peer has all DOWNs                                   |
%%
%% The group memory is bench_memory's, zen_proxy and zen_local are bench_zen's, syn_registry and syn_pg bench_syn's.
%%
%% A result is a map: workload, count, microseconds (wall), per_second, and where they apply p50_us, p99_us (latency of
%% one call), driver_cpu_us and peer_cpu_us (CPU of each operating system process for one item; both need Linux).
-module(bench_driver).
-export([run/2, workloads/0]).

-define(WARM_UP, 3000).
-define(WARM_UP_CALLS, 640).
-define(BULK_ITEMS, 100000).
-define(BULKS, 5).
-define(BATCH_ITEMS, 5000).
-define(BATCHES, 100).
-define(EVENTS, 100).
-define(SUMMARY_ITEMS, 10000).
-define(MEASURED_IN_MEMORY, 10000).
-define(TIMEOUT_MS, 120000).

-record(context, {
    sink :: {sink, node()},
    seconds :: number(),
    monitors :: pos_integer(),
    zen_monitors :: pos_integer(),
    syn_entries :: pos_integer(),
    peer_os_pid :: pos_integer() | none
}).

-spec workloads() -> [atom()].
workloads() ->
    [
        casts_in, casts_out, calls_in, gen_server_calls, calls_out, bulk, batches, monitors_out, monitors_in, codec,
        memory, zen_proxy, zen_local, syn_registry, syn_pg
    ].

%% Runs groups of workloads against the sink of Node and returns their results in order. Options:
%% groups (default: all of workloads/0), seconds for each measurement of a rate (1.0), monitors of W5 (100000) and of
%% ZenMonitor's workloads (zen_monitors, 100000), names and members of syn's (syn_entries, 100000), peer_os_pid (the peer's
%% process id on this machine, for its CPU time; default none). An unknown option is an error.
-spec run(node(), #{atom() => term()}) -> [bench_meter:result()].
run(Node, Options) ->
    Defaults = #{
        groups => workloads(),
        seconds => 1.0,
        monitors => 100000,
        zen_monitors => 100000,
        syn_entries => 100000,
        peer_os_pid => none
    },
    case maps:keys(maps:without(maps:keys(Defaults), Options)) of
        [] -> ok;
        Unknown -> error({unknown_options, Unknown, maps:keys(Defaults)})
    end,
    All = #{groups := Groups} = maps:merge(Defaults, Options),
    Context = #context{
        sink = {sink, Node},
        seconds = maps:get(seconds, All),
        monitors = maps:get(monitors, All),
        zen_monitors = maps:get(zen_monitors, All),
        syn_entries = maps:get(syn_entries, All),
        peer_os_pid = maps:get(peer_os_pid, All)
    },
    Caller = self(),
    Tag = make_ref(),
    %% In a process of its own: an empty mailbox, and messages that a failed run left behind go with it.
    {Pid, Monitor} = spawn_opt(
        fun() -> Caller ! {Tag, run_groups(Groups, Context)} end,
        [monitor, {message_queue_data, off_heap}]
    ),
    receive
        {Tag, Results} ->
            demonitor(Monitor, [flush]),
            Results;
        {'DOWN', Monitor, process, Pid, Reason} ->
            error({benchmark_failed, Node, Reason})
    end.

run_groups(Groups, Context) ->
    bench_load:start_echo(),
    try
        lists:append([
            begin
                garbage_collect(),
                group(Group, Context)
            end
         || Group <- Groups
        ])
    after
        bench_load:stop_echo()
    end.

group(casts_in, #context{sink = Sink} = Context) ->
    Flood = fun(Count) ->
        bench_load:send_casts(Sink, Count),
        Count = ask(Sink, fun(From, Ref) -> {report, From, Ref} end)
    end,
    [measure_rate(receive_casts, ?WARM_UP, 1000000, Flood, Context)];
group(casts_out, #context{sink = Sink} = Context) ->
    Flood = fun(Count) ->
        Sink ! {blast, self(), make_ref(), Count},
        bench_load:receive_casts(Count)
    end,
    [measure_rate(send_casts, ?WARM_UP, 1000000, Flood, Context)];
group(calls_in, Context) ->
    call_groups([{answer_calls, 1}, {answer_calls_64, 64}], fun bench_load:calls/3, Context);
group(gen_server_calls, Context) ->
    call_groups([{gen_server_calls, 1}, {gen_server_calls_64, 64}], fun bench_load:genuine_calls/3, Context);
group(calls_out, #context{sink = Sink} = Context) ->
    [
        begin
            Ask = fun(Count) ->
                Ref = make_ref(),
                Sink ! {call_me, self(), Ref, Count, Callers},
                receive
                    {Ref, P50, P99} -> {P50, P99}
                after ?TIMEOUT_MS -> error({no_answer, call_me})
                end
            end,
            Count = calibrate(Ask, ?WARM_UP_CALLS, 100000, Context) div Callers * Callers,
            {{P50, P99}, Result} = measure(Workload, Count, fun() -> Ask(Count) end, Context),
            Result#{p50_us => P50, p99_us => P99}
        end
     || {Workload, Callers} <- [{make_calls, 1}, {make_calls_64, 64}]
    ];
group(bulk, #context{sink = Sink} = Context) ->
    Summary = {dead_summary, [{Pid, normal} || Pid <- some_pids(?BULK_ITEMS)]},
    Put = fun() -> ok = ask(Sink, fun(From, Ref) -> {bulk, From, Ref, Summary} end) end,
    Put(),
    {_, In} = measure(receive_bulk, ?BULKS * ?BULK_ITEMS, fun() -> [Put() || _ <- lists:seq(1, ?BULKS)] end, Context),
    [In, send_back(send_bulk, ?BULKS, ?BULK_ITEMS, Summary, Context)];
group(batches, #context{sink = Sink} = Context) ->
    Batch = {process, self(), [{subscribe, Pid} || Pid <- some_pids(?BATCH_ITEMS)]},
    Flood = fun(Count) ->
        lists:foreach(fun(_) -> Sink ! {'$gen_cast', Batch} end, lists:seq(1, Count)),
        Count = ask(Sink, fun(From, Ref) -> {report, From, Ref} end)
    end,
    Flood(1),
    {_, In} = measure(receive_batches, ?BATCHES * ?BATCH_ITEMS, fun() -> Flood(?BATCHES) end, Context),
    [In, send_back(send_batches, ?BATCHES, ?BATCH_ITEMS, Batch, Context)];
group(codec, #context{sink = Sink}) ->
    lists:append([
        codec(Sink, Decode, Encode, Items, Term)
     || {Decode, Encode, Items, Term} <- [
            {decode_mixed, encode_mixed, ?EVENTS, [event(Index) || Index <- lists:seq(1, ?EVENTS)]},
            {decode_dead_summary, encode_dead_summary, ?SUMMARY_ITEMS,
                {dead, node(), [{Pid, normal} || Pid <- some_pids(?SUMMARY_ITEMS)]}},
            {decode_batch, encode_batch, ?BATCH_ITEMS,
                {'$gen_cast', {process, self(), [{subscribe, Pid} || Pid <- some_pids(?BATCH_ITEMS)]}}}
        ]
    ]);
group(memory, #context{sink = Sink, monitors = Count}) ->
    bench_memory:run(Sink, min(Count, ?MEASURED_IN_MEMORY));
group(monitors_out, #context{sink = Sink, monitors = Count} = Context) ->
    Pids = ask(Sink, fun(From, Ref) -> {mkpids, From, Ref, Count} end),
    Count = length(Pids),
    MonitorAll = fun() -> lists:foreach(fun(Pid) -> monitor(process, Pid) end, Pids) end,
    {_, Set} = measure(set_monitors, Count, fun() -> MonitorAll(), round_trip(Sink) end, Context),
    {_, Downs} = measure(send_downs, Count, fun() -> Sink ! killall, bench_load:await_downs(Count) end, Context),
    {_, Noproc} = measure(answer_noproc, Count, fun() -> MonitorAll(), bench_load:await_downs(Count) end, Context),
    Churn = fun() ->
        lists:foreach(fun(_) -> demonitor(monitor(process, Sink)) end, Pids),
        round_trip(Sink)
    end,
    {_, Demonitors} = measure(demonitors, Count, Churn, Context),
    [Set, Downs, Noproc, Demonitors];
group(monitors_in, #context{sink = Sink, monitors = Count} = Context) ->
    Pids = plain_processes:spawn_many(Count),
    SetAll = fun() -> set = ask(Sink, fun(From, Ref) -> {monitor_all, From, Ref, Pids} end) end,
    {_, Set} = measure(monitor_driver, Count, SetAll, Context),
    EndAll = fun() ->
        plain_processes:finish_all(Pids, normal),
        receive
            {downs, Count} -> ok
        after ?TIMEOUT_MS -> error({no_answer, downs})
        end
    end,
    {_, Downs} = measure(receive_downs, Count, EndAll, Context),
    [Set, Downs];
group(zen_proxy, #context{sink = Sink, zen_monitors = Count, peer_os_pid = OsPid}) ->
    bench_zen:proxy(Sink, Count, OsPid);
group(zen_local, #context{sink = Sink, zen_monitors = Count, peer_os_pid = OsPid}) ->
    bench_zen:local(Sink, Count, OsPid);
group(syn_registry, #context{sink = Sink, syn_entries = Count, peer_os_pid = OsPid}) ->
    bench_syn:registry(Sink, Count, OsPid);
group(syn_pg, #context{sink = Sink, syn_entries = Count, peer_os_pid = OsPid}) ->
    bench_syn:groups(Sink, Count, OsPid).

%% The peer sends the last bulk or batch it has, so often.
send_back(Workload, Times, Items, Term, #context{sink = Sink} = Context) ->
    Get = fun() ->
        Ref = make_ref(),
        Sink ! {bulk_back, self(), Ref, Times},
        [bench_meter:await_answer(Ref, bulk_back) || _ <- lists:seq(1, Times)]
    end,
    {Got, Out} = measure(Workload, Times * Items, Get, Context),
    true = lists:all(fun(Each) -> Each =:= Term end, Got),
    Out.

%% The peer decodes the term and encodes it, without the network; what it has encoded must be the term again.
codec(Sink, Decode, Encode, Items, Term) ->
    {DecodeNs, EncodeNs, Encoded} = ask(Sink, fun(From, Ref) -> {codec, From, Ref, term_to_binary(Term)} end),
    true = binary_to_term(Encoded) =:= Term,
    [
        #{workload => Workload, count => Items, ns_each => Ns / Items}
     || {Workload, Ns} <- [{Decode, DecodeNs}, {Encode, EncodeNs}]
    ].

%% What an application sends: integers, floats, atoms, binaries, strings, lists, tuples and maps.
event(Index) ->
    {event, Index, #{
        id => Index,
        name => <<"sensor">>,
        value => Index * 0.5,
        tags => [a, b, "text"],
        at => {{2024, 1, 1}, {12, 0, 0}}
    }}.

some_pids(Count) -> [c:pid(0, Index band 16#7fff, 1 + Index bsr 15) || Index <- lists:seq(1, Count)].

call_groups(Workloads, Call, #context{sink = Sink} = Context) ->
    [
        begin
            Count = calibrate(fun(Calls) -> Call(Sink, Calls, Callers) end, ?WARM_UP_CALLS, 250000, Context) div Callers * Callers,
            {Latencies, Result} = measure(Workload, Count, fun() -> Call(Sink, Count, Callers) end, Context),
            Result#{p50_us => bench_load:percentile(50, Latencies), p99_us => bench_load:percentile(99, Latencies)}
        end
     || {Workload, Callers} <- Workloads
    ].

measure_rate(Workload, WarmUp, Most, Flood, Context) ->
    Count = calibrate(Flood, WarmUp, Most, Context),
    {_, Result} = measure(Workload, Count, fun() -> Flood(Count) end, Context),
    Result.

%% A short run warms both sides up; its rate says how many items fill the time asked for.
calibrate(Flood, WarmUp, Most, #context{seconds = Seconds}) ->
    Start = erlang:monotonic_time(microsecond),
    Flood(WarmUp),
    Microseconds = max(1, erlang:monotonic_time(microsecond) - Start),
    min(Most, max(WarmUp, trunc(WarmUp * Seconds * 1.0e6 / Microseconds))).

measure(Workload, Count, Work, #context{peer_os_pid = PeerOsPid}) ->
    bench_meter:measure(Workload, Count, Work, PeerOsPid).

ask(Sink, Request) -> bench_meter:ask(Sink, Request).

round_trip(Sink) -> bench_meter:round_trip(Sink).
