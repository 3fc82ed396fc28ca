%% What a process and a monitor take in the peer's memory, when nothing is left over of how they came about.
%%
%% | workload        | bytes in the peer                                                                    |
%% | process_bytes   | of an idle process, of the kind that the sink is; its pid included                   |
%% | monitored_bytes | of a monitor that the driver has set on a process of the peer                        |
%% | monitor_bytes   | of a monitor that a process of the peer has set on one of the driver                 |
-module(bench_memory).
-export([run/2]).

-define(TIMEOUT_MS, 60000).

%% With Count processes and Count monitors each way.
-spec run({sink, node()}, pos_integer()) -> [bench_meter:result()].
run(Sink, Count) ->
    {Own, Process} = growth(Sink, Count, process_bytes, fun() ->
        bench_meter:ask(Sink, fun(From, Ref) -> {mkown, From, Ref, Count} end)
    end),
    Count = length(Own),
    {_, Monitored} = growth(Sink, Count, monitored_bytes, fun() ->
        lists:foreach(fun(Pid) -> monitor(process, Pid) end, Own),
        bench_meter:round_trip(Sink)
    end),
    Sink ! killall,
    bench_load:await_downs(Count),
    Pids = plain_processes:spawn_many(Count),
    {set, Monitor} = growth(Sink, Count, monitor_bytes, fun() ->
        bench_meter:ask(Sink, fun(From, Ref) -> {watch, From, Ref, Pids} end)
    end),
    plain_processes:finish_all(Pids, normal),
    receive
        {downs, Count} -> [Process, Monitored, Monitor]
    after ?TIMEOUT_MS -> error({no_answer, downs})
    end.

%% What Work returned, and by how much the peer has grown.
growth(Sink, Count, Workload, Work) ->
    Before = memory(Sink, memory_begin),
    Outcome = Work(),
    {Outcome, #{workload => Workload, count => Count, bytes_each => (memory(Sink, memory_end) - Before) / Count}}.

memory(Sink, Request) -> bench_meter:ask(Sink, fun(From, Ref) -> {zen, From, Ref, Request} end).
