"""Input and output of processes on a BEAM whose group leader is this node's ``user``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import Atom, ImproperList, Node, Process
from erlang_interop.otp.io_format import BadFormat, characters, format_text
from erlang_interop.terms import charlist
from tests.interop.collectors import PATIENCE, collecting, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from erlang_interop.testing.beam import Beam
    from tests.conftest import Otp
    from tests.interop.conftest import NodeOpener

RULE = "Control messages: the group leader answers the I/O protocol"
NORMAL = Atom("normal")


class Printing:
    """A node whose output is a list, and a process of it."""

    def __init__(self, node: Node, beam: Beam, process: Process, pieces: list[str]) -> None:
        self.node = node
        self.beam = beam
        self.process = process
        self._pieces = pieces

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    async def spawn(self, module: str, function: str, *arguments: Any) -> Any:
        """Spawn it on the BEAM; the reason it ended with."""
        _, ref = await self.process.spawn_remote(self.beam.name, module, function, arguments, monitor=True)
        down: Any = await self.process.receive(lambda message: message[1] == ref, timeout=PATIENCE)
        return down[4]

    async def evaluate(self, source: str, **bindings: Any) -> Any:
        """The value of an expression, evaluated on the BEAM by a process whose group leader is our ``user``."""
        full = (
            "Me = self(), {_, Mref} = spawn_monitor(fun() -> group_leader(L, self()), "
            f"Me ! {{result, (catch ({source}))}} end), "
            "receive {'DOWN', Mref, _, _, _} -> receive {result, R} -> R after 0 -> none end after 20000 -> hangs end"
        )
        return await self.beam.eval(full, L=self.node.default_group_leader, **bindings)


@pytest.fixture
async def printing(opened: NodeOpener, beam: Beam) -> AsyncIterator[Printing]:
    pieces: list[str] = []
    async with opened(output=pieces.append) as node, node.open_process() as process:
        await node.connect(beam.name)
        yield Printing(node, beam, process, pieces)


@pytest.mark.rule(RULE)
@pytest.mark.rule("Spawn: the group leader goes along")
async def test_what_we_spawn_prints_here(printing: Printing) -> None:
    """The process ends as normal: it had its answers, and nothing raised in it."""
    term = [(Atom("ok"), charlist("text"), b"bin", 1.5, [1, 2])]
    assert await printing.spawn("io", "format", charlist("~p~n"), term) == NORMAL
    assert printing.text == '{ok,"text",<<"bin">>,1.5,[1,2]}\n'
    assert await printing.spawn("io", "format", charlist("hello~n")) == NORMAL
    assert await printing.spawn("io", "put_chars", charlist("zażółć ")) == NORMAL
    assert await printing.spawn("io", "put_chars", "gęślą jaźń".encode()) == NORMAL
    assert await printing.spawn("io", "nl") == NORMAL
    assert await printing.spawn("io", "write", charlist("a")) == NORMAL
    assert await printing.spawn("io", "fwrite", charlist("~ts"), ["ż".encode()]) == NORMAL


@pytest.mark.rule(RULE)
async def test_what_a_process_of_a_beam_prints_after_it_was_given_our_user(printing: Printing) -> None:
    async with collecting(printing.beam) as there:
        user = printing.node.whereis("user")
        assert user is not None
        printing.process.set_group_leader(user, there.pid)
        await there.round_trip(printing.process)
        assert await there.run("io", "format", charlist("~w and ~s~n"), [1, charlist("two")]) == Atom("ok")
        assert printing.text == "1 and two\n"
        # By hand, with a name in the place of a pid.
        request = (Atom("io_request"), there.pid, Atom("tag"), (Atom("put_chars"), Atom("unicode"), b"three"))
        await there.run("erlang", "send", (Atom("user"), printing.node.name), request)
        assert await there.take(1) == [(Atom("io_reply"), Atom("tag"), Atom("ok"))]
        assert printing.text == "1 and two\nthree"


@pytest.mark.rule(RULE)
async def test_a_process_that_a_beam_spawns_for_us_hands_it_on(printing: Printing) -> None:
    """The children of a process that we spawned have the same group leader, and so have theirs."""
    await printing.spawn("erlang", "spawn", Atom("io"), Atom("put_chars"), [b"grandchild"])
    await until(lambda: printing.text == "grandchild")


@pytest.mark.rule(RULE)
async def test_all_requests_of_io_are_answered(printing: Printing, otp: Otp) -> None:
    ask = printing.evaluate
    eof, enotsup = Atom("eof"), (Atom("error"), Atom("enotsup"))
    for source in [
        'io:get_line("name? ")',
        'io:get_chars("", 3)',
        "io:read('')",
        'io:fread("", "~d")',
        "io:scan_erl_exprs('')",
        "io:parse_erl_form('')",
    ]:
        assert await ask(source) == eof, source
    assert await ask("io:get_password()") == enotsup
    assert await ask("io:columns()") == enotsup
    assert await ask("io:rows()") == enotsup
    assert await ask("io:getopts()") == [(Atom("binary"), False), (Atom("encoding"), Atom("unicode"))]
    assert await ask("io:setopts([binary, {encoding, unicode}])") == Atom("ok")
    assert await ask("io:setopts([{echo, false}])") == enotsup
    assert await ask('io:requests([nl, {format, "~p", [1]}, {put_chars, unicode, <<"x">>}])') == Atom("ok")
    assert printing.text == "\n1x"
    assert await ask("io:request(group_leader(), what)") == (Atom("error"), Atom("request"))
    raised: Any = await ask('io:format("~p~n", [])')
    assert (raised[0], raised[1][0]) == (Atom("EXIT"), Atom("badarg"))
    raised = await ask("io:put_chars([-1])")
    assert (raised[0], raised[1][0]) == (Atom("EXIT"), Atom("badarg"))
    assert printing.text == "\n1x"


@pytest.mark.rule(RULE)
async def test_loggers_do_not_wait(printing: Printing) -> None:
    """Log events of such a process, and its crash, neither hang it nor cost the connection."""
    assert await printing.evaluate('logger:error("~p", [1])') == Atom("ok")
    assert await printing.evaluate('error_logger:info_msg("~p", [1])') == Atom("ok")
    assert (await printing.spawn("erlang", "error", Atom("oops")))[0] == Atom("oops")
    assert await printing.evaluate("io:nl()") == Atom("ok")
    assert printing.text == "\n"


@pytest.mark.rule(RULE)
async def test_output_that_is_much(printing: Printing) -> None:
    size = 3_000_000
    assert await printing.evaluate('io:put_chars(binary:copy(<<"0123456789">>, N))', N=size // 10) == Atom("ok")
    assert len(printing.text) == size
    count = 2000
    source = 'lists:foreach(fun(X) -> io:format("~b,", [X]) end, lists:seq(1, N))'
    assert await printing.evaluate(source, N=count) == Atom("ok")
    assert printing.text[size:] == "".join(f"{number}," for number in range(1, count + 1))


@pytest.mark.rule(RULE)
async def test_who_prints_learns_that_we_are_gone(opened: NodeOpener, beam: Beam) -> None:
    async with opened() as node:
        await node.connect(beam.name)
        user, name = node.default_group_leader, node.name
    source = (
        "true = polling:until(fun() -> not lists:member(N, nodes(connected)) end, 20000), Me = self(), "
        "{P, M} = spawn_monitor(fun() -> group_leader(L, self()), io:nl() end), "
        "receive {'DOWN', M, _, P, {Reason, _}} -> Reason after 20000 -> hangs end"
    )
    assert await beam.eval(source, L=user, N=name) == Atom("terminated")


@pytest.mark.rule(RULE)
async def test_standard_output(opened: NodeOpener, beam: Beam, capsys: pytest.CaptureFixture[str]) -> None:
    async with opened() as node, node.open_process() as me:
        _, ref = await me.spawn_remote(beam.name, "io", "format", [charlist("~ts~n"), ["żółw".encode()]], monitor=True)
        down: Any = await me.receive(lambda message: message[1] == ref, timeout=PATIENCE)
        assert down[4] == NORMAL
        assert capsys.readouterr().out == "żółw\n"


# -- a BEAM judges what a format gives

FIELDS: dict[str, list[int]] = {  # with the arguments that asterisks take
    "": [],
    "5": [],
    "-5": [],
    "12": [],
    "1": [],
    "3.2": [],
    "3.3": [],
    "2.5": [],
    "-8.3": [],
    ".3": [],
    ".0": [],
    "7.16": [],
    "2..0": [],
    "8.4.*": [48],
    "*": [-6],
    "-*": [-6],
    "*.*": [9, 4],
    "5.": [],
}
STRINGS = [charlist("abcdef"), b"abc", Atom("atom"), [], [b"ab", [99, charlist("d")]], ImproperList([97], b"b"), True]
STRINGS += [b"\xc3\xa4", b"\xff", [228], [1024], 5, (1,), [Atom("a")]]
TERMS = [charlist("abc"), Atom("it's"), (1, 2.5, b"ab", {}), [], -17, {Atom("a"): [1]}, ImproperList([1], 2), b"\xff"]
TERMS += [1e10, 0.1, -1e-5, 123456.789, 1e22, 1 << 70, True, Atom(""), Atom("Up"), [[], [[]]], charlist("a\n")]
FLOATS = [0.0, 1.5, -2.25, 1e20, 123456.789, 0.05, 2.5, -1e-7, 9999.99, 1e4, 0.1, 3]
VALUES: dict[str, list[Any]] = {
    "s": STRINGS,
    "ts": STRINGS,
    "w": TERMS,
    "tw": TERMS,
    "c": [97, 228, 0x400, -1, Atom("x")],
    "tc": [97, 228, 0x400],
    **{control: [0, 31, -31, 1 << 70, 1.5, Atom("a")] for control in "bB#+"},
    "f": FLOATS,
    **{control: [*FLOATS, 1e100, 1e22, -1e-100, 5e-324, 0.0999999999, 9999.99999999] for control in "eg"},
    "i": [1],
}


def formats() -> list[tuple[Any, list[Any]]]:
    cases: list[tuple[Any, list[Any]]] = [
        (charlist(f"|~{field}{control}|"), [*stars, value])
        for control, values in VALUES.items()
        for field, stars in FIELDS.items()
        for value in values
    ]
    cases += [(charlist(f"|~{field}{control}|"), stars) for field, stars in FIELDS.items() for control in "n~"]
    cases += [(charlist(f"~{control}"), [term]) for control in ("p", "tp", "lp") for term in TERMS if term != b"\xff"]
    prefixes = [charlist("0x"), Atom("pre"), b"bin"]
    cases += [(charlist(f"~8.16{x}|"), [value, prefix]) for x in "xX" for value in (30, -30) for prefix in prefixes]
    cases += [
        (charlist(source), arguments)
        for source, arguments in [
            ("~w", []),
            ("x", [1]),
            ("~", []),
            ("~5", []),
            ("~q", [1]),
            ("~P", [1]),
            ("~.1b", [1]),
        ]
    ]
    return [*cases, (b"\xc3\xa4~w~n", [1]), (Atom("a~w"), [1]), ([126, 119, charlist("~w"), 10], [1])]


@pytest.mark.rule(RULE)
async def test_formats_give_what_io_lib_gives(beam: Beam) -> None:
    cases = formats()
    source = (
        "[try unicode:characters_to_binary(io_lib:format(F, A)) of B when is_binary(B) -> B; _ -> badarg "
        "catch error:badarg -> badarg; error:Other -> {Other, F, A} end || {F, A} <- Cases]"
    )
    theirs: Any = await beam.eval(source, Cases=cases, timeout=120)
    different = []
    for (format_, arguments), expected in zip(cases, theirs, strict=True):
        try:
            ours: Any = format_text(format_, arguments).encode()
        except BadFormat:
            ours = Atom("badarg")
        if ours != expected:
            different.append((format_, arguments, ours, expected))
    assert different == []


@pytest.mark.rule(RULE)
async def test_characters_are_those_of_unicode_characters_to_binary(beam: Beam) -> None:
    data = [
        *STRINGS,
        [b"\xc3", b"\xa5"],
        [b"\xc3", 97],
        b"\xc3",
        [b"\xc3"],
        [0x10FFFF],
        [0xD800],
        [0x110000],
        97,
        [[[]]],
        [1.5],
    ]
    data += [[b"\xe2\x82", [b"\xac"]], ImproperList([97], 98), ImproperList([97], b"c"), Atom("a"), [True], "ż"]
    for encoding in ("unicode", "latin1"):
        source = (
            "[try unicode:characters_to_binary(D, E) of B when is_binary(B) -> B; _ -> bad "
            "catch error:_ -> bad end || D <- Data]"
        )
        theirs: Any = await beam.eval(source, Data=data, E=Atom(encoding))
        for chars, expected in zip(data, theirs, strict=True):
            try:
                ours: Any = characters(chars, latin1=encoding == "latin1").encode()
            except ValueError:
                ours = Atom("bad")
            assert ours == expected, (encoding, chars)
