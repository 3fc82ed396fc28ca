%% The loops of the benchmarks that driver and peer share: casts, calls, DOWN messages.
-module(bench_load).
-export([send_casts/2, receive_casts/1, calls/3, genuine_calls/3, await_downs/1, percentile/2, least_ns/1]).
-export([start_echo/0, stop_echo/0]).

-define(REPETITIONS, 7).
-define(REPETITION_NS, 10000000).
%% No message for so long means that something was lost.
-define(SILENCE_MS, 30000).

%% Sends {'$gen_cast', {work, I, <<"payload">>}} for I = Count down to 1.
-spec send_casts(pid() | {atom(), node()}, non_neg_integer()) -> ok.
send_casts(_Dest, 0) ->
    ok;
send_casts(Dest, Count) ->
    Dest ! {'$gen_cast', {work, Count, <<"payload">>}},
    send_casts(Dest, Count - 1).

-spec receive_casts(non_neg_integer()) -> ok.
receive_casts(0) ->
    ok;
receive_casts(Count) ->
    receive
        {'$gen_cast', {work, _, _}} -> receive_casts(Count - 1)
    after ?SILENCE_MS -> error({casts_missing, Count})
    end.

%% Callers processes side by side, Calls div Callers requests {echo, I} each, as a bare message and its answer (no
%% monitor). The latencies in microseconds.
-spec calls(pid() | {atom(), node()}, pos_integer(), pos_integer()) -> [float()].
calls(Dest, Calls, Callers) -> side_by_side(fun bare_call/2, Dest, Calls, Callers).

%% The same by gen_server:call: monitor, request, reply, demonitor.
-spec genuine_calls(pid() | {atom(), node()}, pos_integer(), pos_integer()) -> [float()].
genuine_calls(Dest, Calls, Callers) ->
    side_by_side(fun(Server, Index) -> Index = gen_server:call(Server, {echo, Index}, ?SILENCE_MS) end, Dest, Calls, Callers).

-spec await_downs(non_neg_integer()) -> ok.
await_downs(0) ->
    ok;
await_downs(Count) ->
    receive
        {'DOWN', _, process, _, _} -> await_downs(Count - 1)
    after ?SILENCE_MS -> error({downs_missing, Count})
    end.

-spec percentile(1..100, [number(), ...]) -> float().
percentile(Percent, Values) ->
    Sorted = lists:sort(Values),
    float(lists:nth(max(1, round(length(Sorted) * Percent / 100)), Sorted)).

%% What Work() takes in nanoseconds: the least of some repetitions, each long enough to be timed.
-spec least_ns(fun(() -> term())) -> float().
least_ns(Work) -> least_ns(Work, 1).

%% A process registered as echo which answers {echo, Term} calls with Term: whom the peer calls on the driver's node.
-spec start_echo() -> pid().
start_echo() ->
    Pid = spawn(fun echo/0),
    true = register(echo, Pid),
    Pid.

-spec stop_echo() -> ok.
stop_echo() ->
    Monitor = monitor(process, echo),
    echo ! stop,
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

echo() ->
    receive
        {'$gen_call', From, {echo, Term}} ->
            gen_server:reply(From, Term),
            echo();
        stop ->
            ok
    end.

least_ns(Work, Times) ->
    case repeated_ns(Work, Times) of
        Ns when Ns < ?REPETITION_NS ->
            least_ns(Work, 2 * Times);
        Ns ->
            lists:min([Ns | [repeated_ns(Work, Times) || _ <- lists:seq(2, ?REPETITIONS)]]) / Times
    end.

repeated_ns(Work, Times) ->
    Start = erlang:monotonic_time(nanosecond),
    repeat(Work, Times),
    erlang:monotonic_time(nanosecond) - Start.

repeat(_Work, 0) ->
    ok;
repeat(Work, Times) ->
    Work(),
    repeat(Work, Times - 1).

bare_call(Dest, Index) ->
    Ref = make_ref(),
    Dest ! {'$gen_call', {self(), Ref}, {echo, Index}},
    receive
        {Ref, Index} -> ok
    after ?SILENCE_MS -> error({no_answer, Index})
    end.

side_by_side(Call, Dest, Calls, 1) ->
    timed_calls(Call, Dest, Calls, []);
side_by_side(Call, Dest, Calls, Callers) ->
    Each = max(1, Calls div Callers),
    Started = [
        spawn_monitor(fun() -> exit({latencies, timed_calls(Call, Dest, Each, [])}) end)
     || _ <- lists:seq(1, Callers)
    ],
    lists:append([
        receive
            {'DOWN', Monitor, process, Pid, {latencies, Latencies}} -> Latencies;
            {'DOWN', Monitor, process, Pid, Failure} -> error({caller_failed, Failure})
        end
     || {Pid, Monitor} <- Started
    ]).

timed_calls(_Call, _Dest, 0, Latencies) ->
    Latencies;
timed_calls(Call, Dest, Left, Latencies) ->
    Start = erlang:monotonic_time(nanosecond),
    Call(Dest, Left),
    Latency = (erlang:monotonic_time(nanosecond) - Start) / 1000,
    timed_calls(Call, Dest, Left - 1, [Latency | Latencies]).
