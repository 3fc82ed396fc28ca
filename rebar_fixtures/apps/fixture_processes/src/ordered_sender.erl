%% Senders of numbered messages, for tests that order is kept and that nothing is lost.
-module(ordered_sender).
-export([send_numbered/2, send_numbered/3, send_from_many/3, send_paced/4, is_in_order/3]).

-type destination() :: pid() | atom() | {atom(), node()}.

%% Sends {numbered, 1} ... {numbered, Count} from the calling process.
-spec send_numbered(destination(), non_neg_integer()) -> ok.
send_numbered(Dest, Count) ->
    lists:foreach(fun(Index) -> Dest ! {numbered, Index} end, lists:seq(1, Count)).

%% The same as {numbered, Index, Payload}, for messages of a given size.
-spec send_numbered(destination(), non_neg_integer(), term()) -> ok.
send_numbered(Dest, Count, Payload) ->
    lists:foreach(fun(Index) -> Dest ! {numbered, Index, Payload} end, lists:seq(1, Count)).

%% Senders processes send {numbered, self(), Index} side by side, Count each: order holds for each sender.
%% Returns their pids when all of them are done.
-spec send_from_many(destination(), pos_integer(), non_neg_integer()) -> [pid()].
send_from_many(Dest, Senders, Count) ->
    Started = [
        spawn_monitor(fun() ->
            lists:foreach(fun(Index) -> Dest ! {numbered, self(), Index} end, lists:seq(1, Count))
        end)
     || _ <- lists:seq(1, Senders)
    ],
    [
        receive
            {'DOWN', Monitor, process, Pid, normal} -> Pid
        end
     || {Pid, Monitor} <- Started
    ].

%% Sends {numbered, Index, Payload} in the background, Count of them, one every IntervalMs milliseconds (0: at once).
%% Returns the sender's pid at once: with a destination that does not read, it is suspended and not done.
-spec send_paced(destination(), non_neg_integer(), non_neg_integer(), term()) -> pid().
send_paced(Dest, Count, IntervalMs, Payload) ->
    spawn(fun() ->
        lists:foreach(
            fun(Index) ->
                Dest ! {numbered, Index, Payload},
                receive
                after IntervalMs -> ok
                end
            end,
            lists:seq(1, Count)
        )
    end).

%% Takes Count numbered messages from a collector and says whether they are 1..Count in order:
%% true, or {false, FirstDifference, HowManyCame}.
-spec is_in_order(atom() | pid(), non_neg_integer(), non_neg_integer()) ->
    true | {false, term(), non_neg_integer()}.
is_in_order(Collector, Count, TimeoutMs) ->
    Messages = collector:take_if(Collector, numbered, Count, TimeoutMs),
    in_order(Messages, 1, Count, length(Messages)).

in_order([], Next, Count, _Came) when Next =:= Count + 1 -> true;
in_order([Message | Rest], Next, Count, Came) when element(2, Message) =:= Next ->
    in_order(Rest, Next + 1, Count, Came);
in_order([], Next, _Count, Came) -> {false, {missing, Next}, Came};
in_order([Message | _], Next, _Count, Came) -> {false, {expected, Next, got, element(2, Message)}, Came}.
