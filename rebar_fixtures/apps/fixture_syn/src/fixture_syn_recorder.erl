%% An event handler that keeps every callback with all its arguments, in the order of the calls on this node.
-module(fixture_syn_recorder).
-export([open/0, note/2, events/1]).
-export([on_process_registered/5, on_registry_process_updated/5, on_registry_process_updated/6]).
-export([on_process_unregistered/5]).
-export([on_process_joined/5, on_group_process_updated/5, on_group_process_updated/6, on_process_left/5]).

%% Makes the table of events. Its owner lives as long as the node.
-spec open() -> ok.
open() ->
    case ets:whereis(?MODULE) of
        undefined ->
            Caller = self(),
            Ready = make_ref(),
            spawn(fun() ->
                ?MODULE = ets:new(?MODULE, [named_table, public, ordered_set]),
                Caller ! Ready,
                receive
                    never -> ok
                end
            end),
            receive
                Ready -> ok
            end;
        _ ->
            ok
    end.

%% Keeps {Callback, Arguments}; the first argument is the scope.
-spec note(atom(), [term()]) -> true.
note(Callback, Arguments) -> ets:insert(?MODULE, {erlang:unique_integer([monotonic]), Callback, Arguments}).

%% What happened in a scope until now, oldest first.
-spec events(atom()) -> [{Callback :: atom(), Arguments :: [term()]}].
events(Scope) -> [{Callback, Arguments} || {_, Callback, [In | _] = Arguments} <- ets:tab2list(?MODULE), In =:= Scope].

on_process_registered(S, Name, Pid, Meta, Reason) -> note(?FUNCTION_NAME, [S, Name, Pid, Meta, Reason]).
on_registry_process_updated(S, Name, Pid, Meta, Reason) -> note(?FUNCTION_NAME, [S, Name, Pid, Meta, Reason]).
on_registry_process_updated(S, Name, Pid, Old, Meta, Reason) -> note(?FUNCTION_NAME, [S, Name, Pid, Old, Meta, Reason]).
on_process_unregistered(S, Name, Pid, Meta, Reason) -> note(?FUNCTION_NAME, [S, Name, Pid, Meta, Reason]).
on_process_joined(S, Group, Pid, Meta, Reason) -> note(?FUNCTION_NAME, [S, Group, Pid, Meta, Reason]).
on_group_process_updated(S, Group, Pid, Meta, Reason) -> note(?FUNCTION_NAME, [S, Group, Pid, Meta, Reason]).
on_group_process_updated(S, Group, Pid, Old, Meta, Reason) -> note(?FUNCTION_NAME, [S, Group, Pid, Old, Meta, Reason]).
on_process_left(S, Group, Pid, Meta, Reason) -> note(?FUNCTION_NAME, [S, Group, Pid, Meta, Reason]).
