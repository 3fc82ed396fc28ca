%% The recorder of events, with a resolver of conflicts that decides by what the metadata of the two processes say.
%%
%% Metadata keep: this process keeps the name. Metadata lose: the other one does. Metadata undefined, third or raise
%% with any of the two: the resolver answers undefined, answers a third process, or fails, and nobody keeps it.
-module(fixture_syn_resolver).
-export([resolve_registry_conflict/4]).
-export([on_process_registered/5, on_registry_process_updated/5, on_registry_process_updated/6]).
-export([on_process_unregistered/5]).
-export([on_process_joined/5, on_group_process_updated/5, on_group_process_updated/6, on_process_left/5]).

resolve_registry_conflict(Scope, Name, {Pid, Meta, _} = Remote, {OtherPid, OtherMeta, _} = Local) ->
    fixture_syn_recorder:note(?FUNCTION_NAME, [Scope, Name, Remote, Local]),
    case {Meta, OtherMeta} of
        {keep, lose} -> Pid;
        {lose, keep} -> OtherPid;
        {undefined, undefined} -> undefined;
        {third, third} -> whereis(init);
        {raise, raise} -> error(cannot_decide)
    end.

on_process_registered(S, Name, Pid, Meta, Reason) ->
    fixture_syn_recorder:on_process_registered(S, Name, Pid, Meta, Reason).

on_registry_process_updated(S, Name, Pid, Meta, Reason) ->
    fixture_syn_recorder:on_registry_process_updated(S, Name, Pid, Meta, Reason).

on_registry_process_updated(S, Name, Pid, Old, Meta, Reason) ->
    fixture_syn_recorder:on_registry_process_updated(S, Name, Pid, Old, Meta, Reason).

on_process_unregistered(S, Name, Pid, Meta, Reason) ->
    fixture_syn_recorder:on_process_unregistered(S, Name, Pid, Meta, Reason).

on_process_joined(S, Group, Pid, Meta, Reason) ->
    fixture_syn_recorder:on_process_joined(S, Group, Pid, Meta, Reason).

on_group_process_updated(S, Group, Pid, Meta, Reason) ->
    fixture_syn_recorder:on_group_process_updated(S, Group, Pid, Meta, Reason).

on_group_process_updated(S, Group, Pid, Old, Meta, Reason) ->
    fixture_syn_recorder:on_group_process_updated(S, Group, Pid, Old, Meta, Reason).

on_process_left(S, Group, Pid, Meta, Reason) ->
    fixture_syn_recorder:on_process_left(S, Group, Pid, Meta, Reason).
