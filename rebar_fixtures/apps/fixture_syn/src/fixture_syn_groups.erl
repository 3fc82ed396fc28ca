%% The groups of a scope: a process is in any number of them, once in each. Called in the scope's process
%% (fixture_syn_scope).
-module(fixture_syn_groups).
-export([requested/2, told/3, merge/3, ended/3, gone/3]).

%% What another node, or this one, asks the authority, which is the node of the process.
requested({join_or_update_on_node, Requester, Group, Pid, MetaOrFun}, Scope) ->
    case is_process_alive(Pid) of
        false ->
            {error, not_alive};
        true ->
            Decision = fixture_syn_change:decide(find(Group, Pid, Scope), [], MetaOrFun),
            Callbacks = {on_process_joined, on_group_process_updated},
            fixture_syn_change:carry_out(Decision, Requester, {Group, Pid}, sync_join, Callbacks, Scope)
    end;
requested({leave_on_node, Requester, Group, Pid}, Scope) ->
    case find(Group, Pid, Scope) of
        none ->
            {error, not_in_group};
        {Group, Pid, Meta, _} ->
            remove(Group, Pid, Scope),
            tell(on_process_left, Group, Pid, Meta, normal, Scope),
            fixture_syn_scope:broadcast({'3.0', sync_leave, Group, Pid, Meta, normal}, Requester, Scope),
            {_, _, ByPid} = fixture_syn_scope:tables(Scope),
            {ok, {Meta, ByPid}}
    end;
requested(_Unknown, _Scope) ->
    undefined.

%% What another member says. An entry of a node that is no member is not taken: nobody would say when it ends.
told({sync_join, Group, Pid, Meta, Time, Reason}, IsMember, Scope) ->
    case IsMember(node(Pid)) of
        true -> take_in({Group, Pid, Meta, Time}, Reason, Scope);
        false -> ok
    end;
told({sync_leave, Group, Pid, Meta, Reason}, _IsMember, Scope) ->
    case find(Group, Pid, Scope) of
        none ->
            ok;
        _ ->
            remove(Group, Pid, Scope),
            tell(on_process_left, Group, Pid, Meta, Reason, Scope)
    end;
told(Unknown, _IsMember, _Scope) ->
    logger:warning("unknown message to a group scope: ~p", [Unknown]).

%% All memberships of another member's processes.
merge(Entries, Reason, Scope) -> lists:foreach(fun({_, _, _, _} = Entry) -> take_in(Entry, Reason, Scope) end, Entries).

%% A process of this node has ended.
ended(Pid, Reason, Scope) ->
    lists:foreach(
        fun(Group) ->
            {Group, Pid, Meta, _} = find(Group, Pid, Scope),
            remove(Group, Pid, Scope),
            tell(on_process_left, Group, Pid, Meta, Reason, Scope),
            fixture_syn_scope:broadcast({'3.0', sync_leave, Group, Pid, Meta, Reason}, Scope)
        end,
        fixture_syn_tables:keys_of(Pid, fixture_syn_scope:tables(Scope))
    ).

%% An entry is about to be purged.
gone({Group, Pid, Meta, _}, Reason, Scope) -> tell(on_process_left, Group, Pid, Meta, Reason, Scope).

take_in({Group, Pid, Meta, Time} = Entry, Reason, Scope) ->
    case find(Group, Pid, Scope) of
        none ->
            insert(Entry, Scope),
            tell(on_process_joined, Group, Pid, Meta, Reason, Scope);
        {Group, Pid, Old, OldTime} when Time > OldTime ->
            insert(Entry, Scope),
            Old =:= Meta orelse updated(Entry, Old, Reason, Scope);
        _ ->
            ok
    end.

updated({Group, Pid, Meta, _}, Old, Reason, Scope) ->
    Name = fixture_syn_scope:name(Scope),
    fixture_syn_events:changed(on_group_process_updated, Name, {Group, Pid}, Old, Meta, Reason).

insert(Entry, Scope) -> fixture_syn_tables:insert(Entry, fixture_syn_scope:tables(Scope)).

find(Group, Pid, Scope) -> fixture_syn_tables:find(Group, Pid, fixture_syn_scope:tables(Scope)).

remove(Group, Pid, Scope) ->
    fixture_syn_tables:delete(Group, Pid, fixture_syn_scope:tables(Scope)),
    node(Pid) =:= node() andalso fixture_syn_scope:unwatch(Pid, Scope).

tell(Callback, Group, Pid, Meta, Reason, Scope) ->
    fixture_syn_events:tell(Callback, [fixture_syn_scope:name(Scope), Group, Pid, Meta, Reason]).
