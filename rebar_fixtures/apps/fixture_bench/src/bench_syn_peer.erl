%% Syn on the peer's side, played by the stand-in (fixture_syn): what bench_peer does with {syn, From, Ref, Request}.
%%
%% | request                   | answer, sent as From ! {Ref, Answer}                                                    |
%% | start                     | ok, when the node is in the scope bench_syn                                             |
%% | stop                      | ok, when it is not any more                                                             |
%% | {pids, Pids}              | ok; what follows is done with these processes of the peer (bench_peer keeps them)       |
%% | {all, register}           | microseconds: has registered the I-th as {name, I}, with metadata undefined             |
%% | {all, update}             | microseconds: the same with metadata updated                                            |
%% | {all, unregister}         | microseconds: has unregistered all                                                      |
%% | {all, {join, Groups}}     | microseconds: the I-th has joined {group, I rem Groups}, with metadata undefined        |
%% | {all, {leave, Groups}}    | microseconds: has left it                                                               |
%% | {register_theirs, Pids}   | microseconds: has registered processes of the driver, each under its pid as name        |
%% | {lookup, Times}           | microseconds: has looked {name, I} up, I from 1 to Times                                |
%% | members                   | {Microseconds, Count}: has the members of {group, 0}                                    |
%% | publish                   | {Microseconds, Count}: has sent them a message                                          |
%% | {entries, Kind}           | how many names (registry), or members of all groups (pg), there are                     |
%% | {await, Kind, Key, Pid}   | ok, when Pid has that name, or is in that group                                         |
%% | {await_alone, Kind}       | ok, when there is no other member, and nothing of one                                   |
%% | memory_begin, memory_end  | bytes in use after a garbage collection                                                 |
-module(bench_syn_peer).
-export([answer/2]).

-define(SCOPE, bench_syn).
-define(TIMEOUT_MS, 60000).

-spec answer(term(), [pid()]) -> term().
answer(start, _) ->
    ok = fixture_syn:start(),
    fixture_syn:add_node_to_scopes([?SCOPE]);
answer(stop, _) ->
    fixture_syn:stop();
answer({all, What}, Pids) ->
    Numbered = lists:zip(lists:seq(1, length(Pids)), Pids),
    microseconds(fun() -> lists:foreach(fun({Index, Pid}) -> ok = do(What, Index, Pid) end, Numbered) end);
answer({register_theirs, Pids}, _) ->
    microseconds(fun() -> lists:foreach(fun(Pid) -> ok = fixture_syn:register(?SCOPE, Pid, Pid) end, Pids) end);
answer({lookup, Times}, _) ->
    microseconds(fun() -> lookup(Times) end);
answer(members, _) ->
    counted(fun() -> length(fixture_syn:members(?SCOPE, {group, 0})) end);
answer(publish, _) ->
    counted(fun() ->
        {ok, Count} = fixture_syn:local_publish(?SCOPE, {group, 0}, hello),
        Count
    end);
answer({entries, registry}, _) ->
    fixture_syn:registry_count(?SCOPE);
answer({entries, pg}, _) ->
    lists:sum([fixture_syn:member_count(?SCOPE, Group) || Group <- fixture_syn:group_names(?SCOPE)]);
answer({await, registry, Name, Pid}, _) ->
    until(fun() -> fixture_syn:lookup(?SCOPE, Name) =:= {Pid, undefined} end);
answer({await, pg, Group, Pid}, _) ->
    until(fun() -> fixture_syn:is_member(?SCOPE, Group, Pid) end);
answer({await_alone, Kind}, _) ->
    until(fun() -> fixture_syn:subcluster_nodes(Kind, ?SCOPE) =:= [] andalso is_empty(Kind) end);
answer(Memory, _) when Memory =:= memory_begin; Memory =:= memory_end ->
    lists:foreach(fun garbage_collect/1, processes()),
    erlang:memory(total).

do(register, Index, Pid) -> fixture_syn:register(?SCOPE, {name, Index}, Pid);
do(update, Index, Pid) -> fixture_syn:register(?SCOPE, {name, Index}, Pid, updated);
do(unregister, Index, _Pid) -> fixture_syn:unregister(?SCOPE, {name, Index});
do({join, Groups}, Index, Pid) -> fixture_syn:join(?SCOPE, {group, Index rem Groups}, Pid);
do({leave, Groups}, Index, Pid) -> fixture_syn:leave(?SCOPE, {group, Index rem Groups}, Pid).

lookup(0) ->
    ok;
lookup(Index) ->
    {_, _} = fixture_syn:lookup(?SCOPE, {name, Index}),
    lookup(Index - 1).

is_empty(registry) -> fixture_syn:registry_count(?SCOPE) =:= 0;
is_empty(pg) -> fixture_syn:group_count(?SCOPE) =:= 0.

until(Condition) ->
    true = polling:until(Condition, ?TIMEOUT_MS),
    ok.

microseconds(Work) ->
    {Microseconds, _} = timer:tc(Work),
    max(1, Microseconds).

counted(Work) ->
    {Microseconds, Count} = timer:tc(Work),
    {max(1, Microseconds), Count}.
