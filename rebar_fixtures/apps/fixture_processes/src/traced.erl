%% Sequential tracing through a partner, which may be a process of any node.
%%
%% `run` starts a fresh process with a trace token, which sends one command to the partner and gives back each message
%% that comes of it with the token that it came with. `partner` is the BEAM's own partner: what happens with it is what
%% has to happen with every other.
-module(traced).
-export([run/5, partner/0, partner_alias/1, report/1, set_tracer/1]).

%% {Driver, [{Message, Token}]}: Count messages; Label is that of the token. How is the partner's command.
-spec run(pid() | reference() | {atom(), node()}, atom(), term(), term(), pos_integer()) -> {pid(), [{term(), term()}]}.
run(Partner, How, Argument, Label, Count) ->
    Caller = self(),
    Tag = make_ref(),
    {Driver, Monitor} = spawn_monitor(fun() ->
        process_flag(trap_exit, true),
        true = register(traced_driver, self()),
        Commands = prepare(Partner, How, Argument),
        _ = seq_trace:set_token(label, Label),
        _ = seq_trace:set_token(send, true),
        _ = seq_trace:set_token('receive', true),
        _ = seq_trace:set_token(serial, {2, 5}),
        lists:foreach(fun(Command) -> Command() end, Commands),
        Messages = gather(Count),
        _ = seq_trace:set_token([]),
        Caller ! {Tag, Messages}
    end),
    receive
        {Tag, Messages} ->
            %% Its name is free then, for the next one.
            receive
                {'DOWN', Monitor, process, Driver, _} -> {Driver, Messages}
            end;
        {'DOWN', Monitor, process, Driver, Reason} ->
            error({driver_failed, How, Reason})
    end.

%% What is said to the partner, and in what way.
prepare(Partner, exit, Reason) ->
    link(Partner),
    [fun() -> Partner ! {self(), exit, Reason} end];
prepare(Partner, untraced, Argument) ->
    [
        fun() -> Partner ! {self(), remember, Argument} end,
        fun() ->
            Token = seq_trace:set_token([]),
            Partner ! {self(), answer, Argument},
            seq_trace:set_token(Token)
        end
    ];
prepare(_Partner, spawn, {Node, Module, Function}) ->
    [fun() -> erlang:spawn_request(Node, Module, Function, [self()], [link, monitor]) end];
prepare(Partner, partner_spawn, Node) ->
    [fun() -> Partner ! {self(), spawn, Node} end];
prepare(Partner, alias, _) ->
    Alias = alias(),
    [fun() -> Partner ! {self(), send, Alias} end];
prepare(Partner, name, _) ->
    [fun() -> Partner ! {self(), send, {traced_driver, node()}} end];
prepare(Partner, How, Argument) ->
    [fun() -> Partner ! {self(), How, Argument} end].

gather(0) -> [];
gather(Count) ->
    receive
        Message -> [{Message, seq_trace:get_token()} | gather(Count - 1)]
    after 20000 -> []
    end.

%% A partner with an alias: {Partner, Alias}.
-spec partner_alias([term()]) -> {pid(), reference()}.
partner_alias(Options) ->
    Caller = self(),
    Partner = spawn(fun() ->
        Caller ! {self(), alias(Options)},
        partner_loop([])
    end),
    receive
        {Partner, Alias} -> {Partner, Alias}
    end.

-spec partner() -> pid().
partner() -> spawn(fun() -> partner_loop([]) end).

partner_loop(Remembered) ->
    receive
        {_From, exit, Reason} ->
            exit(Reason);
        {_From, remember, Term} ->
            partner_loop([Term | Remembered]);
        {From, answer, _} ->
            From ! {self(), answer},
            partner_loop(Remembered);
        {From, twice, _} ->
            From ! {self(), first},
            From ! {self(), second},
            partner_loop(Remembered);
        {_From, send, Dest} ->
            Dest ! {self(), answer},
            partner_loop(Remembered);
        {From, down, Dead} ->
            Ref = monitor(process, Dead),
            receive
                {'DOWN', Ref, process, _, _} -> From ! {self(), answer}
            end,
            partner_loop(Remembered);
        {From, spawn, Node} ->
            _ = erlang:spawn_request(Node, traced, report, [From], []),
            receive
                {spawn_reply, _, ok, _} -> From ! {self(), spawned}
            end,
            partner_loop(Remembered)
    end.

%% Spawned by a partner, or by the driver.
-spec report(pid()) -> term().
report(Pid) ->
    Pid ! {self(), {started, seq_trace:get_token()}}.

%% Process becomes the system tracer of this node, or none with false.
-spec set_tracer(pid() | false) -> term().
set_tracer(Process) -> seq_trace:set_system_tracer(Process).
