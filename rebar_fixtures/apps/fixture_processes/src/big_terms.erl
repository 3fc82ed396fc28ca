%% Terms that strain a codec: megabytes, depth, many elements, more atoms than the atom cache has slots.
%%
%% Each builder is a pure function of its size, so either side of a connection can build the same term and compare.
-module(big_terms).
-export([build/2, send/3, send_each/2, describe/1, binary/1, integers/1, pairs/1, deep/1, map/1, text/1, atoms/2]).
-export([every_kind/0, atom_messages/3, send_atom_messages/4, check_atom_messages/5]).

-type kind() :: binary | integers | pairs | deep | map | text | atoms.

%% build(binary, 4194304) is binary(4194304), and so on for every kind.
-spec build(kind(), non_neg_integer()) -> term().
build(atoms, Size) -> atoms(1, Size);
build(Kind, Size) -> ?MODULE:Kind(Size).

%% Sends {big, Kind, build(Kind, Size)}.
-spec send(pid() | {atom(), node()}, kind(), non_neg_integer()) -> ok.
send(Dest, Kind, Size) ->
    Dest ! {big, Kind, build(Kind, Size)},
    ok.

%% Sends each term of a list as a message of its own.
-spec send_each(pid() | {atom(), node()}, [term()]) -> ok.
send_each(Dest, Terms) -> lists:foreach(fun(Term) -> Dest ! Term end, Terms).

%% What a big term is, in a small one: {Type, Size, Md5 of its external form in hex}.
%% (Of a map above 32 keys the digest says nothing: the order of its pairs differs between nodes.)
-spec describe(term()) -> {atom(), non_neg_integer(), string()}.
describe(Term) ->
    {Type, Size} = type_and_size(Term),
    Digest = erlang:md5(term_to_binary(Term, [{minor_version, 2}])),
    {Type, Size, lists:flatten([io_lib:format("~2.16.0b", [Byte]) || <<Byte>> <= Digest])}.

%% Bytes 0, 1, 2, ..., 250, 0, 1, ...: a prime period, so that a shifted block shows.
-spec binary(non_neg_integer()) -> binary().
binary(Size) ->
    Period = list_to_binary(lists:seq(0, 250)),
    binary:part(binary:copy(Period, Size div 251 + 1), 0, Size).

%% Integers of every width on the wire: 1, -2, 3, ..., with a bignum at each hundredth place.
-spec integers(non_neg_integer()) -> [integer()].
integers(Length) -> [integer_at(Index) || Index <- lists:seq(1, Length)].

%% [{Index, Atom, Float, Binary}]
-spec pairs(non_neg_integer()) -> [tuple()].
pairs(Length) -> [{Index, row, Index / 8, <<"row ", Index:32>>} || Index <- lists:seq(1, Length)].

%% Tuples within lists within tuples, Depth containers deep.
-spec deep(non_neg_integer()) -> term().
deep(Depth) -> deeper(Depth, bottom).

-spec map(non_neg_integer()) -> map().
map(Size) -> maps:from_list([{{key, Index}, <<"value ", Index:32>>} || Index <- lists:seq(1, Size)]).

%% UTF-8 text of Length characters which take one to four bytes each.
-spec text(non_neg_integer()) -> binary().
text(Length) ->
    Characters = {$a, 16#E9, 16#20AC, 16#1F600},
    unicode:characters_to_binary([element(Index rem 4 + 1, Characters) || Index <- lists:seq(1, Length)]).

%% Count different atoms fixture_atom_First, ...
-spec atoms(non_neg_integer(), non_neg_integer()) -> [atom()].
atoms(First, Count) ->
    [list_to_atom("fixture_atom_" ++ integer_to_list(Index)) || Index <- lists:seq(First, First + Count - 1)].

%% One term of every kind the external format knows (besides native records, which are younger than OTP 25).
-spec every_kind() -> [term()].
every_kind() ->
    [
        0, 255, 256, -1, 2147483647, -2147483648, 1 bsl 63, -(1 bsl 64), 1 bsl 3000,
        0.0, -0.0, 1.5, 1.7976931348623157e308,
        ok, '', 'åäö', true, false, nil, undefined, list_to_atom(lists:duplicate(255, $x)),
        <<>>, <<"binary">>, <<5:3>>, <<1, 2, 1:1>>,
        [], "string", [1, 2 | 3], [a, [b, [c]]], lists:duplicate(300, 7),
        {}, {a}, list_to_tuple(lists:seq(1, 300)),
        #{}, #{1 => integer, 1.0 => float, true => atom}, #{[key] => #{}},
        self(), make_ref(), list_to_port("#Port<0.1>"), fun erlang:node/0, fun(X) -> X end
    ].

%% Messages messages {atoms, Index, [Atom]} of Each atoms, from the fixture_atom_ number First on, none used twice.
-spec atom_messages(non_neg_integer(), non_neg_integer(), pos_integer()) -> [{atoms, pos_integer(), [atom()]}].
atom_messages(First, Messages, Each) ->
    [{atoms, Index, atoms(First + (Index - 1) * Each, Each)} || Index <- lists:seq(1, Messages)].

%% Sends them: with Messages * Each above 2048 every slot of the sender's atom cache is written, some more than once.
-spec send_atom_messages(pid() | {atom(), node()}, non_neg_integer(), non_neg_integer(), pos_integer()) -> ok.
send_atom_messages(Dest, First, Messages, Each) -> send_each(Dest, atom_messages(First, Messages, Each)).

%% Takes so many messages from a collector and compares: true, or {false, FirstDifferent}.
-spec check_atom_messages(atom() | pid(), non_neg_integer(), non_neg_integer(), pos_integer(), non_neg_integer()) ->
    true | {false, term()}.
check_atom_messages(Collector, First, Messages, Each, TimeoutMs) ->
    first_difference(collector:take(Collector, Messages, TimeoutMs), atom_messages(First, Messages, Each)).

first_difference([], []) -> true;
first_difference([Same | Got], [Same | Expected]) -> first_difference(Got, Expected);
first_difference([], [Missing | _]) -> {false, {missing, Missing}};
first_difference([Other | _], [Expected | _]) -> {false, {got, Other, expected, Expected}}.

integer_at(Index) when Index rem 100 =:= 0 -> Index bsl 200;
integer_at(Index) when Index rem 2 =:= 0 -> -Index * Index;
integer_at(Index) -> Index.

deeper(0, Term) -> Term;
deeper(Depth, Term) when Depth rem 2 =:= 0 -> deeper(Depth - 1, {Term, Depth});
deeper(Depth, Term) -> deeper(Depth - 1, [Term]).

type_and_size(Term) when is_binary(Term) -> {binary, byte_size(Term)};
type_and_size(Term) when is_bitstring(Term) -> {bitstring, bit_size(Term)};
type_and_size(Term) when is_tuple(Term) -> {tuple, tuple_size(Term)};
type_and_size(Term) when is_map(Term) -> {map, map_size(Term)};
type_and_size(Term) when is_list(Term) -> {list, list_length(Term, 0)};
type_and_size(Term) when is_atom(Term) -> {atom, byte_size(atom_to_binary(Term))};
type_and_size(_Term) -> {other, 0}.

list_length([_ | Rest], Count) -> list_length(Rest, Count + 1);
list_length(_Tail, Count) -> Count.
