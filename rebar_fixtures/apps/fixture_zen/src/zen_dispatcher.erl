%% Delivers DOWN messages to subscribers, at most demand_amount of them every demand_interval milliseconds, in order.
%%
%% Taking the row of a reference out of zen_references decides who wins: a delivery or a demonitor, never both. Both are
%% done by this process, so when `demonitor` returns, the DOWN is in the subscriber's mailbox or will never be.
%% Entries whose row is gone cost no demand.
-module(zen_dispatcher).
-behaviour(gen_server).
-export([enqueue/1, forget/2]).
-export([start_link/0, init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% Queues DOWN messages: [{Ref, Reason}].
-spec enqueue([{reference(), term()}]) -> ok.
enqueue(Entries) -> gen_server:cast(?MODULE, {enqueue, Entries}).

%% Drops a reference before it fires. Answers its target, or gone if it has fired, is unknown or belongs to another.
-spec forget(reference(), pid()) -> {target, pid() | {atom(), node()}} | gone.
forget(Ref, Subscriber) -> gen_server:call(?MODULE, {forget, Ref, Subscriber}, infinity).

start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% The state is the queue of {Ref, Reason}.
init([]) ->
    schedule_demand(),
    {ok, queue:new()}.

handle_call({forget, Ref, Subscriber}, _From, Queue) ->
    case ets:lookup(zen_references, Ref) of
        [{Ref, Subscriber, Target}] ->
            ets:delete(zen_references, Ref),
            {reply, {target, Target}, Queue};
        _ ->
            {reply, gone, Queue}
    end.

handle_cast({enqueue, Entries}, Queue) ->
    {noreply, lists:foldl(fun queue:in/2, Queue, Entries)}.

handle_info(demand, Queue) ->
    Rest = deliver(zen_settings:get(demand_amount), Queue),
    schedule_demand(),
    {noreply, Rest}.

deliver(0, Queue) ->
    Queue;
deliver(Demand, Queue) ->
    case queue:out(Queue) of
        {{value, {Ref, Reason}}, Rest} ->
            case ets:take(zen_references, Ref) of
                [{Ref, Subscriber, Target}] ->
                    Subscriber ! {'DOWN', Ref, process, Target, {zen_monitor, Reason}},
                    deliver(Demand - 1, Rest);
                [] ->
                    deliver(Demand, Rest)
            end;
        {empty, Queue} ->
            Queue
    end.

schedule_demand() ->
    _ = erlang:send_after(zen_settings:get(demand_interval), self(), demand),
    ok.
