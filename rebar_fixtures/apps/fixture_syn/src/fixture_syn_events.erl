%% Calls the event handler of this node, a module whose callbacks are all optional.
%%
%% All callbacks run in the process that calls here. What they raise is logged and forgotten.
-module(fixture_syn_events).
-export([set_handler/1, tell/2, changed/6, resolve/4]).

-spec set_handler(module()) -> ok.
set_handler(Module) ->
    {module, Module} = code:ensure_loaded(Module),
    application:set_env(fixture_syn, event_handler, Module).

%% Callback(Scope, Key, Pid, Meta, Reason), if the handler exports it.
-spec tell(atom(), [term()]) -> ok.
tell(Callback, Arguments) ->
    _ = run(Callback, Arguments),
    ok.

%% An entry of Key and Pid went from metadata Previous to Meta: the callback with 5 arguments, then the one with 6.
-spec changed(atom(), atom(), {term(), pid()}, term(), term(), term()) -> ok.
changed(Callback, Scope, {Key, Pid}, Previous, Meta, Reason) ->
    tell(Callback, [Scope, Key, Pid, Meta, Reason]),
    tell(Callback, [Scope, Key, Pid, Previous, Meta, Reason]).

%% What the handler's resolver answers: {answer, Term}, raised, or none where the handler has no resolver.
-spec resolve(atom(), term(), Remote, Local) -> {answer, term()} | raised | none when
    Remote :: {pid(), term(), integer()}, Local :: {pid(), term(), integer()}.
resolve(Scope, Name, Remote, Local) -> run(resolve_registry_conflict, [Scope, Name, Remote, Local]).

run(Callback, Arguments) ->
    case application:get_env(fixture_syn, event_handler) of
        {ok, Module} ->
            case erlang:function_exported(Module, Callback, length(Arguments)) of
                true -> run(Module, Callback, Arguments);
                false -> none
            end;
        undefined ->
            none
    end.

run(Module, Callback, Arguments) ->
    try
        {answer, apply(Module, Callback, Arguments)}
    catch
        Class:Reason:Stack ->
            logger:error("~s:~s failed: ~p:~p ~p", [Module, Callback, Class, Reason, Stack]),
            raised
    end.
