%% A process with a name whose mailbox the test reads from outside.
%%
%% A collector takes no message out of its mailbox by itself: what arrives stays there, in order, until `take` asks for
%% it. So its mailbox behaves like that of any process (demonitor with flush finds the DOWN in it), and no test has to
%% sleep: `take` waits for so many messages or for a time limit, whichever comes first.
%%
%% `run` calls a function inside the collector, which makes it the owner of monitors, links and aliases:
%%     collector:start(watcher),
%%     Ref = collector:run(watcher, erlang, monitor, [process, Target]),
%%     [{'DOWN', Ref, process, Target, Reason}] = collector:take(watcher, 1, 5000).
-module(collector).
-export([start/1, stop/1, stop/2, run/4, run/5, take/3, take_timed/3, take_if/4, waiting/1, is_equal_to/5]).

-define(CALL_SLACK_MS, 20000).
%% is_tuple comes first: a guard in which tuple_size fails is false as a whole, `not` or no `not`.
-define(IS_REQUEST(Message),
    (is_tuple(Message) andalso tuple_size(Message) >= 3 andalso element(1, Message) =:= ?MODULE)
).

%% Starts a collector registered as Name. It is linked to nobody, so it outlives the caller.
-spec start(atom()) -> pid().
start(Name) ->
    Caller = self(),
    Ready = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        register(Name, self()),
        Caller ! {Ready, self()},
        loop()
    end),
    receive
        {Ready, Pid} ->
            demonitor(Monitor, [flush]),
            Pid;
        {'DOWN', Monitor, process, Pid, _} ->
            error({name_taken, Name})
    end.

-spec stop(atom() | pid()) -> true.
stop(Collector) -> stop(Collector, normal).

%% Ends the collector with Reason, from the inside: links and monitors see exactly that reason. Waits until it is gone.
-spec stop(atom() | pid(), term()) -> true.
stop(Collector, Reason) ->
    Monitor = monitor(process, Collector),
    Collector ! {?MODULE, stop, Reason},
    receive
        {'DOWN', Monitor, process, _, _} -> true
    end.

%% Calls Module:Function(Arguments...) inside the collector and returns what it returns.
%% An exception in there comes back as {raised, Class, Reason} and leaves the collector alive.
-spec run(atom() | pid(), module(), atom(), [term()]) -> term().
run(Collector, Module, Function, Arguments) ->
    run(Collector, Module, Function, Arguments, 60000).

-spec run(atom() | pid(), module(), atom(), [term()], timeout()) -> term().
run(Collector, Module, Function, Arguments, TimeoutMs) ->
    request(Collector, {run, Module, Function, Arguments}, TimeoutMs).

%% Takes Count messages in the order of arrival; fewer when TimeoutMs milliseconds pass first.
-spec take(atom() | pid(), non_neg_integer(), non_neg_integer()) -> [term()].
take(Collector, Count, TimeoutMs) ->
    [Message || {_, Message} <- take_timed(Collector, Count, TimeoutMs)].

%% As take, each message with the milliseconds between the call and its being taken: {Milliseconds, Message}.
-spec take_timed(atom() | pid(), non_neg_integer(), non_neg_integer()) -> [{non_neg_integer(), term()}].
take_timed(Collector, Count, TimeoutMs) ->
    request(Collector, {take, Count, TimeoutMs}, TimeoutMs + ?CALL_SLACK_MS).

%% Takes, leaving all others in place, Count messages which are tuples with Tag as their first element.
-spec take_if(atom() | pid(), term(), non_neg_integer(), non_neg_integer()) -> [tuple()].
take_if(Collector, Tag, Count, TimeoutMs) ->
    request(Collector, {take_if, Tag, Count, TimeoutMs}, TimeoutMs + ?CALL_SLACK_MS).

%% How many messages wait in the mailbox.
-spec waiting(atom() | pid()) -> non_neg_integer().
waiting(Collector) ->
    request(Collector, waiting, ?CALL_SLACK_MS).

%% Takes one message and compares it here with what Module:Function(Arguments...) builds: true, or {false, Description}.
%% For terms that are too big to be printed. `=:=` decides, so 1 and 1.0 differ.
-spec is_equal_to(atom() | pid(), module(), atom(), [term()], non_neg_integer()) -> true | {false, term()}.
is_equal_to(Collector, Module, Function, Arguments, TimeoutMs) ->
    Comparison = {compare, Module, Function, Arguments, TimeoutMs},
    request(Collector, Comparison, TimeoutMs + 60000).

request(Collector, Request, TimeoutMs) ->
    Tag = monitor(process, Collector),
    Collector ! {?MODULE, self(), Tag, Request},
    receive
        {?MODULE, Tag, Answer} ->
            demonitor(Tag, [flush]),
            Answer;
        {'DOWN', Tag, process, _, Reason} ->
            error({collector_gone, Collector, Reason})
    after TimeoutMs ->
        demonitor(Tag, [flush]),
        error({collector_silent, Collector, Request})
    end.

%% Only requests are received here; everything else stays in the mailbox.
loop() ->
    receive
        {?MODULE, stop, Reason} ->
            exit(Reason);
        {?MODULE, From, Tag, Request} ->
            From ! {?MODULE, Tag, answer(Request)},
            loop()
    end.

answer({run, Module, Function, Arguments}) ->
    try
        apply(Module, Function, Arguments)
    catch
        Class:Reason -> {raised, Class, Reason}
    end;
answer({take, Count, TimeoutMs}) ->
    Start = now_ms(),
    take_messages(Count, Start, Start + TimeoutMs);
answer({take_if, Tag, Count, TimeoutMs}) ->
    take_tagged(Tag, Count, now_ms() + TimeoutMs);
answer(waiting) ->
    {message_queue_len, Length} = process_info(self(), message_queue_len),
    Length;
answer({compare, Module, Function, Arguments, TimeoutMs}) ->
    Expected = apply(Module, Function, Arguments),
    Start = now_ms(),
    case take_messages(1, Start, Start + TimeoutMs) of
        [{_, Expected}] -> true;
        [{_, Other}] -> {false, big_terms:describe(Other)};
        [] -> {false, nothing_arrived}
    end.

take_messages(0, _Start, _Deadline) ->
    [];
take_messages(Count, Start, Deadline) ->
    receive
        Message when not ?IS_REQUEST(Message) ->
            [{now_ms() - Start, Message} | take_messages(Count - 1, Start, Deadline)]
    after remaining(Deadline) ->
        []
    end.

take_tagged(_Tag, 0, _Deadline) ->
    [];
take_tagged(Tag, Count, Deadline) ->
    receive
        Message when element(1, Message) =:= Tag ->
            [Message | take_tagged(Tag, Count - 1, Deadline)]
    after remaining(Deadline) ->
        []
    end.

now_ms() -> erlang:monotonic_time(millisecond).

remaining(Deadline) -> max(0, Deadline - now_ms()).
