%% The Local role: ZenMonitor's client. Monitors processes of other nodes through the Proxies there.
%%
%% monitor/1 and demonitor act for the calling process, as erlang:monitor does: {'DOWN', Ref, process, Target,
%% {zen_monitor, Reason}} comes to it, exactly once. As with the original, only visible nodes are looked at and no
%% connection is ever made: a target on a node that is hidden, unconnected or without a Proxy fires nodedown.
%%
%% Unlike the original, a local name is taken for {Name, node()}, and a term that can be no target is badarg.
-module(zen_local).
-behaviour(gen_server).
-export([start/0, start/1, stop/0, recorded/0]).
-export([monitor/1, monitor_all/1, demonitor/1, demonitor/2, demonitor_all/2, monitor_and_collect/3]).
-export([connect/1, compatibility/1, penalty/1, await_compatibility/3, reference_count/0]).
-export([start_link/0, init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(NAME, 'Elixir.ZenMonitor.Local').

-record(state, {
    connectors = #{} :: #{node() => pid()},
    %% Subscribers under an ERTS monitor of ours, for the end of a subscriber.
    subscribers = #{} :: #{pid() => []}
}).

-type target() :: pid() | {atom(), node()}.

%% Starts the role with default settings.
-spec start() -> ok.
start() -> start(#{}).

%% Starts the role; Changes are settings that differ from the default (see zen_settings).
-spec start(#{atom() => term()}) -> ok.
start(Changes) ->
    zen_settings:begin_role(Changes),
    _ = zen_local_sup:start(),
    ok.

%% Stops the role and waits until it is gone.
-spec stop() -> ok.
stop() -> gen_server:stop(zen_local_sup, shutdown, 20000).

%% The summaries {dead, Node, Certificates} that came since the last look, as [{Milliseconds, Summary}]; needs the
%% setting record => true.
-spec recorded() -> [{non_neg_integer(), term()}].
recorded() -> zen_record:take(zen_local_record).

-spec monitor(target() | atom()) -> reference().
monitor(Name) when is_atom(Name) ->
    monitor({Name, node()});
monitor(Target) when is_pid(Target); is_atom(element(1, Target)), is_atom(element(2, Target)), tuple_size(Target) =:= 2 ->
    Ref = make_ref(),
    true = ets:insert(zen_references, {Ref, self(), Target}),
    gen_server:cast(?NAME, {monitor, self(), Ref, Target}),
    Ref;
monitor(Target) ->
    error(badarg, [Target]).

%% One reference for each target, in their order.
-spec monitor_all([target() | atom()]) -> [reference()].
monitor_all(Targets) -> [?MODULE:monitor(Target) || Target <- Targets].

-spec demonitor(reference()) -> true.
demonitor(Ref) -> ?MODULE:demonitor(Ref, []).

%% With flush in Options, a DOWN of Ref that is already in the caller's mailbox is taken out. Other options do nothing.
-spec demonitor(reference(), [flush | info]) -> true.
demonitor(Ref, Options) ->
    case zen_dispatcher:forget(Ref, self()) of
        {target, Target} -> gen_server:cast(?NAME, {demonitor, Ref, Target});
        gone -> ok
    end,
    case lists:member(flush, Options) of
        true -> flush(Ref);
        false -> true
    end.

-spec demonitor_all([reference()], [flush | info]) -> ok.
demonitor_all(Refs, Options) -> lists:foreach(fun(Ref) -> ?MODULE:demonitor(Ref, Options) end, Refs).

%% Monitors all targets from a process of its own: {[Ref], Messages}, up to Count messages that came within TimeoutMs.
-spec monitor_and_collect([target() | atom()], non_neg_integer(), non_neg_integer()) -> {[reference()], [term()]}.
monitor_and_collect(Targets, Count, TimeoutMs) ->
    Name = list_to_atom("zen_collector_" ++ integer_to_list(erlang:unique_integer([positive]))),
    collector:start(Name),
    Refs = collector:run(Name, ?MODULE, monitor_all, [Targets]),
    Messages = collector:take(Name, Count, TimeoutMs),
    collector:stop(Name),
    {Refs, Messages}.

%% Decides on a node now, as each sweep of its Connector does.
-spec connect(node()) -> compatible | incompatible | unavailable.
connect(Node) -> gen_server:call(?NAME, {connect, Node}, infinity).

%% The present decision; a node never looked at is unavailable.
-spec compatibility(node()) -> compatible | incompatible | unavailable.
compatibility(Node) ->
    case ets:lookup(zen_compatibility, Node) of
        [{Node, {incompatible, _, _}}] -> incompatible;
        [{Node, Status}] -> Status;
        [] -> unavailable
    end.

%% For an incompatible node the number of failures in a row and the milliseconds until the next ping; else none.
-spec penalty(node()) -> {Attempt :: pos_integer(), RemainingMs :: integer()} | none.
penalty(Node) ->
    case ets:lookup(zen_compatibility, Node) of
        [{Node, {incompatible, Attempt, Until}}] -> {Attempt, Until - erlang:monotonic_time(millisecond)};
        _ -> none
    end.

-spec await_compatibility(node(), compatible | incompatible | unavailable, non_neg_integer()) -> boolean().
await_compatibility(Node, Status, TimeoutMs) ->
    polling:until(fun() -> compatibility(Node) =:= Status end, TimeoutMs).

%% How many monitors have neither fired nor been taken back.
-spec reference_count() -> non_neg_integer().
reference_count() -> ets:info(zen_references, size).

start_link() -> gen_server:start_link({local, ?NAME}, ?MODULE, [], []).

init([]) ->
    process_flag(message_queue_data, off_heap),
    {ok, #state{}}.

handle_call({connect, Node}, From, State0) ->
    {Connector, State} = connector(Node, State0),
    %% The Connector answers, so that a silent Proxy holds up nobody else.
    gen_server:cast(Connector, {connect, From}),
    {noreply, State}.

handle_cast({monitor, Subscriber, Ref, Target}, State0) ->
    {Connector, State} = connector(node_of(Target), watch_subscriber(Subscriber, State0)),
    gen_server:cast(Connector, {monitor, Ref, Target}),
    {noreply, State};
handle_cast({demonitor, Ref, Target}, State0) ->
    {Connector, State} = connector(node_of(Target), State0),
    gen_server:cast(Connector, {demonitor, Ref, Target}),
    {noreply, State}.

handle_info({'DOWN', _, process, Subscriber, _}, #state{subscribers = Subscribers} = State0) ->
    Rows = ets:match_object(zen_references, {'_', Subscriber, '_'}),
    State = lists:foldl(
        fun({Ref, _, Target}, Acc0) ->
            ets:delete(zen_references, Ref),
            {Connector, Acc} = connector(node_of(Target), Acc0),
            gen_server:cast(Connector, {demonitor, Ref, Target}),
            Acc
        end,
        State0,
        Rows
    ),
    {noreply, State#state{subscribers = maps:remove(Subscriber, Subscribers)}}.

watch_subscriber(Subscriber, #state{subscribers = Subscribers} = State) when is_map_key(Subscriber, Subscribers) ->
    State;
watch_subscriber(Subscriber, #state{subscribers = Subscribers} = State) ->
    _ = erlang:monitor(process, Subscriber),
    State#state{subscribers = Subscribers#{Subscriber => []}}.

%% The Connector of a node, started when first needed.
connector(Node, #state{connectors = Connectors} = State) ->
    case Connectors of
        #{Node := Connector} ->
            {Connector, State};
        _ ->
            {ok, Connector} = zen_connector:start_link(Node),
            {Connector, State#state{connectors = Connectors#{Node => Connector}}}
    end.

node_of({_, Node}) -> Node;
node_of(Pid) -> node(Pid).

flush(Ref) ->
    receive
        {'DOWN', Ref, process, _, _} -> true
    after 0 -> true
    end.
