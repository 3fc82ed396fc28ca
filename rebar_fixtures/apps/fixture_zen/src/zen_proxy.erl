%% The Proxy role: monitors processes for the Connectors of other nodes and reports deaths in batches.
%%
%% Registered as 'Elixir.ZenMonitor.Proxy'. It understands, and answers as the original does:
%%     call  ping                                                 -> pong
%%     cast  {process, Subscriber, [{subscribe | unsubscribe, Target}]}
%%     cast  {subscribe, Subscriber, [Target]}                    the older form
%% A Target is a pid or {Name, Node}. Anything else crashes the Proxy, as it crashes the original: a peer that sends
%% nonsense must not pass a test.
%%
%% One ERTS monitor for each target however many subscribers it has. The first death for a subscriber starts its Batcher,
%% which monitors the subscriber from then on; when that Batcher ends, all subscriptions of its subscriber are dropped.
-module(zen_proxy).
-behaviour(gen_server).
-export([start/0, start/1, stop/0, kill/0, recorded/0]).
-export([subscriptions/0, subscription_count/0, monitor_count/0, batcher_count/0, await_subscriptions/2]).
-export([start_link/0, init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(NAME, 'Elixir.ZenMonitor.Proxy').
%% A machine under load may take its time.
-define(PATIENCE_MS, 20000).

-record(state, {
    %% Who wants to know of a target, and which monitor watches it.
    subscribers = #{} :: #{target() => #{pid() => []}},
    monitors = #{} :: #{target() => reference()},
    targets = #{} :: #{reference() => target()},
    %% The same subscriptions seen from the other side, for the end of a subscriber.
    wanted = #{} :: #{pid() => #{target() => []}},
    batchers = #{} :: #{pid() => pid()},
    batcher_monitors = #{} :: #{reference() => pid()}
}).

-type target() :: pid() | {atom(), node()}.

%% Starts the role with default settings.
-spec start() -> ok.
start() -> start(#{}).

%% Starts the role; Changes are settings that differ from the default (see zen_settings).
-spec start(#{atom() => term()}) -> ok.
start(Changes) ->
    zen_settings:begin_role(Changes),
    _ = zen_proxy_sup:start(),
    ok.

%% Stops the role for good and waits until it is gone.
-spec stop() -> ok.
stop() -> gen_server:stop(zen_proxy_sup, shutdown, ?PATIENCE_MS).

%% Kills the Proxy process; its supervisor starts a new one. Waits until the new one is registered.
-spec kill() -> ok.
kill() ->
    Old = whereis(?NAME),
    Monitor = monitor(process, Old),
    exit(Old, kill),
    receive
        {'DOWN', Monitor, process, Old, _} -> ok
    end,
    true = polling:until(fun() -> is_pid(whereis(?NAME)) end, ?PATIENCE_MS),
    ok.

%% The casts that came since the last look, as [{Milliseconds, Cast}]; needs the setting record => true.
-spec recorded() -> [{non_neg_integer(), term()}].
recorded() -> zen_record:take(zen_proxy_record).

%% [{Target, [Subscriber]}]
-spec subscriptions() -> [{target(), [pid()]}].
subscriptions() -> ask(subscriptions).

%% How many (target, subscriber) pairs there are.
-spec subscription_count() -> non_neg_integer().
subscription_count() -> ask(subscription_count).

%% How many ERTS monitors on targets are set.
-spec monitor_count() -> non_neg_integer().
monitor_count() -> ask(monitor_count).

%% How many Batchers there are: one for each subscriber that lives and has been told of a death.
-spec batcher_count() -> non_neg_integer().
batcher_count() -> ask(batcher_count).

ask(What) -> gen_server:call(?NAME, {?MODULE, What}, ?PATIENCE_MS).

%% Waits until there are exactly Count subscriptions: false when TimeoutMs passes first.
-spec await_subscriptions(non_neg_integer(), non_neg_integer()) -> boolean().
await_subscriptions(Count, TimeoutMs) ->
    polling:until(fun() -> subscription_count() =:= Count end, TimeoutMs).

start_link() -> gen_server:start_link({local, ?NAME}, ?MODULE, [], []).

init([]) ->
    process_flag(message_queue_data, off_heap),
    {ok, #state{}}.

handle_call(ping, _From, State) ->
    case zen_settings:get(ping_answer) of
        pong -> {reply, pong, State};
        {answer, Term} -> {reply, Term, State};
        silent -> {noreply, State}
    end;
handle_call({?MODULE, subscriptions}, _From, State) ->
    {reply, [{Target, maps:keys(Subscribers)} || {Target, Subscribers} <- maps:to_list(State#state.subscribers)], State};
handle_call({?MODULE, subscription_count}, _From, State) ->
    {reply, lists:sum([map_size(Targets) || Targets <- maps:values(State#state.wanted)]), State};
handle_call({?MODULE, monitor_count}, _From, State) ->
    {reply, map_size(State#state.monitors), State};
handle_call({?MODULE, batcher_count}, _From, State) ->
    {reply, map_size(State#state.batchers), State}.

handle_cast({process, Subscriber, Instructions} = Cast, State) when is_pid(Subscriber) ->
    zen_record:note(zen_proxy_record, Cast),
    {noreply, lists:foldl(fun(Instruction, Acc) -> apply_instruction(Instruction, Subscriber, Acc) end, State, Instructions)};
handle_cast({subscribe, Subscriber, Targets} = Cast, State) when is_pid(Subscriber) ->
    zen_record:note(zen_proxy_record, Cast),
    {noreply, lists:foldl(fun(Target, Acc) -> subscribe(Target, Subscriber, Acc) end, State, Targets)}.

handle_info({'DOWN', Monitor, process, _, Reason}, State) ->
    case State of
        #state{targets = #{Monitor := Target}} -> {noreply, target_died(Monitor, Target, Reason, State)};
        #state{batcher_monitors = #{Monitor := Subscriber}} -> {noreply, drop_subscriber(Monitor, Subscriber, State)};
        %% The demonitor of an unsubscribe was too late.
        #state{} -> {noreply, State}
    end.

apply_instruction({subscribe, Target}, Subscriber, State) -> subscribe(Target, Subscriber, State);
apply_instruction({unsubscribe, Target}, Subscriber, State) -> unsubscribe(Target, Subscriber, State).

subscribe(Target, Subscriber, State0) ->
    State = watch(Target, State0),
    #state{subscribers = #{Target := Subscribers} = All, wanted = Wanted} = State,
    Targets = maps:get(Subscriber, Wanted, #{}),
    State#state{
        subscribers = All#{Target := Subscribers#{Subscriber => []}},
        wanted = Wanted#{Subscriber => Targets#{Target => []}}
    }.

%% A dead or unregistered target needs no special case: its monitor reports noproc.
watch(Target, #state{monitors = Monitors} = State) when is_map_key(Target, Monitors) ->
    State;
watch(Target, State) when is_pid(Target); is_atom(element(1, Target)), is_atom(element(2, Target)), tuple_size(Target) =:= 2 ->
    #state{subscribers = Subscribers, monitors = Monitors, targets = Targets} = State,
    Monitor = monitor(process, Target),
    State#state{
        subscribers = Subscribers#{Target => #{}},
        monitors = Monitors#{Target => Monitor},
        targets = Targets#{Monitor => Target}
    }.

unsubscribe(Target, Subscriber, #state{wanted = Wanted} = State) ->
    case Wanted of
        #{Subscriber := #{Target := _} = Targets} ->
            Left = maps:remove(Target, Targets),
            NewWanted =
                case map_size(Left) of
                    0 -> maps:remove(Subscriber, Wanted);
                    _ -> Wanted#{Subscriber := Left}
                end,
            release(Target, Subscriber, State#state{wanted = NewWanted});
        _ ->
            State
    end.

%% Takes one subscriber off a target; the last one takes the monitor with it.
release(Target, Subscriber, #state{subscribers = All} = State) ->
    Left = maps:remove(Subscriber, maps:get(Target, All)),
    case map_size(Left) of
        0 ->
            {Monitor, Monitors} = maps:take(Target, State#state.monitors),
            demonitor(Monitor, [flush]),
            State#state{
                subscribers = maps:remove(Target, All),
                monitors = Monitors,
                targets = maps:remove(Monitor, State#state.targets)
            };
        _ ->
            State#state{subscribers = All#{Target := Left}}
    end.

target_died(Monitor, Target, Reason, State) ->
    {Subscribers, Others} = maps:take(Target, State#state.subscribers),
    Certificate = {Target, zen_truncator:truncate(Reason)},
    Cleared = State#state{
        subscribers = Others,
        monitors = maps:remove(Target, State#state.monitors),
        targets = maps:remove(Monitor, State#state.targets)
    },
    lists:foldl(fun(Subscriber, Acc) -> certify(Certificate, Subscriber, Acc) end, Cleared, maps:keys(Subscribers)).

certify({Target, _} = Certificate, Subscriber, State0) ->
    {Batcher, State} = batcher(Subscriber, State0),
    zen_batcher:enqueue(Batcher, Certificate),
    #state{wanted = #{Subscriber := Targets} = Wanted} = State,
    Left = maps:remove(Target, Targets),
    case map_size(Left) of
        0 -> State#state{wanted = maps:remove(Subscriber, Wanted)};
        _ -> State#state{wanted = Wanted#{Subscriber := Left}}
    end.

batcher(Subscriber, #state{batchers = Batchers} = State) ->
    case Batchers of
        #{Subscriber := Batcher} ->
            {Batcher, State};
        _ ->
            {ok, Batcher} = zen_batcher:start_link(Subscriber),
            Monitor = monitor(process, Batcher),
            {Batcher, State#state{
                batchers = Batchers#{Subscriber => Batcher},
                batcher_monitors = (State#state.batcher_monitors)#{Monitor => Subscriber}
            }}
    end.

%% The Batcher saw its subscriber end (or its node go).
drop_subscriber(Monitor, Subscriber, State) ->
    Targets = maps:keys(maps:get(Subscriber, State#state.wanted, #{})),
    Cleared = lists:foldl(fun(Target, Acc) -> unsubscribe(Target, Subscriber, Acc) end, State, Targets),
    Cleared#state{
        batchers = maps:remove(Subscriber, State#state.batchers),
        batcher_monitors = maps:remove(Monitor, State#state.batcher_monitors)
    }.
