%% What all workloads measure with: wall time, CPU time of both sides, questions to the peer.
-module(bench_meter).
-export([measure/4, result/3, ask/2, await_answer/2, round_trip/1]).

-define(TIMEOUT_MS, 120000).
%% /proc counts CPU in ticks of 10 ms (USER_HZ = 100 on every Linux).
-define(TICK_US, 10000).

-type os_pid() :: pos_integer() | none.
-type result() :: #{atom() => atom() | number()}.
-export_type([os_pid/0, result/0]).

%% Runs Work, which handles Count items: what it returned, and the result. PeerOsPid is the peer's process id.
-spec measure(atom(), pos_integer(), fun(() -> Outcome), os_pid()) -> {Outcome, result()}.
measure(Workload, Count, Work, PeerOsPid) ->
    OwnOsPid = list_to_integer(os:getpid()),
    PeerBefore = cpu_us(PeerOsPid),
    OwnBefore = cpu_us(OwnOsPid),
    Start = erlang:monotonic_time(microsecond),
    Outcome = Work(),
    Result = result(Workload, Count, erlang:monotonic_time(microsecond) - Start),
    WithOwn = with_cpu(driver_cpu_us, OwnBefore, cpu_us(OwnOsPid), Count, Result),
    {Outcome, with_cpu(peer_cpu_us, PeerBefore, cpu_us(PeerOsPid), Count, WithOwn)}.

%% The result of a workload whose wall time was taken elsewhere.
-spec result(atom(), pos_integer(), integer()) -> result().
result(Workload, Count, Microseconds) ->
    Wall = max(1, Microseconds),
    #{workload => Workload, count => Count, microseconds => Wall, per_second => Count * 1.0e6 / Wall}.

%% Sends a request built from self() and a fresh reference, and awaits {Ref, Answer}.
-spec ask(pid() | {atom(), node()}, fun((pid(), reference()) -> tuple())) -> term().
ask(Sink, Request) ->
    Ref = make_ref(),
    Message = Request(self(), Ref),
    Sink ! Message,
    await_answer(Ref, element(1, Message)).

-spec await_answer(reference(), atom()) -> term().
await_answer(Ref, What) ->
    receive
        {Ref, Answer} -> Answer
    after ?TIMEOUT_MS -> error({no_answer, What})
    end.

%% Everything sent to the peer before has been handled by its node when this returns.
-spec round_trip({sink, node()}) -> here.
round_trip(Sink) -> here = ask(Sink, fun(From, Ref) -> {'$gen_call', {From, Ref}, {echo, here}} end).

with_cpu(_Key, unknown, _After, _Count, Result) -> Result;
with_cpu(Key, Before, After, Count, Result) -> Result#{Key => (After - Before) / Count}.

%% User and system time of all threads: fields 14 and 15 of /proc/PID/stat (the 12th and 13th after the command name).
cpu_us(none) ->
    unknown;
cpu_us(OsPid) ->
    case file:read_file("/proc/" ++ integer_to_list(OsPid) ++ "/stat") of
        {ok, Stat} ->
            [_, AfterName] = string:split(Stat, ") ", trailing),
            Fields = string:lexemes(AfterName, " "),
            lists:sum([binary_to_integer(lists:nth(Field, Fields)) || Field <- [12, 13]]) * ?TICK_US;
        {error, enoent} ->
            unknown
    end.
