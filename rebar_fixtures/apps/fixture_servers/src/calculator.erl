%% A genuine gen_server with one request for each way a call can end.
%%
%% | request                | what happens                                                            |
%% | {add, A, B}            | replies A + B                                                           |
%% | {echo, Term}           | replies Term                                                            |
%% | {sleep, Ms, Term}      | replies Term after Ms milliseconds, serving nobody meanwhile            |
%% | {later, Ms, Term}      | returns noreply; gen_server:reply/2 after Ms, serving others meanwhile  |
%% | {never, Term}          | returns noreply and never replies                                       |
%% | {crash, Reason}        | error(Reason): the caller exits with {{Reason, Stacktrace}, _}          |
%% | {exit, Reason}         | exit(Reason): the caller exits with {Reason, _}                         |
%% | {stop, Reason}         | replies stopping, then stops with Reason                                |
%% | {stop_silent, Reason}  | stops with Reason without a reply                                       |
%% | from                   | replies the caller's From term as it came over the wire                 |
%% | stored                 | replies what casts and plain messages left here, oldest first           |
%%
%% Casts: {store, Term} keeps Term; {tell, Dest, Term} sends it; {crash, Reason}; {stop, Reason}.
%% Any plain message is kept as {info, Message}.
-module(calculator).
-behaviour(gen_server).
-export([start/0, start/1, start_link/1, stop/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% Starts a calculator that is linked to nobody.
-spec start() -> pid().
start() ->
    {ok, Pid} = gen_server:start(?MODULE, [], []),
    Pid.

-spec start(atom()) -> pid().
start(Name) ->
    {ok, Pid} = gen_server:start({local, Name}, ?MODULE, [], []),
    Pid.

-spec start_link(atom()) -> {ok, pid()} | {error, term()}.
start_link(Name) -> gen_server:start_link({local, Name}, ?MODULE, [], []).

-spec stop(atom() | pid() | {atom(), node()}) -> ok.
stop(Server) -> gen_server:stop(Server).

%% The state is what was stored, newest first.
init([]) -> {ok, []}.

handle_call({add, A, B}, _From, Stored) ->
    {reply, A + B, Stored};
handle_call({echo, Term}, _From, Stored) ->
    {reply, Term, Stored};
handle_call({sleep, Ms, Term}, _From, Stored) ->
    timer:sleep(Ms),
    {reply, Term, Stored};
handle_call({later, Ms, Term}, From, Stored) ->
    erlang:send_after(Ms, self(), {reply_now, From, Term}),
    {noreply, Stored};
handle_call({never, _Term}, _From, Stored) ->
    {noreply, Stored};
handle_call({crash, Reason}, _From, _Stored) ->
    error(Reason);
handle_call({exit, Reason}, _From, _Stored) ->
    exit(Reason);
handle_call({stop, Reason}, _From, Stored) ->
    {stop, Reason, stopping, Stored};
handle_call({stop_silent, Reason}, _From, Stored) ->
    {stop, Reason, Stored};
handle_call(from, From, Stored) ->
    {reply, From, Stored};
handle_call(stored, _From, Stored) ->
    {reply, lists:reverse(Stored), Stored}.

handle_cast({store, Term}, Stored) ->
    {noreply, [Term | Stored]};
handle_cast({tell, Dest, Term}, Stored) ->
    Dest ! Term,
    {noreply, Stored};
handle_cast({crash, Reason}, _Stored) ->
    error(Reason);
handle_cast({stop, Reason}, Stored) ->
    {stop, Reason, Stored}.

handle_info({reply_now, From, Term}, Stored) ->
    gen_server:reply(From, Term),
    {noreply, Stored};
handle_info(Message, Stored) ->
    {noreply, [{info, Message} | Stored]}.
