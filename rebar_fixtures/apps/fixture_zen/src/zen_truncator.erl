%% Truncation of exit reasons, by the rules a ZenMonitor Proxy applies before it sends a certificate.
%%
%% A reason is cut to Depth levels of containers (level 0 is the reason itself); at that level anything becomes
%% `truncated`. Containers have at most four elements, binaries at most MaxBinary bytes. {shutdown, _} as the whole
%% reason passes untouched.
-module(zen_truncator).
-export([truncate/1, truncate/3, check_vectors/1]).

-define(MAX_ELEMENTS, 4).
-define(ELLIPSIS, "...").

-spec truncate(term()) -> term().
truncate(Reason) ->
    truncate(Reason, zen_settings:get(truncation_depth), zen_settings:get(max_binary_size)).

-spec truncate(term(), non_neg_integer(), pos_integer()) -> term().
truncate({shutdown, _} = Reason, _Depth, _MaxBinary) -> Reason;
truncate(Reason, Depth, MaxBinary) -> cut(Reason, Depth, MaxBinary).

%% Depth counts down: with 0 left, nothing survives.
cut(_Term, 0, _MaxBinary) ->
    truncated;
cut(Term, _Depth, _MaxBinary) when
    is_atom(Term); is_number(Term); is_pid(Term); is_reference(Term); is_port(Term)
->
    Term;
cut(Term, _Depth, MaxBinary) when is_binary(Term), byte_size(Term) =< MaxBinary ->
    Term;
cut(Term, _Depth, MaxBinary) when is_bitstring(Term) ->
    %% A bitstring that is no binary has no length that is small enough to pass: it is cut or goes.
    Kept = MaxBinary - length(?ELLIPSIS),
    case Term of
        <<Head:Kept/binary, _/bitstring>> -> <<Head/binary, ?ELLIPSIS>>;
        _ -> truncated
    end;
cut(Term, Depth, MaxBinary) when is_tuple(Term), tuple_size(Term) =< ?MAX_ELEMENTS ->
    list_to_tuple([cut(Element, Depth - 1, MaxBinary) || Element <- tuple_to_list(Term)]);
cut(Term, Depth, MaxBinary) when is_list(Term) ->
    case is_short_list(Term, ?MAX_ELEMENTS) of
        true -> [cut(Element, Depth - 1, MaxBinary) || Element <- Term];
        false -> truncated
    end;
cut(#{'__struct__' := Module} = Term, Depth, MaxBinary) when
    is_atom(Module), map_size(Term) =< ?MAX_ELEMENTS + 1
->
    Fields = maps:remove('__struct__', Term),
    (cut_values(Fields, Depth, MaxBinary))#{'__struct__' => Module};
cut(#{'__struct__' := Module}, _Depth, _MaxBinary) when is_atom(Module) ->
    truncated;
cut(Term, Depth, MaxBinary) when is_map(Term), map_size(Term) =< ?MAX_ELEMENTS ->
    cut_values(Term, Depth, MaxBinary);
cut(_FunOrTooLarge, _Depth, _MaxBinary) ->
    truncated.

cut_values(Map, Depth, MaxBinary) ->
    maps:map(fun(_Key, Value) -> cut(Value, Depth - 1, MaxBinary) end, Map).

is_short_list([], _Room) -> true;
is_short_list([_ | Rest], Room) when Room > 0 -> is_short_list(Rest, Room - 1);
is_short_list(_LongOrImproper, _Room) -> false.

%% Runs the vectors of tests/data/truncator-vectors.tsv (label, external term, expected, unchanged; terms in base64)
%% through truncate with default depth and size: {Passed, [{Label, Got, Expected}]}.
-spec check_vectors(file:filename()) -> {non_neg_integer(), [{binary(), term(), term()}]}.
check_vectors(File) ->
    {ok, Content} = file:read_file(File),
    Results = [
        check_vector(binary:split(Line, <<"\t">>, [global]))
     || Line <- binary:split(Content, <<"\n">>, [global, trim_all]), binary:first(Line) =/= $#
    ],
    {length([ok || ok <- Results]), [Failure || Failure <- Results, Failure =/= ok]}.

check_vector([Label, Before, After, Unchanged]) ->
    Reason = binary_to_term(base64:decode(Before)),
    Expected = binary_to_term(base64:decode(After)),
    case truncate(Reason, 3, 1024) of
        Expected when (Expected =:= Reason) =:= (Unchanged =:= <<"true">>) -> ok;
        Got -> {Label, Got, Expected}
    end.
