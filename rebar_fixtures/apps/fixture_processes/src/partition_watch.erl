%% What a BEAM sees of its cluster while nodes and links fail: nodedowns with their reasons, the names that `global`
%% knows, and how long global:register_name takes.
-module(partition_watch).
-export([start/0, up/0, downs/0, hold_name/1, names/0, time_names/1, keep_timing/0, timed/0]).

-define(BETWEEN_MS, 20).
-define(SHARE, 4).
-define(MOST_MS, 1000).

%% Watches this node's connections from now on; it has none yet. It ends with the node.
-spec start() -> ok.
start() ->
    Caller = self(),
    Watcher = spawn(fun() ->
        register(?MODULE, self()),
        ok = net_kernel:monitor_nodes(true, [{node_type, all}, nodedown_reason]),
        Caller ! {self(), ready},
        watch([], [])
    end),
    receive
        {Watcher, ready} -> ok
    end.

%% Every nodedown since the last call, oldest first: {Node, Reason}.
-spec downs() -> [{node(), term()}].
downs() -> ask(?MODULE, downs).

%% The nodes that the watcher has been told to be connected, and not to be lost since.
-spec up() -> [node()].
up() -> ask(?MODULE, up).

watch(Up, Downs) ->
    receive
        {nodedown, Node, Info} ->
            watch(lists:delete(Node, Up), [{Node, proplists:get_value(nodedown_reason, Info)} | Downs]);
        {nodeup, Node, _Info} ->
            watch([Node | Up], Downs);
        {up, From, Ref} ->
            From ! {Ref, Up},
            watch(Up, Downs);
        {downs, From, Ref} ->
            From ! {Ref, lists:reverse(Downs)},
            watch(Up, [])
    end.

%% Registers Name for a new process, which lives until `global` or somebody else ends it.
-spec hold_name(term()) -> yes | no.
hold_name(Name) ->
    Holder = spawn(fun() -> receive stop -> ok end end),
    global:register_name(Name, Holder).

%% What this node's `global` knows; the names of timers, which are tuples, come and go.
-spec names() -> [{atom(), pid() | undefined}].
names() ->
    [{Name, global:whereis_name(Name)} || Name <- global:registered_names(), is_atom(Name)].

%% Microseconds that each of Count registrations took.
-spec time_names(pos_integer()) -> [non_neg_integer()].
time_names(Count) ->
    [time_name() || _ <- lists:seq(1, Count)].

%% For a process of its own, and a name that was never there: when it joins partitions, `global` may bring one back that
%% was unregistered, and it lets no process have two.
time_name() ->
    Name = {timed, node(), erlang:unique_integer([positive])},
    {Holder, Monitor} = spawn_monitor(fun() -> receive stop -> ok end end),
    {Micros, yes} = timer:tc(global, register_name, [Name, Holder]),
    global:unregister_name(Name),
    exit(Holder, kill),
    receive
        {'DOWN', Monitor, process, Holder, killed} -> Micros
    end.

%% Registers one name after the other until timed/0 is called. In between it leaves the lock of `global` to others for
%% longer than it has had it: who finds it taken sleeps for seconds before the next attempt.
-spec keep_timing() -> ok.
keep_timing() ->
    Caller = self(),
    Timer = spawn(fun() ->
        register(partition_timer, self()),
        Caller ! {self(), ready},
        keep_timing([])
    end),
    receive
        {Timer, ready} -> ok
    end.

keep_timing(Times) ->
    Micros = time_name(),
    receive
        {timed, From, Ref} -> From ! {Ref, [Micros | Times]}
    after min(?MOST_MS, max(?BETWEEN_MS, ?SHARE * Micros div 1000)) -> keep_timing([Micros | Times])
    end.

%% Ends keep_timing/0 after the registration under way: the microseconds of each, the last one first.
-spec timed() -> [non_neg_integer()].
timed() -> ask(partition_timer, timed).

ask(Process, What) ->
    Ref = make_ref(),
    Process ! {What, self(), Ref},
    receive
        {Ref, Answer} -> Answer
    end.
