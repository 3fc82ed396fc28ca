%% The names of a scope: each belongs to one process. Called in the scope's process (fixture_syn_scope).
-module(fixture_syn_registry).
-export([requested/2, told/3, merge/3, ended/3, gone/3]).

-define(RESOLVED, syn_conflict_resolution).

%% What another node, or this one, asks the authority, which is the node of the process.
requested({register_or_update_on_node, Requester, Name, Pid, MetaOrFun}, Scope) ->
    case {is_process_alive(Pid), find(Name, Scope)} of
        {false, _} ->
            {error, not_alive};
        {true, {Name, Other, _, _}} when Other =/= Pid ->
            {error, taken};
        {true, Stored} ->
            Decision = fixture_syn_change:decide(Stored, [Pid], MetaOrFun),
            Callbacks = {on_process_registered, on_registry_process_updated},
            fixture_syn_change:carry_out(Decision, Requester, {Name, Pid}, sync_register, Callbacks, Scope)
    end;
requested({unregister_on_node, Requester, Name, Pid}, Scope) ->
    case find(Name, Scope) of
        none ->
            {error, undefined};
        {Name, Pid, Meta, _} ->
            remove(Name, Pid, Scope),
            tell(on_process_unregistered, Name, Pid, Meta, normal, Scope),
            fixture_syn_scope:broadcast({'3.0', sync_unregister, Name, Pid, Meta, normal}, Requester, Scope),
            {_, _, ByPid} = fixture_syn_scope:tables(Scope),
            {ok, ByPid};
        _ ->
            {error, race_condition}
    end;
requested(_Unknown, _Scope) ->
    undefined.

%% What another member says. An entry of a node that is no member is not taken: nobody would say when it ends.
told({sync_register, Name, Pid, Meta, Time, Reason}, IsMember, Scope) ->
    case IsMember(node(Pid)) of
        true -> take_in({Name, Pid, Meta, Time}, Reason, Scope);
        false -> ok
    end;
told({sync_unregister, Name, Pid, Meta, Reason}, _IsMember, Scope) ->
    case find(Name, Scope) of
        {Name, Pid, _, _} ->
            remove(Name, Pid, Scope),
            tell(on_process_unregistered, Name, Pid, Meta, Reason, Scope);
        _ ->
            ok
    end;
told(Unknown, _IsMember, _Scope) ->
    logger:warning("unknown message to a registry scope: ~p", [Unknown]).

%% All names of another member.
merge(Entries, Reason, Scope) -> lists:foreach(fun({_, _, _, _} = Entry) -> take_in(Entry, Reason, Scope) end, Entries).

%% A process of this node has ended.
ended(Pid, Reason, Scope) ->
    lists:foreach(
        fun(Name) ->
            {Name, Pid, Meta, _} = find(Name, Scope),
            remove(Name, Pid, Scope),
            tell(on_process_unregistered, Name, Pid, Meta, Reason, Scope),
            fixture_syn_scope:broadcast({'3.0', sync_unregister, Name, Pid, Meta, Reason}, Scope)
        end,
        fixture_syn_tables:keys_of(Pid, fixture_syn_scope:tables(Scope))
    ).

%% An entry is about to be purged.
gone({Name, Pid, Meta, _}, Reason, Scope) -> tell(on_process_unregistered, Name, Pid, Meta, Reason, Scope).

take_in({Name, Pid, Meta, Time} = Entry, Reason, Scope) ->
    case find(Name, Scope) of
        none ->
            insert(Entry, Scope),
            tell(on_process_registered, Name, Pid, Meta, Reason, Scope);
        {Name, Pid, Meta, _} ->
            insert(Entry, Scope);
        {Name, Pid, Old, _} ->
            insert(Entry, Scope),
            Of = {Name, Pid},
            fixture_syn_events:changed(on_registry_process_updated, fixture_syn_scope:name(Scope), Of, Old, Meta, Reason);
        {Name, Other, _, _} = Stored when node(Other) =:= node() ->
            resolve(Entry, Stored, Scope);
        {Name, _, _, OtherTime} = Stored when Time > OtherTime ->
            replace(Stored, Entry, Reason, Scope);
        _ ->
            ok
    end.

%% Another process has the name of one of ours. The owners of both come here, and must decide alike.
resolve({Name, Pid, Meta, Time} = Remote, {Name, Own, OwnMeta, OwnTime} = Local, Scope) ->
    case fixture_syn_events:resolve(fixture_syn_scope:name(Scope), Name, {Pid, Meta, Time}, {Own, OwnMeta, OwnTime}) of
        none ->
            case later(Remote, Local) of
                Remote ->
                    give_up(Local, Remote, Scope),
                    exit(Own, {syn_resolve_kill, Name, OwnMeta});
                Local ->
                    keep(Local, Scope)
            end;
        {answer, Pid} ->
            give_up(Local, Remote, Scope);
        {answer, Own} ->
            keep(Local, Scope);
        _ ->
            remove(Name, Own, Scope),
            tell(on_process_unregistered, Name, Own, OwnMeta, ?RESOLVED, Scope),
            fixture_syn_scope:broadcast({'3.0', sync_unregister, Name, Own, OwnMeta, ?RESOLVED}, node(Pid), Scope)
    end.

later({_, _, _, Time} = One, {_, _, _, OtherTime}) when Time > OtherTime -> One;
later({_, _, _, Time}, {_, _, _, OtherTime} = Other) when Time < OtherTime -> Other;
later({_, Pid, _, _} = One, {_, OtherPid, _, _}) when Pid > OtherPid -> One;
later(_One, Other) -> Other.

give_up({Name, Own, OwnMeta, _} = Local, Remote, Scope) ->
    replace(Local, Remote, ?RESOLVED, Scope),
    fixture_syn_scope:unwatch(Own, Scope),
    fixture_syn_scope:broadcast({'3.0', sync_unregister, Name, Own, OwnMeta, ?RESOLVED}, Scope).

keep({Name, Own, Meta, _}, Scope) ->
    Time = erlang:system_time(),
    insert({Name, Own, Meta, Time}, Scope),
    fixture_syn_scope:broadcast({'3.0', sync_register, Name, Own, Meta, Time, ?RESOLVED}, Scope).

replace({Name, Old, OldMeta, _}, {Name, Pid, Meta, _} = Entry, Reason, Scope) ->
    insert(Entry, Scope),
    tell(on_process_unregistered, Name, Old, OldMeta, Reason, Scope),
    tell(on_process_registered, Name, Pid, Meta, Reason, Scope).

insert(Entry, Scope) -> fixture_syn_tables:insert(Entry, fixture_syn_scope:tables(Scope)).

find(Name, Scope) -> fixture_syn_tables:find(Name, any, fixture_syn_scope:tables(Scope)).

remove(Name, Pid, Scope) ->
    fixture_syn_tables:delete(Name, Pid, fixture_syn_scope:tables(Scope)),
    node(Pid) =:= node() andalso fixture_syn_scope:unwatch(Pid, Scope).

tell(Callback, Name, Pid, Meta, Reason, Scope) ->
    fixture_syn_events:tell(Callback, [fixture_syn_scope:name(Scope), Name, Pid, Meta, Reason]).
