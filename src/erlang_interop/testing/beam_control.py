"""The Erlang side of :mod:`erlang_interop.testing.beam`: a loop that evaluates what it is sent.

It is Erlang source for ``erl -eval``, not a module, so that a BEAM needs neither a compiler nor a file of ours to be
controlled. Requests and answers travel over two pipes and not over the distribution, which is what the tests are about.

Wire, both ways: a 32-bit length, then a packet (``{packet, 4}``). All numbers are big-endian.

* Request: ``Id:64, SourceLength:32, Source`` (UTF-8), and the bindings: ``term_to_binary([{Name, Value}])`` or nothing.
* Answer: ``Id:64``, then ``term_to_binary({ok, Value} | {error, {Class, Reason, Stack}})``.
* The first answer has the id 0 and says that the BEAM has booted: ``{ok, {Node, OtpRelease}}``.

Each request runs in a process of its own; one that is killed by an exit signal is answered too. The end of the request
pipe, that is of the program which started the BEAM, ends the BEAM: none is left behind.
"""

from __future__ import annotations

READY_ID = 0
"""The id of the answer that no request asked for: booted."""

_SOURCE = r"""
Evaluate = fun(Source, Bindings) ->
    try
        case erl_scan:string(unicode:characters_to_list(Source)) of
            {ok, Tokens, _} ->
                case erl_parse:parse_exprs(Tokens) of
                    {ok, Expressions} ->
                        {value, Value, _} = erl_eval:exprs(Expressions, Bindings),
                        {ok, Value};
                    {error, {_, Module, Why}} ->
                        {error, {syntax, unicode:characters_to_binary(Module:format_error(Why)), []}}
                end;
            {error, {_, Module, Why}, _} ->
                {error, {syntax, unicode:characters_to_binary(Module:format_error(Why)), []}}
        end
    catch
        Class:Reason:Stack -> {error, {Class, Reason, Stack}}
    end
end,
Bind = fun
    (<<>>) -> erl_eval:new_bindings();
    (Encoded) ->
        lists:foldl(
            fun({Name, Value}, Bindings) -> erl_eval:add_binding(binary_to_atom(Name), Value, Bindings) end,
            erl_eval:new_bindings(),
            binary_to_term(Encoded))
end,
Answer = fun(Port, Id, Result) -> port_command(Port, [<<Id:64>>, term_to_binary(Result)]) end,
Loop = fun Loop(Port, Running) ->
    receive
        {Port, {data, <<Id:64, Length:32, Source:Length/binary, Encoded/binary>>}} ->
            {_, Monitor} = spawn_monitor(fun() -> Answer(Port, Id, Evaluate(Source, Bind(Encoded))) end),
            Loop(Port, Running#{Monitor => Id});
        {'DOWN', Monitor, process, _, normal} ->
            Loop(Port, maps:remove(Monitor, Running));
        {'DOWN', Monitor, process, _, Reason} ->
            Answer(Port, maps:get(Monitor, Running), {error, {signal, Reason, []}}),
            Loop(Port, maps:remove(Monitor, Running));
        {Port, eof} ->
            erlang:halt(0, [{flush, false}]);
        {'EXIT', Port, _} ->
            erlang:halt(0, [{flush, false}]);
        _ ->
            Loop(Port, Running)
    end
end,
spawn(fun() ->
    process_flag(trap_exit, true),
    register(zenmon_control, self()),
    Port = open_port({fd, @IN@, @OUT@}, [binary, {packet, 4}, eof]),
    Answer(Port, 0, {ok, {node(), list_to_integer(erlang:system_info(otp_release))}}),
    Loop(Port, #{})
end).
"""


def control_source(requests: int, answers: int) -> str:
    """The text for ``erl -eval``.

    Args:
        requests: The file descriptor, in the BEAM, that requests are read from.
        answers: The one that answers are written to.
    """
    return " ".join(_SOURCE.replace("@IN@", str(requests)).replace("@OUT@", str(answers)).split())
