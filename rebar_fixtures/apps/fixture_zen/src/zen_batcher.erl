%% Gathers the death certificates for one subscriber and sends them in sweeps: {dead, node(), [{Target, Reason}]}.
%%
%% At most batcher_chunk_size certificates a sweep, oldest first, one sweep every batcher_sweep_interval milliseconds;
%% an empty sweep sends nothing. Linked to the Proxy: it does not outlive it.
-module(zen_batcher).
-behaviour(gen_server).
-export([start_link/1, enqueue/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-record(state, {
    subscriber :: pid(),
    %% Of the monitor on the subscriber.
    monitor :: reference(),
    certificates = queue:new() :: queue:queue({pid() | {atom(), node()}, term()})
}).

-spec start_link(pid()) -> {ok, pid()}.
start_link(Subscriber) -> gen_server:start_link(?MODULE, Subscriber, []).

-spec enqueue(pid(), {pid() | {atom(), node()}, term()}) -> ok.
enqueue(Batcher, Certificate) -> gen_server:cast(Batcher, {enqueue, Certificate}).

init(Subscriber) ->
    schedule_sweep(),
    {ok, #state{subscriber = Subscriber, monitor = monitor(process, Subscriber)}}.

handle_call(Request, _From, State) -> {stop, {unexpected_call, Request}, State}.

handle_cast({enqueue, Certificate}, #state{certificates = Certificates} = State) ->
    {noreply, State#state{certificates = queue:in(Certificate, Certificates)}}.

handle_info(sweep, #state{certificates = Certificates} = State) ->
    Size = min(zen_settings:get(batcher_chunk_size), queue:len(Certificates)),
    {Chunk, Rest} = queue:split(Size, Certificates),
    send_summary(State#state.subscriber, queue:to_list(Chunk)),
    schedule_sweep(),
    {noreply, State#state{certificates = Rest}};
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = State) ->
    {stop, normal, State}.

send_summary(_Subscriber, []) ->
    ok;
send_summary(Subscriber, Certificates) ->
    %% noconnect: a link that was closed on purpose stays closed. The DOWN of the subscriber is then on its way.
    _ = erlang:send(Subscriber, {dead, node(), Certificates}, [noconnect]),
    ok.

schedule_sweep() ->
    _ = erlang:send_after(zen_settings:get(batcher_sweep_interval), self(), sweep),
    ok.
