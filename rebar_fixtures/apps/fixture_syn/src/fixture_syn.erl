%% A stand-in for syn 3: the functions and results of its API, for tests, written from its wire contract.
%%
%% An operation on a process is decided by the node it lives on. For a process of another node that node is called from
%% the calling process, which then writes the outcome into this node's tables and runs the event handler itself: the
%% other node tells everybody but this one. Reading is a look into this node's tables.
-module(fixture_syn).
-export([start/0, stop/0, node_scopes/0, add_node_to_scopes/1, subcluster_nodes/2, set_event_handler/1]).
-export([register/3, register/4, update_registry/3, unregister/2, lookup/2]).
-export([registry_count/1, registry_count/2, local_registry_count/1]).
-export([register_name/2, unregister_name/1, whereis_name/1, send/2]).
-export([join/3, join/4, update_member/4, leave/3]).
-export([members/2, local_members/2, member/3, is_member/3, is_local_member/3]).
-export([member_count/2, member_count/3, local_member_count/2]).
-export([group_names/1, group_names/2, local_group_names/1, group_count/1, group_count/2, local_group_count/1]).
-export([publish/3, local_publish/3, multi_call/3, multi_call/4, multi_call_reply/2]).

-define(MULTI_CALL_MS, 5000).

start() ->
    case whereis(fixture_syn_sup) of
        undefined -> fixture_syn_sup:start();
        Running -> Running
    end,
    ok.

%% Ends all scopes of this node; their tables go too.
stop() -> gen_server:stop(fixture_syn_sup, shutdown, 5000).

node_scopes() -> fixture_syn_tables:scopes().

add_node_to_scopes(Scopes) ->
    lists:foreach(
        fun(Scope) ->
            ok = fixture_syn_tables:create(Scope),
            ok = fixture_syn_sup:start_scope(Scope)
        end,
        Scopes -- node_scopes()
    ).

subcluster_nodes(Service, Scope) -> call(Service, Scope, node(), {'3.0', subcluster_nodes}).

set_event_handler(Module) -> fixture_syn_events:set_handler(Module).

%% ---------------------------------------------------------------------------------------------------------- registry

register(Scope, Name, Pid) -> register(Scope, Name, Pid, undefined).

register(Scope, Name, Pid, Meta) -> done(change(registry, Scope, Name, Pid, Meta)).

update_registry(Scope, Name, Fun) when is_function(Fun, 2) ->
    case find(registry, Scope, Name, any) of
        none -> {error, undefined};
        {Name, Pid, _, _} -> change(registry, Scope, Name, Pid, Fun)
    end.

unregister(Scope, Name) ->
    case find(registry, Scope, Name, any) of
        none ->
            {error, undefined};
        {Name, Pid, Meta, _} ->
            case call(registry, Scope, node(Pid), {'3.0', unregister_on_node, node(), Name, Pid}) of
                {ok, ByPid} -> removed(registry, Scope, {Name, Pid, Meta}, ByPid, on_process_unregistered);
                {error, Reason} -> {error, Reason}
            end
    end.

lookup(Scope, Name) ->
    case find(registry, Scope, Name, any) of
        none -> undefined;
        {Name, Pid, Meta, _} -> {Pid, Meta}
    end.

registry_count(Scope) -> registry_count(Scope, any).

registry_count(Scope, Node) -> fixture_syn_tables:count(Node, tables(registry, Scope)).

local_registry_count(Scope) -> registry_count(Scope, node()).

%% ------------------------------------------------------------------------------- for {via, fixture_syn, {Scope, Name}}

register_name({Scope, Name}, Pid) ->
    register_name({Scope, Name, undefined}, Pid);
register_name({Scope, Name, Meta}, Pid) ->
    case register(Scope, Name, Pid, Meta) of
        ok -> yes;
        {error, _} -> no
    end.

unregister_name(Tuple) ->
    case unregister(element(1, Tuple), element(2, Tuple)) of
        ok -> element(2, Tuple);
        {error, _} -> nil
    end.

whereis_name(Tuple) ->
    case lookup(element(1, Tuple), element(2, Tuple)) of
        undefined -> undefined;
        {Pid, _} -> Pid
    end.

send(Tuple, Message) ->
    case whereis_name(Tuple) of
        undefined ->
            {badarg, {Tuple, Message}};
        Pid ->
            Pid ! Message,
            Pid
    end.

%% ------------------------------------------------------------------------------------------------------------ groups

join(Scope, Group, Pid) -> join(Scope, Group, Pid, undefined).

join(Scope, Group, Pid, Meta) -> done(change(pg, Scope, Group, Pid, Meta)).

update_member(Scope, Group, Pid, Fun) when is_function(Fun, 1) -> change(pg, Scope, Group, Pid, Fun).

leave(Scope, Group, Pid) ->
    case call(pg, Scope, node(Pid), {'3.0', leave_on_node, node(), Group, Pid}) of
        {ok, {Meta, ByPid}} -> removed(pg, Scope, {Group, Pid, Meta}, ByPid, on_process_left);
        {error, Reason} -> {error, Reason}
    end.

members(Scope, Group) -> fixture_syn_tables:members(Group, tables(pg, Scope)).

local_members(Scope, Group) -> [Member || {Pid, _} = Member <- members(Scope, Group), node(Pid) =:= node()].

member(Scope, Group, Pid) ->
    case find(pg, Scope, Group, Pid) of
        none -> undefined;
        {Group, Pid, Meta, _} -> {Pid, Meta}
    end.

is_member(Scope, Group, Pid) -> member(Scope, Group, Pid) =/= undefined.

is_local_member(Scope, Group, Pid) -> node(Pid) =:= node() andalso is_member(Scope, Group, Pid).

member_count(Scope, Group) -> length(members(Scope, Group)).

member_count(Scope, Group, Node) -> length([Pid || {Pid, _} <- members(Scope, Group), node(Pid) =:= Node]).

local_member_count(Scope, Group) -> length(local_members(Scope, Group)).

group_names(Scope) -> group_names(Scope, any).

group_names(Scope, Node) ->
    Groups = maps:from_list([{Group, []} || {Group, _, _, _} <- fixture_syn_tables:entries(Node, tables(pg, Scope))]),
    lists:sort(maps:keys(Groups)).

local_group_names(Scope) -> group_names(Scope, node()).

group_count(Scope) -> length(group_names(Scope)).

group_count(Scope, Node) -> length(group_names(Scope, Node)).

local_group_count(Scope) -> length(local_group_names(Scope)).

publish(Scope, Group, Message) -> publish_to(members(Scope, Group), Message).

local_publish(Scope, Group, Message) -> publish_to(local_members(Scope, Group), Message).

publish_to(Members, Message) ->
    lists:foreach(fun({Pid, _}) -> Pid ! Message end, Members),
    {ok, length(Members)}.

multi_call(Scope, Group, Message) -> multi_call(Scope, Group, Message, ?MULTI_CALL_MS).

%% One process for each member, which asks it, watches it, and tells this one what came of it.
multi_call(Scope, Group, Message, TimeoutMs) ->
    Asking = [
        {Member, spawn_monitor(fun() -> exit(ask(Member, Message, TimeoutMs)) end)}
     || Member <- members(Scope, Group)
    ],
    Outcomes = [{Member, outcome(Asker)} || {Member, Asker} <- Asking],
    {[{Member, Reply} || {Member, {reply, Reply}} <- Outcomes], [Member || {Member, bad} <- Outcomes]}.

multi_call_reply({Pid, Ref}, Reply) -> Pid ! {syn_multi_call_reply, Ref, Reply}.

ask({Pid, Meta}, Message, TimeoutMs) ->
    Ref = monitor(process, Pid),
    Pid ! {syn_multi_call, Message, {self(), Ref}, Meta},
    receive
        {syn_multi_call_reply, Ref, Reply} -> {reply, Reply};
        {'DOWN', Ref, process, Pid, _} -> bad
    after TimeoutMs -> bad
    end.

outcome({Asker, Monitor}) ->
    receive
        {'DOWN', Monitor, process, Asker, Outcome} -> Outcome
    end.

%% ------------------------------------------------------------------------------------------------------------ common

%% Registers, joins or updates. {ok, {Pid, Meta}} with the metadata as it is then, {error, Reason}, or what a fun raised.
change(Service, Scope, Key, Pid, MetaOrFun) ->
    Request = {'3.0', change_request(Service), node(), Key, Pid, MetaOrFun},
    changed(call(Service, Scope, node(Pid), Request), Service, Scope, Key, Pid).

change_request(registry) -> register_or_update_on_node;
change_request(pg) -> join_or_update_on_node.

changed({ok, {_, _, Meta, _, _, _}}, _Service, _Scope, _Key, Pid) when node(Pid) =:= node() ->
    {ok, {Pid, Meta}};
changed({ok, {Callback, Previous, Meta, Time, ByName, ByPid}}, Service, Scope, Key, Pid) ->
    fixture_syn_tables:insert({Key, Pid, Meta, Time}, {Service, ByName, ByPid}),
    fixture_syn_events:changed(Callback, Scope, {Key, Pid}, Previous, Meta, normal),
    {ok, {Pid, Meta}};
changed({noop, Meta}, _Service, _Scope, _Key, Pid) ->
    {ok, {Pid, Meta}};
changed({error, Reason}, _Service, _Scope, _Key, _Pid) ->
    {error, Reason};
changed({raise, Class, Reason, Stack}, _Service, _Scope, _Key, _Pid) ->
    erlang:raise(Class, Reason, Stack).

removed(_Service, _Scope, {_, Pid, _}, _ByPid, _Callback) when node(Pid) =:= node() ->
    ok;
removed(Service, Scope, {Key, Pid, Meta}, ByPid, Callback) ->
    {Service, ByName, _} = tables(Service, Scope),
    fixture_syn_tables:delete(Key, Pid, {Service, ByName, ByPid}),
    fixture_syn_events:tell(Callback, [Scope, Key, Pid, Meta, normal]).

done({ok, _}) -> ok;
done({error, Reason}) -> {error, Reason}.

find(Service, Scope, Key, Pid) -> fixture_syn_tables:find(Key, Pid, tables(Service, Scope)).

call(Service, Scope, Node, Request) ->
    _ = tables(Service, Scope),
    try
        gen_server:call({fixture_syn_scope:process(Service, Scope), Node}, Request)
    catch
        exit:{noproc, {gen_server, call, _}} -> error({invalid_remote_scope, Scope, Node})
    end.

%% The tables of a scope; an error where this node is not in it.
tables(Service, Scope) ->
    case fixture_syn_tables:has(Scope) of
        true -> fixture_syn_tables:names(Service, Scope);
        false -> error({invalid_scope, Scope})
    end.
