%% The answer of the authority to a request to register or join, which is the same for both services: what becomes of an
%% entry that is there or not, the broadcast, the callbacks, and the reply.
-module(fixture_syn_change).
-export([decide/3, carry_out/6]).

-type decision() ::
    {change, new | updated, Previous :: term(), Meta :: term()}
    | {noop, Meta :: term()}
    | {error, undefined}
    | {raise, error | exit | throw, term(), list()}.

%% Stored is the entry of this very process, or none; Arguments are what a fun takes before the stored metadata.
-spec decide(fixture_syn_tables:entry() | none, [term()], MetaOrFun :: term()) -> decision().
decide(none, _Arguments, Fun) when is_function(Fun) ->
    {error, undefined};
decide(none, _Arguments, Meta) ->
    {change, new, undefined, Meta};
decide({_, _, Old, _}, Arguments, Fun) when is_function(Fun) ->
    try apply(Fun, Arguments ++ [Old]) of
        New -> change(Old, New)
    catch
        Class:Reason:Stack -> {raise, Class, Reason, Stack}
    end;
decide({_, _, Old, _}, _Arguments, New) ->
    change(Old, New).

change(Meta, Meta) -> {noop, Meta};
change(Old, New) -> {change, updated, Old, New}.

%% The reply to the node that has asked, which hears of a change by it and not by the broadcast.
-spec carry_out(decision(), node(), {term(), pid()}, Broadcast :: atom(), {New :: atom(), Updated :: atom()}, Scope) ->
    term() when Scope :: fixture_syn_scope:scope().
carry_out({change, Kind, Previous, Meta}, Requester, {Key, Pid}, Broadcast, {New, Updated}, Scope) ->
    {_, ByName, ByPid} = Tables = fixture_syn_scope:tables(Scope),
    Callback = maps:get(Kind, #{new => New, updated => Updated}),
    Time = erlang:system_time(),
    fixture_syn_tables:insert({Key, Pid, Meta, Time}, Tables),
    fixture_syn_scope:watch(Pid, Scope),
    fixture_syn_events:changed(Callback, fixture_syn_scope:name(Scope), {Key, Pid}, Previous, Meta, normal),
    fixture_syn_scope:broadcast({'3.0', Broadcast, Key, Pid, Meta, Time, normal}, Requester, Scope),
    {ok, {Callback, Previous, Meta, Time, ByName, ByPid}};
carry_out(NoChange, _Requester, _Entry, _Broadcast, _Callbacks, _Scope) ->
    NoChange.
