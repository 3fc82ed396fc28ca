%% Speaks with the Proxy of one other node for all monitors of this one.
%%
%% Instructions are queued and cast in sweeps of at most connector_chunk_size, in the order of the calls; one subscribe
%% for each target however many references it has, and an unsubscribe with the last of them. Every sweep begins with a
%% decision on the node:
%%
%%     not among nodes()                 unavailable    every reference fires nodedown
%%     the Proxy answered a ping         compatible     instructions are sent
%%     anything else                     incompatible   every reference fires nodedown; the next ping waits
%%                                                      min(60000, base_penalty * 2^Attempt) milliseconds
%%
%% A Proxy that goes down counts as a first failed attempt; a node that goes down carries no penalty.
-module(zen_connector).
-behaviour(gen_server).
-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(PROXY, 'Elixir.ZenMonitor.Proxy').
-define(LONGEST_PENALTY_MS, 60000).

-record(state, {
    node :: node(),
    references = #{} :: #{target() => #{reference() => []}},
    instructions = queue:new() :: queue:queue({subscribe | unsubscribe, target()}),
    %% On the Proxy, while it is compatible.
    proxy_monitor = none :: reference() | none
}).

-type target() :: pid() | {atom(), node()}.

-spec start_link(node()) -> {ok, pid()}.
start_link(Node) -> gen_server:start_link(?MODULE, Node, []).

init(Node) ->
    process_flag(message_queue_data, off_heap),
    %% Not erlang:monitor_node/2, which would connect to a node that is not.
    ok = net_kernel:monitor_nodes(true, [{node_type, visible}]),
    schedule_sweep(),
    {ok, #state{node = Node}}.

handle_call(Request, _From, State) -> {stop, {unexpected_call, Request}, State}.

handle_cast({monitor, Ref, Target}, #state{references = References} = State) ->
    case References of
        #{Target := Refs} ->
            {noreply, State#state{references = References#{Target := Refs#{Ref => []}}}};
        _ ->
            {noreply, instruct({subscribe, Target}, State#state{references = References#{Target => #{Ref => []}}})}
    end;
handle_cast({demonitor, Ref, Target}, #state{references = References} = State) ->
    case References of
        #{Target := #{Ref := _} = Refs} when map_size(Refs) =:= 1 ->
            {noreply, instruct({unsubscribe, Target}, State#state{references = maps:remove(Target, References)})};
        #{Target := Refs} ->
            {noreply, State#state{references = References#{Target := maps:remove(Ref, Refs)}}};
        _ ->
            {noreply, State}
    end;
handle_cast({connect, From}, State0) ->
    State = decide(State0),
    gen_server:reply(From, zen_local:compatibility(State#state.node)),
    {noreply, State}.

handle_info(sweep, State0) ->
    State = decide(State0),
    schedule_sweep(),
    case zen_local:compatibility(State#state.node) of
        compatible -> {noreply, send_chunk(State)};
        _ -> {noreply, fire_all(State)}
    end;
handle_info({dead, Node, Certificates} = Summary, #state{node = Node} = State) ->
    zen_record:note(zen_local_record, Summary),
    {noreply, lists:foldl(fun fire_certificate/2, State, Certificates)};
handle_info({dead, _OtherNode, _Certificates} = Summary, State) ->
    zen_record:note(zen_local_record, Summary),
    {noreply, State};
handle_info({nodedown, Node, _Info}, #state{node = Node} = State) ->
    {noreply, fire_all(lose(unavailable, State))};
handle_info({'DOWN', Monitor, process, _, noconnection}, #state{proxy_monitor = Monitor} = State) ->
    {noreply, fire_all(lose(unavailable, State))};
handle_info({'DOWN', Monitor, process, _, _Reason}, #state{proxy_monitor = Monitor} = State) ->
    {noreply, fire_all(lose(penalty(1), State))};
handle_info({NodeEvent, _AnotherNode, _Info}, State) when NodeEvent =:= nodeup; NodeEvent =:= nodedown ->
    {noreply, State}.

instruct(Instruction, #state{instructions = Instructions} = State) ->
    State#state{instructions = queue:in(Instruction, Instructions)}.

send_chunk(#state{node = Node, instructions = Instructions} = State) ->
    Size = min(zen_settings:get(connector_chunk_size), queue:len(Instructions)),
    {Chunk, Rest} = queue:split(Size, Instructions),
    case queue:to_list(Chunk) of
        [] -> ok;
        Sent -> gen_server:cast({?PROXY, Node}, {process, self(), Sent})
    end,
    State#state{instructions = Rest}.

%% Certificates of targets nobody here waits for are duplicates, or crossed with an unsubscribe.
fire_certificate({Target, Reason}, #state{references = References} = State) ->
    case maps:take(Target, References) of
        {Refs, Left} ->
            zen_dispatcher:enqueue([{Ref, Reason} || Ref <- maps:keys(Refs)]),
            State#state{references = Left};
        error ->
            State
    end.

fire_all(#state{references = References} = State) when map_size(References) =:= 0 ->
    State#state{instructions = queue:new()};
fire_all(#state{references = References} = State) ->
    zen_dispatcher:enqueue([{Ref, nodedown} || Refs <- maps:values(References), Ref <- maps:keys(Refs)]),
    State#state{references = #{}, instructions = queue:new()}.

decide(#state{node = Node} = State) ->
    case {is_reachable(Node), ets:lookup(zen_compatibility, Node)} of
        {false, _} ->
            lose(unavailable, State);
        {true, [{Node, compatible}]} ->
            State;
        {true, [{Node, {incompatible, Attempt, Until}}]} ->
            case erlang:monotonic_time(millisecond) < Until of
                true -> State;
                false -> ping(Attempt, State)
            end;
        {true, _} ->
            ping(0, State)
    end.

is_reachable(Node) -> Node =:= node() orelse lists:member(Node, nodes()).

ping(FailedBefore, #state{node = Node} = State) ->
    try gen_server:call({?PROXY, Node}, ping, zen_settings:get(ping_timeout)) of
        pong ->
            remember(Node, compatible),
            State#state{proxy_monitor = monitor(process, {?PROXY, Node})};
        _NotPong ->
            lose(penalty(FailedBefore + 1), State)
    catch
        exit:{{nodedown, Node}, _} -> lose(unavailable, State);
        exit:{_NoprocOrTimeout, _} -> lose(penalty(FailedBefore + 1), State)
    end.

penalty(Attempt) ->
    Penalty = min(?LONGEST_PENALTY_MS, zen_settings:get(base_penalty) * (1 bsl min(Attempt, 10))),
    {incompatible, Attempt, erlang:monotonic_time(millisecond) + Penalty}.

lose(Status, #state{node = Node, proxy_monitor = Monitor} = State) ->
    remember(Node, Status),
    case Monitor of
        none -> ok;
        _ -> demonitor(Monitor, [flush])
    end,
    State#state{proxy_monitor = none}.

remember(Node, Status) -> true = ets:insert(zen_compatibility, {Node, Status}).

schedule_sweep() ->
    _ = erlang:send_after(zen_settings:get(connector_sweep_interval), self(), sweep),
    ok.
