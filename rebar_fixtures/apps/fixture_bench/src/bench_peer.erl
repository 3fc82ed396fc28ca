%% The peer of the benchmarks on the BEAM: what the driver sends its load to, for BEAM to BEAM figures.
%%
%% A process registered as `sink`. A node of another kind is measured by answering the same messages under that name:
%%
%% | message                                   | what the peer does                                                     |
%% | {'$gen_cast', {work, N, Payload}}         | counts it                                                              |
%% | {report, From, Ref}                       | From ! {Ref, Count}; the count starts again at 0                       |
%% | {blast, Dest, Ref, N}                     | Dest ! {'$gen_cast', {work, I, <<"payload">>}} for I = N down to 1     |
%% | {'$gen_call', From, {echo, Term}}         | replies Term as gen_server:reply does                                  |
%% | {call_me, From, Ref, N, K}                | K processes call {echo, I} of {echo, node(From)}, N div K times each,  |
%% |                                           | then From ! {Ref, P50, P99} in microseconds (floats)                   |
%% | {bulk, From, Ref, Term}                   | keeps Term; From ! {Ref, ok}                                           |
%% | {'$gen_cast', {process, Pid, Batch}}      | keeps {process, Pid, Batch} as such a Term, and counts 1               |
%% | {bulk_back, From, Ref, K}                 | K times From ! {Ref, Term}                                             |
%% | {codec, From, Ref, Binary}                | decodes the external form and encodes the term, again and again;       |
%% |                                           | From ! {Ref, {DecodeNs, EncodeNs, Encoded}}, of one time               |
%% | {mkpids, From, Ref, N}                    | makes N processes; From ! {Ref, Pids}                                  |
%% | {mkown, From, Ref, N}                     | the same with processes of the kind that `sink` itself is              |
%% | killall                                   | ends them with reason normal                                           |
%% | {monitor_all, From, Ref, Pids}            | monitors them, From ! {Ref, set} when all are in place on From's node; |
%% |                                           | From ! {downs, N} after N DOWN messages                                |
%% | {watch, From, Ref, Pids}                  | the same by a process of its own, if the sink waited for the DOWNs     |
%% | {zen, From, Ref, Request}                 | one of bench_zen_peer's requests                                       |
%% | {syn, From, Ref, Request}                 | one of bench_syn_peer's requests                                       |
%% | stop                                      | ends                                                                   |
-module(bench_peer).
-export([start/0, stop/0]).

-record(state, {
    count = 0 :: non_neg_integer(),
    bulk = none :: term(),
    pids = [] :: [pid()],
    %% Of ZenMonitor's workloads.
    zen_subscriber = none :: pid() | none,
    %% Of syn's: the processes that are registered and that join.
    syn_pids = [] :: [pid()]
}).

%% Starts the peer, linked to nobody, registered as sink.
-spec start() -> pid().
start() ->
    Pid = spawn_opt(
        fun() ->
            receive
                begin_serving -> loop(#state{})
            end
        end,
        [{message_queue_data, off_heap}]
    ),
    true = register(sink, Pid),
    Pid ! begin_serving,
    Pid.

%% Ends the peer and waits until it is gone.
-spec stop() -> ok.
stop() ->
    Monitor = monitor(process, sink),
    sink ! stop,
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

loop(#state{count = Count} = State) ->
    receive
        {'$gen_cast', {work, _Index, _Payload}} ->
            loop(State#state{count = Count + 1});
        {'$gen_cast', {process, _Pid, _Batch} = Cast} ->
            loop(State#state{count = Count + 1, bulk = Cast});
        {report, From, Ref} ->
            From ! {Ref, Count},
            loop(State#state{count = 0});
        {'$gen_call', From, {echo, Term}} ->
            gen_server:reply(From, Term),
            loop(State);
        {blast, Dest, _Ref, Messages} ->
            bench_load:send_casts(Dest, Messages),
            loop(State);
        {call_me, From, Ref, Calls, Callers} ->
            spawn(fun() ->
                Latencies = bench_load:calls({echo, node(From)}, Calls, Callers),
                From ! {Ref, bench_load:percentile(50, Latencies), bench_load:percentile(99, Latencies)}
            end),
            loop(State);
        {bulk, From, Ref, Term} ->
            From ! {Ref, ok},
            loop(State#state{bulk = Term});
        {bulk_back, From, Ref, Times} ->
            lists:foreach(fun(_) -> From ! {Ref, State#state.bulk} end, lists:seq(1, Times)),
            loop(State);
        {codec, From, Ref, Binary} ->
            spawn(fun() -> From ! {Ref, codec(Binary)} end),
            loop(State);
        {Make, From, Ref, Count1} when Make =:= mkpids; Make =:= mkown ->
            Pids = plain_processes:spawn_many(Count1),
            From ! {Ref, Pids},
            loop(State#state{pids = Pids});
        killall ->
            plain_processes:finish_all(State#state.pids, normal),
            loop(State#state{pids = []});
        {monitor_all, From, Ref, Pids} ->
            monitor_all(From, Ref, Pids),
            loop(State);
        {watch, From, Ref, Pids} ->
            spawn(fun() -> monitor_all(From, Ref, Pids) end),
            loop(State);
        {zen, From, Ref, Request} ->
            loop(State#state{zen_subscriber = bench_zen_peer:handle(Request, From, Ref, State#state.zen_subscriber)});
        {syn, From, Ref, {pids, Pids}} ->
            From ! {Ref, ok},
            loop(State#state{syn_pids = Pids});
        {syn, From, Ref, Request} ->
            %% In a process of its own: this one is asked meanwhile whether it still answers.
            Pids = State#state.syn_pids,
            spawn(fun() -> From ! {Ref, bench_syn_peer:answer(Request, Pids)} end),
            loop(State);
        stop ->
            ok
    end.

%% A call to the driver's node comes back after the monitors, which travel on the same connection, are in place.
monitor_all(From, Ref, Pids) ->
    Count = length(Pids),
    lists:foreach(fun(Pid) -> monitor(process, Pid) end, Pids),
    bench_load:calls({echo, node(From)}, 1, 1),
    From ! {Ref, set},
    bench_load:await_downs(Count),
    From ! {downs, Count}.

codec(Binary) ->
    DecodeNs = bench_load:least_ns(fun() -> binary_to_term(Binary) end),
    Term = binary_to_term(Binary),
    {DecodeNs, bench_load:least_ns(fun() -> term_to_binary(Term) end), term_to_binary(Term)}.
