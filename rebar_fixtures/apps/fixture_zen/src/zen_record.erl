%% What arrived from the other node, with its time, for tests that look at the wire traffic of a role.
%%
%% One table for each role, owned by the role's supervisor so that it survives a crash of the role itself.
-module(zen_record).
-export([open/1, note/2, take/1]).

-spec open(atom()) -> ok.
open(Table) ->
    Table = ets:new(Table, [named_table, public, ordered_set]),
    ok.

%% Keeps Message if the setting `record` is on.
-spec note(atom(), term()) -> ok.
note(Table, Message) ->
    case zen_settings:get(record) of
        true ->
            Key = {erlang:monotonic_time(millisecond), erlang:unique_integer([monotonic])},
            true = ets:insert(Table, {Key, Message}),
            ok;
        false ->
            ok
    end.

%% Everything kept since the last take, oldest first: [{Milliseconds, Message}], the first at 0.
-spec take(atom()) -> [{non_neg_integer(), term()}].
take(Table) ->
    Rows = ets:tab2list(Table),
    lists:foreach(fun({Key, _}) -> ets:delete(Table, Key) end, Rows),
    case Rows of
        [] -> [];
        [{{Start, _}, _} | _] -> [{Time - Start, Message} || {{Time, _}, Message} <- Rows]
    end.
