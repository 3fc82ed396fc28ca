%% What a process and a monitor take in the peer's memory, when nothing is left over of how they came about.
%%
%% | workload        | bytes in the peer                                                                    |
%% | process_bytes   | of an idle process, of the kind that the sink is; its pid included                   |
%% | monitored_bytes | of a monitor that the driver has set on a process of the peer                        |
%% | monitor_bytes   | of a monitor that a process of the peer has set on one of the driver                 |
-module(bench_memory).
-export([run/1]).

-define(COUNT, 20000).
-define(TIMEOUT_MS, 60000).

-spec run({sink, node()}) -> [bench_meter:result()].
run(Sink) ->
    {Own, Process} = growth(Sink, process_bytes, fun() ->
        bench_meter:ask(Sink, fun(From, Ref) -> {mkown, From, Ref, ?COUNT} end)
    end),
    ?COUNT = length(Own),
    {_, Monitored} = growth(Sink, monitored_bytes, fun() ->
        lists:foreach(fun(Pid) -> monitor(process, Pid) end, Own),
        bench_meter:round_trip(Sink)
    end),
    Sink ! killall,
    bench_load:await_downs(?COUNT),
    Pids = plain_processes:spawn_many(?COUNT),
    {set, Monitor} = growth(Sink, monitor_bytes, fun() ->
        bench_meter:ask(Sink, fun(From, Ref) -> {watch, From, Ref, Pids} end)
    end),
    plain_processes:finish_all(Pids, normal),
    receive
        {downs, ?COUNT} -> [Process, Monitored, Monitor]
    after ?TIMEOUT_MS -> error({no_answer, downs})
    end.

%% What Work returned, and by how much the peer has grown.
growth(Sink, Workload, Work) ->
    Before = memory(Sink, memory_begin),
    Outcome = Work(),
    {Outcome, #{workload => Workload, count => ?COUNT, bytes_each => (memory(Sink, memory_end) - Before) / ?COUNT}}.

memory(Sink, Request) -> bench_meter:ask(Sink, fun(From, Ref) -> {zen, From, Ref, Request} end).
