%% ZenMonitor on the peer's side, played by the stand-in (fixture_zen): what bench_peer does with {zen, From, Ref, Request}.
%%
%% | request                   | answer, sent as From ! {Ref, Answer}                                                    |
%% | {start, Role, Settings}   | ok, when the proxy or local runs; Settings are those that differ from the default       |
%% | {stop, Role}              | ok                                                                                      |
%% | {targets, Pids}           | ok; starts the subscriber, a process that knows them                                    |
%% | monitor_all               | it has monitored them: the microseconds which that took                                 |
%% | {await_downs, Count}      | {FirstAt, LastAt}, of the next so many DOWNs, by os:system_time(microsecond)            |
%% | forward_downs             | ok; of each DOWN from now on From gets {down, Target}                                   |
%% | finish                    | {Downs, Targets, Reasons}: how many came, of how many targets, why; the subscriber ends |
%% | memory_begin, memory_end  | bytes in use after a garbage collection; at the end the subscriber forgets its targets  |
-module(bench_zen_peer).
-export([handle/4]).

%% Handles a request; Subscriber is the subscriber there is, and is there afterwards.
-spec handle(term(), pid(), reference(), pid() | none) -> pid() | none.
handle({start, Role, Settings}, From, Ref, Subscriber) ->
    From ! {Ref, (module(Role)):start(Settings)},
    Subscriber;
handle({stop, Role}, From, Ref, Subscriber) ->
    From ! {Ref, (module(Role)):stop()},
    Subscriber;
handle({targets, Pids}, From, Ref, _) ->
    Subscriber = spawn_opt(fun() -> subscribe(Pids) end, [link, {message_queue_data, off_heap}]),
    From ! {Ref, ok},
    Subscriber;
handle(memory_begin, From, Ref, Subscriber) ->
    From ! {Ref, memory()},
    Subscriber;
handle(memory_end, From, Ref, Subscriber) ->
    Subscriber =:= none orelse (ok = bench_meter:ask(Subscriber, fun(Me, MyRef) -> {forget_targets, Me, MyRef} end)),
    From ! {Ref, memory()},
    Subscriber;
handle(finish, From, Ref, Subscriber) ->
    Subscriber ! {finish, From, Ref},
    none;
handle(Request, From, Ref, Subscriber) ->
    Subscriber ! {Request, From, Ref},
    Subscriber.

module(proxy) -> zen_proxy;
module(local) -> zen_local.

memory() ->
    lists:foreach(fun garbage_collect/1, processes()),
    erlang:memory(total).

%% ------------------------------------------------------------------------------------------------- the subscriber

subscribe(Pids) ->
    receive
        {monitor_all, From, Ref} ->
            Start = erlang:monotonic_time(microsecond),
            lists:foreach(fun zen_local:monitor/1, Pids),
            From ! {Ref, erlang:monotonic_time(microsecond) - Start},
            watch(Pids, [])
    end.

%% Downs are {Target, Reason}, the latest first.
watch(Pids, Downs) ->
    receive
        {{await_downs, Count}, From, Ref} ->
            First = down(),
            FirstAt = os:system_time(microsecond),
            All = downs(Count - 1, [First | Downs]),
            From ! {Ref, {FirstAt, os:system_time(microsecond)}},
            watch(Pids, All);
        {forward_downs, From, Ref} ->
            From ! {Ref, ok},
            forward(From, Downs);
        {forget_targets, From, Ref} ->
            From ! {Ref, ok},
            watch([], Downs);
        {finish, From, Ref} ->
            finish(From, Ref, Downs)
    end.

down() ->
    receive
        {'DOWN', _, process, Target, {zen_monitor, Reason}} -> {Target, Reason}
    end.

downs(0, Downs) -> Downs;
downs(Count, Downs) -> downs(Count - 1, [down() | Downs]).

forward(To, Downs) ->
    receive
        {'DOWN', _, process, Target, {zen_monitor, Reason}} ->
            To ! {down, Target},
            forward(To, [{Target, Reason} | Downs]);
        {finish, From, Ref} ->
            finish(From, Ref, Downs)
    end.

finish(From, Ref, Downs) ->
    receive
        {'DOWN', _, process, Target, {zen_monitor, Reason}} -> finish(From, Ref, [{Target, Reason} | Downs])
    after 0 ->
        {Targets, Reasons} = lists:unzip(Downs),
        From ! {Ref, {length(Downs), length(lists:usort(Targets)), lists:usort(Reasons)}}
    end.
