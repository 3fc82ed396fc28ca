%% A subscriber of very many targets, for the measurements at scale. It counts what it gets and keeps no message.
%%
%% Two ways to subscribe: through this node's zen_local (`monitor_all`), or by casts of its own to the Proxy of a node,
%% as a Connector would (`cast`). Whatever comes for a target that is not waited for is counted as wrong.
-module(zen_scale).
-behaviour(gen_server).
-export([start/0, monitor_all/1, cast/3, counts/0, await_fired/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(PROXY, 'Elixir.ZenMonitor.Proxy').

-record(state, {
    %% The reference of a monitor, or a target of `cast`.
    waiting = #{} :: #{reference() | pid() => pid()},
    fired = 0 :: non_neg_integer(),
    wrong = 0 :: non_neg_integer()
}).

-spec start() -> ok.
start() ->
    {ok, _} = gen_server:start({local, ?MODULE}, ?MODULE, [], []),
    ok.

-spec monitor_all([pid()]) -> ok.
monitor_all(Pids) -> gen_server:call(?MODULE, {monitor_all, Pids}, infinity).

%% Casts {process, Subscriber, [{Op, Pid}]} to the Proxy of Node in one piece.
-spec cast(node(), subscribe | unsubscribe, [pid()]) -> ok.
cast(Node, Op, Pids) -> gen_server:call(?MODULE, {cast, Node, Op, Pids}, infinity).

%% Targets waited for, DOWNs and certificates that came for them, and those that came for nothing.
-spec counts() -> {non_neg_integer(), non_neg_integer(), non_neg_integer()}.
counts() -> gen_server:call(?MODULE, counts, infinity).

%% Waits until Count have fired: false when TimeoutMs passes first.
-spec await_fired(non_neg_integer(), non_neg_integer()) -> boolean().
await_fired(Count, TimeoutMs) -> polling:until(fun() -> element(2, counts()) >= Count end, TimeoutMs).

init([]) ->
    process_flag(message_queue_data, off_heap),
    {ok, #state{}}.

handle_call({monitor_all, Pids}, _From, #state{waiting = Waiting} = State) ->
    New = maps:from_list([{zen_local:monitor(Pid), Pid} || Pid <- Pids]),
    {reply, ok, State#state{waiting = maps:merge(Waiting, New)}};
handle_call({cast, Node, Op, Pids}, _From, #state{waiting = Waiting} = State) ->
    gen_server:cast({?PROXY, Node}, {process, self(), [{Op, Pid} || Pid <- Pids]}),
    New =
        case Op of
            subscribe -> maps:merge(Waiting, maps:from_keys(Pids, self()));
            unsubscribe -> maps:without(Pids, Waiting)
        end,
    {reply, ok, State#state{waiting = New}};
handle_call(counts, _From, #state{waiting = Waiting, fired = Fired, wrong = Wrong} = State) ->
    {reply, {map_size(Waiting), Fired, Wrong}, State}.

handle_cast(Message, State) -> {stop, {unexpected_cast, Message}, State}.

handle_info({'DOWN', Ref, process, Pid, {zen_monitor, _Reason}}, #state{waiting = Waiting} = State) ->
    case Waiting of
        #{Ref := Pid} -> {noreply, fired(Ref, State)};
        #{} -> {noreply, wrong(State)}
    end;
handle_info({dead, _Node, Certificates}, State) ->
    {noreply, lists:foldl(fun certified/2, State, Certificates)}.

certified({Target, _Reason}, #state{waiting = Waiting} = State) when is_map_key(Target, Waiting) -> fired(Target, State);
certified(_, State) -> wrong(State).

fired(Key, #state{waiting = Waiting, fired = Fired} = State) ->
    State#state{waiting = maps:remove(Key, Waiting), fired = Fired + 1}.

wrong(#state{wrong = Wrong} = State) -> State#state{wrong = Wrong + 1}.
