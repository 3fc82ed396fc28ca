%% Senders of big messages side by side, so that their fragments interleave on the connection.
-module(fragment_sender).
-export([send_side_by_side/2, check_side_by_side/3, start_suspended/3]).

%% What one process sends: so many terms of big_terms, one after the other.
-type plan() :: {Id :: term(), [{Kind :: atom(), Size :: non_neg_integer()}]}.

%% Each plan is a process; all begin at the same time. The N-th term goes as {piece, Id, N, Term}, and {small, Id, N}
%% follows it at once. Returns when all of them are done.
-spec send_side_by_side(pid() | {atom(), node()}, [plan()]) -> ok.
send_side_by_side(Dest, Plans) ->
    Senders = [
        spawn_monitor(fun() ->
            Messages = messages(Plan),
            receive
                go -> lists:foreach(fun(Message) -> Dest ! Message end, Messages)
            end
        end)
     || Plan <- Plans
    ],
    [Pid ! go || {Pid, _} <- Senders],
    [
        receive
            {'DOWN', Monitor, process, Pid, normal} -> ok
        end
     || {Pid, Monitor} <- Senders
    ],
    ok.

%% Takes from a collector what a node sends that follows the same plans: true, or {false, What, HowManyCame}.
%% `=:=` decides, and the order within each plan counts.
-spec check_side_by_side(atom() | pid(), [plan()], non_neg_integer()) -> true | {false, term(), non_neg_integer()}.
check_side_by_side(Collector, Plans, TimeoutMs) ->
    Expected = maps:from_list([{Id, messages(Plan)} || {Id, _} = Plan <- Plans]),
    Count = lists:sum([length(Messages) || Messages <- maps:values(Expected)]),
    compare(collector:take(Collector, Count, TimeoutMs), Expected, 0).

%% A process that sends Term to Dest, at the moment when it is suspended because the connection takes no more.
-spec start_suspended(pid(), term(), non_neg_integer()) -> pid() | never_suspended.
start_suspended(Dest, Term, TimeoutMs) ->
    Pid = spawn(fun() ->
        Dest ! Term,
        receive
            {finish, Reason} -> exit(Reason)
        end
    end),
    IsSuspended = fun() -> process_info(Pid, status) =:= {status, suspended} end,
    case polling:until(IsSuspended, TimeoutMs) of
        true -> Pid;
        false -> never_suspended
    end.

messages({Id, Terms}) ->
    lists:append([
        [{piece, Id, N, big_terms:build(Kind, Size)}, {small, Id, N}]
     || {N, {Kind, Size}} <- lists:zip(lists:seq(1, length(Terms)), Terms)
    ]).

compare([], Expected, Came) ->
    case lists:append(maps:values(Expected)) of
        [] -> true;
        [Missing | _] -> {false, {missing, {element(1, Missing), element(2, Missing), element(3, Missing)}}, Came}
    end;
compare([Message | Rest], Expected, Came) ->
    case maps:get(element(2, Message), Expected, []) of
        [Message | Others] -> compare(Rest, Expected#{element(2, Message) := Others}, Came + 1);
        _ -> {false, {got, big_terms:describe(Message)}, Came}
    end.
