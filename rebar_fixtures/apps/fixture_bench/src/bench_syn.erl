%% Syn's workloads. The peer is a member of the scope `bench_syn`, with all its layers; the driver is the other member, raw,
%% with no more than the wire asks for, so that the peer is what is measured.
%%
%% | workload                | what the peer does; `until` it is seen at the driver where nothing else is said           |
%% | syn_register_calls      | registers processes of its own, one caller, until all calls have returned                 |
%% | syn_register            | the same, until the driver has heard of all                                               |
%% | syn_register_again      | the same processes with other metadata                                                    |
%% | syn_register_theirs     | registers processes of the driver, one after the other: each is a question to the driver  |
%% | syn_register_asked      | registers processes of its own that the driver asks for, one question after the other     |
%% | syn_registered          | hears of registrations of the driver, until all are in its table                          |
%% | syn_lookup              | looks names up                                                                            |
%% | syn_unregister          | unregisters all                                                                           |
%% | syn_registered_die      | registered processes of its own end                                                       |
%% | syn_registry_sync_out   | answers a discover with all it has                                                        |
%% | syn_registry_sync_in    | takes over as many registrations in one ack_sync, until they are in its table             |
%% | syn_registry_sync_stall | the longest time in which another process there does not answer, meanwhile                |
%% | syn_registry_purge      | forgets them when the driver's scope process has ended                                    |
%% | syn_registry_purge_stall| the longest time in which another process there does not answer, meanwhile                |
%% | syn_owner_bytes         | memory of a registration of its own, without the process                                  |
%% | syn_replica_bytes       | memory of one of the driver                                                               |
%% | syn_join_calls          | lets processes of its own join one group, one caller, until all calls have returned       |
%% | syn_join                | the same, until the driver has heard of all                                               |
%% | syn_join_many           | the same with 1,000 groups                                                                |
%% | syn_joined              | hears of joins of the driver, until all are in its table                                  |
%% | syn_members             | lists the members of the one group                                                        |
%% | syn_publish             | sends all of them a message                                                               |
%% | syn_leave               | lets all leave the one group                                                              |
%% | syn_members_die         | members of 1,000 groups end                                                               |
%% | syn_pg_sync_out, syn_pg_sync_in, syn_pg_sync_stall, syn_pg_purge, syn_pg_purge_stall | as of the registry           |
%% | syn_member_bytes        | memory of a member of its own                                                             |
%%
%% Each workload checks that all of it arrived.
-module(bench_syn).
-export([registry/3, groups/3]).

-define(TAG, '3.0').
-define(WARM_UP, 500).
%% At most so many one after the other, with a round trip each.
-define(ROUND_TRIPS, 5000).
-define(GROUPS, 1000).
-define(TIMEOUT_MS, 60000).

%% The workloads of the peer's registry with Count names.
-spec registry({sink, node()}, pos_integer(), bench_meter:os_pid()) -> [bench_meter:result()].
registry(Sink, Count, OsPid) ->
    with_scope(Sink, registry, fun(Member) ->
        _ = own_names(Sink, Member, ?WARM_UP, none),
        Own = own_names(Sink, Member, Count, OsPid),
        Own ++ their_names(Sink, Member, Count, OsPid)
    end) ++ with_scope(Sink, registry, fun(Member) -> taken_over(Sink, registry, Member, Count, OsPid) end).

%% The workloads of the peer's groups with Count members.
-spec groups({sink, node()}, pos_integer(), bench_meter:os_pid()) -> [bench_meter:result()].
groups(Sink, Count, OsPid) ->
    with_scope(Sink, pg, fun(Member) ->
        _ = own_members(Sink, Member, ?WARM_UP, none),
        Own = own_members(Sink, Member, Count, OsPid),
        Own ++ [their_members(Sink, Count, OsPid)]
    end) ++ with_scope(Sink, pg, fun(Member) -> taken_over(Sink, pg, Member, Count, OsPid) end).

%% ----------------------------------------------------------------------------------------- of the peer's processes

own_names(Sink, Member, Count, OsPid) ->
    processes(Sink, Count),
    Before = syn(Sink, memory_begin),
    all(Sink, Member, register, sync_register, Count),
    OwnerBytes = (syn(Sink, memory_end) - Before) / Count,
    all(Sink, Member, unregister, sync_unregister, Count),
    {CallsUs, Register} = measure(syn_register, Count, fun() -> all(Sink, Member, register, sync_register, Count) end, OsPid),
    {_, Again} = measure(syn_register_again, Count, fun() -> all(Sink, Member, update, sync_register, Count) end, OsPid),
    LookupUs = syn(Sink, {lookup, Count}),
    Out = sync_out(Sink, syn_registry_sync_out, Member, Count, OsPid),
    {_, Unregister} = measure(
        syn_unregister, Count, fun() -> all(Sink, Member, unregister, sync_unregister, Count) end, OsPid
    ),
    all(Sink, Member, register, sync_register, Count),
    {_, Die} = measure(syn_registered_die, Count, fun() -> end_all(Sink, Member, sync_unregister, Count) end, OsPid),
    0 = syn(Sink, {entries, registry}),
    [
        bench_meter:result(syn_register_calls, Count, CallsUs),
        Register,
        Again,
        bench_meter:result(syn_lookup, Count, LookupUs),
        Out,
        Unregister,
        Die,
        #{workload => syn_owner_bytes, bytes_each => OwnerBytes}
    ].

own_members(Sink, Member, Count, OsPid) ->
    processes(Sink, Count),
    Before = syn(Sink, memory_begin),
    all(Sink, Member, {join, 1}, sync_join, Count),
    Bytes = (syn(Sink, memory_end) - Before) / Count,
    all(Sink, Member, {leave, 1}, sync_leave, Count),
    {CallsUs, Join} = measure(syn_join, Count, fun() -> all(Sink, Member, {join, 1}, sync_join, Count) end, OsPid),
    {MembersUs, Count} = syn(Sink, members),
    {PublishUs, Count} = syn(Sink, publish),
    {_, Leave} = measure(syn_leave, Count, fun() -> all(Sink, Member, {leave, 1}, sync_leave, Count) end, OsPid),
    {_, JoinMany} = measure(
        syn_join_many, Count, fun() -> all(Sink, Member, {join, ?GROUPS}, sync_join, Count) end, OsPid
    ),
    Out = sync_out(Sink, syn_pg_sync_out, Member, Count, OsPid),
    {_, Die} = measure(syn_members_die, Count, fun() -> end_all(Sink, Member, sync_leave, Count) end, OsPid),
    0 = syn(Sink, {entries, pg}),
    [
        bench_meter:result(syn_join_calls, Count, CallsUs),
        Join,
        JoinMany,
        time(syn_members, MembersUs),
        time(syn_publish, PublishUs),
        Leave,
        Out,
        Die,
        #{workload => syn_member_bytes, bytes_each => Bytes}
    ].

processes(Sink, Count) ->
    Pids = bench_meter:ask(Sink, fun(From, Ref) -> {mkpids, From, Ref, Count} end),
    Count = length(Pids),
    ok = syn(Sink, {pids, Pids}).

%% Has the peer do it with all its processes, until the driver has heard of each: the microseconds of the calls there.
all(Sink, Member, What, Broadcast, Count) ->
    CallsUs = syn(Sink, {all, What}),
    heard(Member, Broadcast, Count),
    CallsUs.

end_all(Sink, Member, Broadcast, Count) ->
    Sink ! killall,
    heard(Member, Broadcast, Count).

sync_out(Sink, Workload, Member, Count, OsPid) ->
    Discover = fun() ->
        Member ! {discover, Sink},
        Count = bench_meter:ask(Member, fun(From, Ref) -> {await_data, From, Ref} end)
    end,
    Start = erlang:monotonic_time(microsecond),
    {_, Result} = measure(Workload, Count, Discover, OsPid),
    maps:merge(Result, time(Workload, erlang:monotonic_time(microsecond) - Start)).

%% --------------------------------------------------------------------------------------- of the driver's processes

%% One at a time, and those of the driver itself, which it need not ask anybody for.
their_names(Sink, Member, Count, OsPid) ->
    Trips = min(Count, ?ROUND_TRIPS),
    Theirs = fun() -> syn(Sink, {register_theirs, some_pids(Trips)}) end,
    {_, RegisterTheirs} = measure(syn_register_theirs, Trips, Theirs, OsPid),
    Asked = bench_meter:ask(Sink, fun(From, Ref) -> {mkpids, From, Ref, Trips} end),
    Ask = fun() ->
        lists:foreach(
            fun(Pid) ->
                {ok, _} = call(Sink, registry, {?TAG, register_or_update_on_node, node(), {asked, Pid}, Pid, undefined})
            end,
            Asked
        )
    end,
    {_, RegisterAsked} = measure(syn_register_asked, Trips, Ask, OsPid),
    end_all(Sink, Member, sync_unregister, Trips),
    Entries = entries(registry, Count),
    {_, Registered} = measure(
        syn_registered, Count, fun() -> broadcast(Sink, registry, sync_register, Entries) end, OsPid
    ),
    Total = Trips + Count,
    Total = syn(Sink, {entries, registry}),
    [RegisterTheirs, RegisterAsked, Registered].

their_members(Sink, Count, OsPid) ->
    Entries = entries(pg, Count),
    {_, Joined} = measure(syn_joined, Count, fun() -> broadcast(Sink, pg, sync_join, Entries) end, OsPid),
    Count = syn(Sink, {entries, pg}),
    Joined.

broadcast({sink, Node} = Sink, Kind, Broadcast, Entries) ->
    To = {process_name(Kind), Node},
    lists:foreach(fun({Key, Pid, Meta, Time}) -> To ! {?TAG, Broadcast, Key, Pid, Meta, Time, normal} end, Entries),
    await_last(Sink, Kind, Entries).

%% All of the driver's comes in one ack_sync, and goes with its scope process. A second time while another process of the
%% peer is asked again and again whether it still answers, and once more for the memory that it takes.
taken_over(Sink, Kind, First, Count, OsPid) ->
    Entries = entries(Kind, Count),
    {In, Out} = come_and_go(Sink, Kind, First, Entries, OsPid),
    Second = start_member(Sink, Kind),
    {SyncStallUs, ok} = longest_silence(Sink, fun() -> come(Sink, Kind, Second, Entries) end),
    {PurgeStallUs, ok} = longest_silence(Sink, fun() -> go(Sink, Kind, Second) end),
    Third = start_member(Sink, Kind),
    Before = syn(Sink, memory_begin),
    come(Sink, Kind, Third, Entries),
    Bytes = (syn(Sink, memory_end) - Before) / Count,
    go(Sink, Kind, Third),
    [In, time(named(Kind, "sync_stall"), SyncStallUs), Out, time(named(Kind, "purge_stall"), PurgeStallUs)] ++
        [#{workload => syn_replica_bytes, bytes_each => Bytes} || Kind =:= registry].

come_and_go(Sink, Kind, Member, Entries, OsPid) ->
    Count = length(Entries),
    {_, #{microseconds := InUs} = In} =
        measure(named(Kind, "sync_in"), Count, fun() -> come(Sink, Kind, Member, Entries) end, OsPid),
    Count = syn(Sink, {entries, Kind}),
    {_, #{microseconds := OutUs} = Out} =
        measure(named(Kind, "purge"), Count, fun() -> go(Sink, Kind, Member) end, OsPid),
    {maps:merge(In, time(named(Kind, "sync_in"), InUs)), maps:merge(Out, time(named(Kind, "purge"), OutUs))}.

come({sink, Node} = Sink, Kind, Member, Entries) ->
    {process_name(Kind), Node} ! {?TAG, ack_sync, Member, Entries},
    await_last(Sink, Kind, Entries).

go(Sink, Kind, Member) ->
    Monitor = monitor(process, Member),
    exit(Member, kill),
    receive
        {'DOWN', Monitor, process, Member, killed} -> syn(Sink, {await_alone, Kind})
    end.

%% The scope process there has done what it was sent before when it answers; a node that does such work piece by piece
%% says by the last entry that it has.
await_last(Sink, Kind, Entries) ->
    [_ | _] = call(Sink, Kind, {?TAG, subcluster_nodes}),
    {Key, Pid, _, _} = lists:last(Entries),
    ok = syn(Sink, {await, Kind, Key, Pid}).

entries(Kind, Count) ->
    Time = erlang:system_time(),
    [{key(Kind, Index), Pid, undefined, Time} || {Index, Pid} <- lists:zip(lists:seq(1, Count), some_pids(Count))].

key(registry, Index) -> {name, Index};
key(pg, Index) -> {group, Index rem ?GROUPS}.

some_pids(Count) -> [c:pid(0, Index band 16#7fff, 1 + Index bsr 15) || Index <- lists:seq(1, Count)].

%% What Work returned, and the longest time in microseconds between two answers of the sink while it ran.
longest_silence(Sink, Work) ->
    Prober = spawn_link(fun() -> probe(Sink, erlang:monotonic_time(microsecond), 0) end),
    _ = bench_meter:round_trip(Sink),
    Outcome = Work(),
    {bench_meter:ask(Prober, fun(From, Ref) -> {stop, From, Ref} end), Outcome}.

probe(Sink, Last, Longest) ->
    bench_meter:round_trip(Sink),
    Now = erlang:monotonic_time(microsecond),
    Silence = max(Longest, Now - Last),
    receive
        {stop, From, Ref} -> From ! {Ref, Silence}
    after 1 -> probe(Sink, Now, Silence)
    end.

%% --------------------------------------------------------------------------------------------- the driver's member

with_scope(Sink, Kind, Work) ->
    ok = syn(Sink, start),
    Member = start_member(Sink, Kind),
    Results = Work(Member),
    exit(Member, kill),
    ok = syn(Sink, {await_alone, Kind}),
    ok = syn(Sink, stop),
    Results.

%% A scope process that the peer knows.
start_member(Sink, Kind) ->
    Name = process_name(Kind),
    Me = self(),
    Ref = make_ref(),
    Member = spawn_opt(
        fun() ->
            true = register(Name, self()),
            Me ! {Ref, registered},
            loop(Kind, #{})
        end,
        [{message_queue_data, off_heap}]
    ),
    registered = bench_meter:await_answer(Ref, start_member),
    Member ! {discover, Sink},
    _ = bench_meter:ask(Member, fun(From, AskRef) -> {await_data, From, AskRef} end),
    true = lists:member(node(), call(Sink, Kind, {?TAG, subcluster_nodes})),
    Member.

%% Counts what it hears, by the word for it, until somebody takes so many away.
loop(Kind, Heard) ->
    receive
        {?TAG, Broadcast, _Key, _Pid, _Meta, _Time, _Reason} ->
            loop(Kind, add(Broadcast, 1, Heard));
        {?TAG, Broadcast, _Key, _Pid, _Meta, _Reason} ->
            loop(Kind, add(Broadcast, 1, Heard));
        {?TAG, discover, Pid} ->
            {process_name(Kind), node(Pid)} ! {?TAG, ack_sync, self(), []},
            loop(Kind, Heard);
        {?TAG, ack_sync, _Pid, Data} ->
            loop(Kind, Heard#{data => length(Data)});
        {'$gen_call', From, {?TAG, register_or_update_on_node, _Node, _Name, _Pid, Meta}} ->
            Tables = [syn_registry_by_name_bench_syn, syn_registry_by_pid_bench_syn],
            Done = [on_process_registered, undefined, Meta, erlang:system_time() | Tables],
            gen_server:reply(From, {ok, list_to_tuple(Done)}),
            loop(Kind, Heard);
        {discover, {sink, Node}} ->
            {process_name(Kind), Node} ! {?TAG, discover, self()},
            loop(Kind, maps:remove(data, Heard));
        {await_data, From, Ref} when is_map_key(data, Heard) ->
            {Data, Rest} = maps:take(data, Heard),
            From ! {Ref, Data},
            loop(Kind, Rest);
        {heard, From, Ref, Broadcast, Count} when map_get(Broadcast, Heard) >= Count ->
            From ! {Ref, heard},
            loop(Kind, add(Broadcast, -Count, Heard))
    end.

add(Broadcast, More, Heard) -> maps:update_with(Broadcast, fun(Count) -> Count + More end, More, Heard).

heard(Member, Broadcast, Count) ->
    heard = bench_meter:ask(Member, fun(From, Ref) -> {heard, From, Ref, Broadcast, Count} end).

process_name(registry) -> syn_registry_bench_syn;
process_name(pg) -> syn_pg_bench_syn.

named(Kind, What) -> list_to_atom("syn_" ++ atom_to_list(Kind) ++ "_" ++ What).

%% ------------------------------------------------------------------------------------------------------- the peer

call({sink, Node}, Kind, Request) -> gen_server:call({process_name(Kind), Node}, Request, ?TIMEOUT_MS).

syn(Sink, Request) -> bench_meter:ask(Sink, fun(From, Ref) -> {syn, From, Ref, Request} end).

measure(Workload, Count, Work, OsPid) -> bench_meter:measure(Workload, Count, Work, OsPid).

time(Workload, Microseconds) -> #{workload => Workload, p50_ms => max(1, Microseconds) / 1000}.
