%% Connecting from many processes at once, and ending connections in every way.
-module(dialler).
-export([dial/3, dial_all/3, connected/0, disconnect/1, disconnect_all/0, cut/1]).

-define(PATIENCE_MS, 20000).

%% Count processes connect to Node at the same moment. Each sends {Tag, Number} to the process `sink` there as soon as it
%% is told that the connection is up. Returns what each was told.
-spec dial(node(), pos_integer(), term()) -> [boolean()].
dial(Node, Count, Tag) -> dial_all([Node], Count, Tag).

%% As dial, to several nodes at once.
-spec dial_all([node()], pos_integer(), term()) -> [boolean()].
dial_all(Nodes, Count, Tag) ->
    Diallers = [
        spawn_monitor(fun() -> dial_and_send(Node, {Tag, Number}) end)
     || Number <- lists:seq(1, Count), Node <- Nodes
    ],
    [
        receive
            {'DOWN', Monitor, process, Pid, {told, Told}} -> Told
        after ?PATIENCE_MS -> error({dialler_stuck, Pid})
        end
     || {Pid, Monitor} <- Diallers
    ].

-spec dial_and_send(node(), term()) -> no_return().
dial_and_send(Node, Message) ->
    Told = net_kernel:connect_node(Node),
    Told =:= true andalso ({sink, Node} ! Message),
    exit({told, Told}).

%% Both views of what is connected: the library's, and the emulator's with one entry for each connection.
-spec connected() -> {[node()], [node()]}.
connected() ->
    {lists:sort(nodes(connected)), lists:sort([Node || {Node, _} <- erlang:system_info(dist_ctrl)])}.

%% Returns when the connection is gone.
-spec disconnect(node()) -> boolean().
disconnect(Node) -> polling:until(fun() -> erlang:disconnect_node(Node) end, ?PATIENCE_MS).

-spec disconnect_all() -> [boolean() | ignored].
disconnect_all() -> [erlang:disconnect_node(Node) || Node <- nodes(connected)].

%% Closes the socket, as a broken network would.
-spec cut(node()) -> true.
cut(Node) ->
    {Node, Controller} = lists:keyfind(Node, 1, erlang:system_info(dist_ctrl)),
    exit(Controller, kill).
