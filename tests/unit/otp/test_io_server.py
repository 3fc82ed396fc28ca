"""The I/O protocol as a client sees it: requests to ``user`` of a node whose output is a list, or standard output."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import Atom, ImproperList, Node, Pid, Process
from erlang_interop.terms import charlist
from erlang_interop.testing.cluster import open_cluster, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OK, ERROR, EOF = Atom("ok"), Atom("error"), Atom("eof")
UNICODE, LATIN1 = Atom("unicode"), Atom("latin1")
PUT_CHARS = Atom("put_chars")
UNKNOWN = (ERROR, Atom("request"))
ENOTSUP = (ERROR, Atom("enotsup"))


class Client:
    """Asks ``user``; ``printed`` is what was put out."""

    def __init__(self, process: Process, printed: list[str]) -> None:
        self.process = process
        self.printed = printed

    def ask(self, request: Any) -> Any:
        """The reply, which is there at once."""
        reply_as = self.process.make_ref()
        self.process.send("user", (Atom("io_request"), self.process.pid, reply_as, request))
        tag, answered, reply = self.process.receive_nowait()
        assert (tag, answered) == (Atom("io_reply"), reply_as)
        return reply

    def put(self, *rest: Any) -> tuple[Any, str]:
        """The reply to a put_chars, and what was put out for it."""
        self.printed.clear()
        return self.ask((PUT_CHARS, *rest)), "".join(self.printed)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    printed: list[str] = []
    async with open_cluster("one@test", output=printed.append) as (node,), node.open_process() as process:
        yield Client(process, printed)


@pytest.mark.parametrize(
    ("encoding", "chars", "text"),
    [
        (UNICODE, b"", ""),
        (UNICODE, "zażółć".encode(), "zażółć"),
        (UNICODE, charlist("zażółć\n"), "zażółć\n"),
        (UNICODE, "str of this node", "str of this node"),
        (UNICODE, [b"a", [charlist("b"), [[]], ImproperList([99, b"d"], b"e")]], "abcde"),
        (UNICODE, [b"\xe2\x82", [b"\xac"]], "€"),
        (LATIN1, b"\xe4", "ä"),
        (LATIN1, [228, [b"\xe4"]], "ää"),
    ],
)
async def test_put_chars(client: Client, encoding: Atom, chars: Any, text: str) -> None:
    assert client.put(encoding, chars) == (OK, text)


@pytest.mark.parametrize(
    ("encoding", "chars"),
    [
        (UNICODE, b"\xff"),
        (UNICODE, [b"\xc3"]),
        (UNICODE, [b"\xc3", 97]),
        (UNICODE, [0xD800]),
        (UNICODE, [0x110000]),
        (UNICODE, [-1]),
        (UNICODE, [1.5]),
        (UNICODE, [True]),
        (UNICODE, "\ud800"),
        (UNICODE, Atom("a")),
        (UNICODE, 97),
        (UNICODE, ImproperList([97], 98)),
        (LATIN1, [256]),
    ],
)
async def test_what_is_no_characters(client: Client, encoding: Atom, chars: Any) -> None:
    assert client.put(encoding, chars) == ((ERROR, PUT_CHARS), "")


async def test_functions(client: Client) -> None:
    lib = Atom("io_lib")
    arguments = [charlist("~p ~s~n"), [[1, 2], charlist("x")]]
    for name in ("format", "fwrite"):
        assert client.put(UNICODE, lib, Atom(name), arguments) == (OK, "[1,2] x\n")
    assert client.put(UNICODE, lib, Atom("write"), [charlist("a")]) == (OK, "[97]")
    assert client.put(UNICODE, lib, Atom("nl"), []) == (OK, "\n")
    assert client.put(lib, Atom("format"), [charlist("old~n"), []]) == (OK, "old\n")


@pytest.mark.parametrize(
    ("module", "function", "arguments"),
    [
        ("io_lib", "format", [charlist("~p"), []]),
        ("io_lib", "format", [charlist("~p"), Atom("no_list")]),
        ("io_lib", "format", [charlist("~q"), [1]]),
        ("io_lib", "format", [1]),
        ("io_lib", "format", Atom("none")),
        ("io_lib", "print", [1]),
        ("lists", "reverse", [charlist("ab")]),
    ],
)
async def test_functions_that_fail_or_are_not_here(client: Client, module: str, function: str, arguments: Any) -> None:
    assert client.put(UNICODE, Atom(module), Atom(function), arguments) == ((ERROR, Atom(function)), "")


async def test_forms_without_an_encoding_are_latin1(client: Client) -> None:
    assert client.put(b"\xe4") == (OK, "ä")
    assert client.put([1024]) == ((ERROR, PUT_CHARS), "")


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        ((Atom("get_line"), UNICODE, charlist("name? ")), EOF),
        ((Atom("get_line"), charlist("name? ")), EOF),
        ((Atom("get_chars"), LATIN1, b"", 3), EOF),
        ((Atom("get_until"), UNICODE, b"", Atom("erl_scan"), Atom("tokens"), [1]), EOF),
        ((Atom("get_line"), Atom("utf7"), charlist("name? ")), UNKNOWN),
        ((Atom("get_line"),), UNKNOWN),
        ((Atom("get_password"), UNICODE), ENOTSUP),
        ((Atom("get_geometry"), Atom("columns")), ENOTSUP),
        ((Atom("get_geometry"), Atom("rows")), ENOTSUP),
        ((Atom("get_geometry"), Atom("depth")), UNKNOWN),
        ((Atom("put_chars"),), UNKNOWN),
        ((Atom("put_chars"), Atom("utf7"), b"x"), UNKNOWN),
        ((Atom("put_chars"), UNICODE, Atom("m"), Atom("f"), [], 1), UNKNOWN),
        ((Atom("requests"), Atom("no_list")), UNKNOWN),
        ([Atom("requests"), []], UNKNOWN),
        ((b"put_chars", b"x"), UNKNOWN),
        (Atom("what"), UNKNOWN),
        ((), UNKNOWN),
        (1, UNKNOWN),
        (None, UNKNOWN),
    ],
)
async def test_other_requests(client: Client, request_: Any, reply: Any) -> None:
    assert client.ask(request_) == reply
    assert client.printed == []


async def test_options(client: Client) -> None:
    def options() -> list[tuple[Atom, Any]]:
        return [(Atom("binary"), client.ask(Atom("getopts"))[0][1]), (Atom("encoding"), UNICODE)]

    assert client.ask(Atom("getopts")) == [(Atom("binary"), False), (Atom("encoding"), UNICODE)]
    for wanted, binary in [
        ([Atom("binary")], True),
        ([Atom("list")], False),
        ([(Atom("binary"), True), (Atom("encoding"), Atom("utf8"))], True),
        ([(Atom("list"), True), UNICODE], False),
    ]:
        assert client.ask((Atom("setopts"), wanted)) == OK
        assert options()[0] == (Atom("binary"), binary)
    for refused in [(Atom("encoding"), LATIN1), (Atom("echo"), False), Atom("what"), 1]:
        assert client.ask((Atom("setopts"), [Atom("binary"), refused])) == ENOTSUP
    assert options()[0] == (Atom("binary"), False), "of options that are refused none is set"
    assert client.ask((Atom("setopts"), Atom("binary"))) == UNKNOWN


async def test_many_requests_in_one(client: Client) -> None:
    one, two, bad = (PUT_CHARS, UNICODE, b"1"), (PUT_CHARS, UNICODE, b"2"), (PUT_CHARS, UNICODE, [-1])
    requests = Atom("requests")
    assert client.ask((requests, [])) == OK
    assert client.ask((requests, [one, (requests, [two, two]), Atom("getopts")]))[0] == (Atom("binary"), False)
    assert "".join(client.printed) == "122"
    client.printed.clear()
    assert client.ask((requests, [one, (requests, [bad, two]), two])) == (ERROR, PUT_CHARS)
    assert "".join(client.printed) == "1", "nothing is done behind the one that failed"


async def test_no_depth_is_too_deep(client: Client) -> None:
    chars: Any = [120]
    request: Any = (PUT_CHARS, UNICODE, b"y")
    for _ in range(50_000):
        chars, request = [chars], (Atom("requests"), [request])
    assert client.put(UNICODE, chars) == (OK, "x")
    assert client.put(UNICODE, Atom("io_lib"), Atom("write"), [chars])[0] == OK
    client.printed.clear()
    assert client.ask(request) == OK
    assert client.printed == ["y"]
    while type(request) is tuple and request[0] == Atom("requests"):
        request = request[1][0]  # piece by piece: Python frees such a thing recursively
    while chars and type(chars[0]) is list:
        chars = chars[0]


async def test_what_is_no_request_is_dropped(client: Client) -> None:
    me, request = client.process.pid, (PUT_CHARS, UNICODE, b"x")
    for message in [
        1,
        (),
        Atom("io_request"),
        (Atom("io_request"), me, 1),
        (Atom("io_request"), Atom("nobody"), 1, request),
        (Atom("io_request"), client.process.make_ref(), 1, request),
        [Atom("io_request"), me, 1, request],
        (Atom("$gen_call"), (me, 1), request),
    ]:
        client.process.send("user", message)
    assert client.printed == []
    assert client.put(UNICODE, b"alive") == (OK, "alive")


async def test_an_answer_that_nobody_can_take_ends_nothing(client: Client) -> None:
    """``ReplyAs`` may be any value between processes of one node, and From is on another."""
    elsewhere = Pid(Atom("two@test"), 1, 0, 1)
    client.process.send("user", (Atom("io_request"), elsewhere, object(), (PUT_CHARS, UNICODE, b"x")))
    assert client.put(UNICODE, b"alive") == (OK, "alive")


async def test_an_output_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[str] = []

    def output(text: str) -> None:
        if text == "bad":
            raise OSError("full")
        taken.append(text)

    async with open_cluster("one@test", output=output) as (node,), node.open_process() as process:
        client = Client(process, [])
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                assert client.ask((PUT_CHARS, UNICODE, b"bad")) == (ERROR, Atom("terminated"))
        assert client.ask((PUT_CHARS, UNICODE, b"good")) == OK
        assert client.ask((PUT_CHARS, UNICODE, b"")) == OK
    assert taken == ["good"]
    assert len([record for record in caplog.records if record.name == "erlang_interop.user"]) == 1


# -- group leaders


async def test_processes_have_it_as_their_group_leader() -> None:
    async with open_cluster("one@test") as (node,), node.open_process() as process:
        user = node.whereis("user")
        assert user is not None
        assert process.group_leader == node.default_group_leader == user
        node.default_group_leader = process.pid
        async with node.open_process() as later:
            assert later.group_leader == process.pid
        assert process.group_leader == user


async def test_what_is_spawned_elsewhere_prints_here() -> None:
    ones: list[str] = []
    leaders: list[Any] = []

    async def printer(process: Process, text: str) -> None:
        leaders.append(process.group_leader)
        assert process.group_leader is not None
        process.send(process.group_leader, (Atom("io_request"), process.pid, 7, (PUT_CHARS, UNICODE, text)))
        assert await process.receive() == (Atom("io_reply"), 7, OK)

    async with open_cluster("one@test", "two@test", output=ones.append) as (one, two):
        two.expose("py", {"printer": printer}, with_process=True)
        async with one.open_process() as me:
            _, ref = await me.spawn_remote(two.name, "py", "printer", [b"hello"], monitor=True)
            down: Any = await me.receive(lambda message: message[1] == ref, timeout=30)
            assert down[4] == Atom("normal")
        assert leaders == [one.whereis("user")]
    assert ones == ["hello"]


# -- standard output


async def ask_at_length(process: Process, request: Any) -> Any:
    reply_as = process.make_ref()
    process.send("user", (Atom("io_request"), process.pid, reply_as, request))
    answer: Any = await process.receive(lambda message: message[1] == reply_as, timeout=30)
    return answer[2]


async def test_standard_output(capsys: pytest.CaptureFixture[str], one_node: Node) -> None:
    async with one_node.open_process() as me:
        assert await ask_at_length(me, (PUT_CHARS, UNICODE, "grüße\n".encode())) == OK
        assert capsys.readouterr().out == "grüße\n", "it is there when the answer is"
        for number in range(20):
            me.send("user", (Atom("io_request"), me.pid, number, (PUT_CHARS, UNICODE, b"%d " % number)))
        me.send("user", (Atom("io_request"), me.pid, 20, Atom("getopts")))
        answers: list[Any] = [await me.receive(timeout=30) for _ in range(21)]
        assert [answer[1] for answer in answers] == list(range(21))
        assert type(answers[20][2]) is list
        assert capsys.readouterr().out == "".join(f"{number} " for number in range(20))


async def test_a_standard_output_of_few_characters(monkeypatch: pytest.MonkeyPatch, one_node: Node) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    async with one_node.open_process() as me:
        assert await ask_at_length(me, (PUT_CHARS, UNICODE, "aż".encode())) == OK
    assert raw.getvalue() == b"a\\u017c"


async def test_a_broken_standard_output(
    monkeypatch: pytest.MonkeyPatch, one_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    async with one_node.open_process() as me:
        for _ in range(2):
            assert await ask_at_length(me, (PUT_CHARS, UNICODE, b"x")) == (ERROR, Atom("terminated"))
        assert await ask_at_length(me, (PUT_CHARS, UNICODE, b"")) == OK
    assert len([record for record in caplog.records if record.name == "erlang_interop.user"]) == 1


async def test_a_reader_that_stands_still_holds_up_those_who_print_alone(
    monkeypatch: pytest.MonkeyPatch, two_nodes: tuple[Node, Node]
) -> None:
    one, two = two_nodes
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stdout, os.fdopen(reading, "rb") as reader:
        monkeypatch.setattr(sys, "stdout", stdout)
        async with one.open_process() as me:
            size = 1 << 20  # more than a pipe holds
            me.send("user", (Atom("io_request"), me.pid, 1, (PUT_CHARS, UNICODE, b"x" * size)))
            await two.connect(one.name)
            assert await two.ping(one.name, timeout=30), "the node goes on"
            with pytest.raises(trio.WouldBlock):
                me.receive_nowait()
            left = size
            while left:
                left -= len(await trio.to_thread.run_sync(reader.read1, left))
            assert await me.receive(timeout=30) == (Atom("io_reply"), 1, OK)


async def test_a_node_ends_though_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    stdout = os.fdopen(writing, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stdout)
    with trio.fail_after(30):
        async with open_cluster("one@test") as (node,), node.open_process() as me:
            me.send("user", (Atom("io_request"), me.pid, 1, (PUT_CHARS, UNICODE, b"x" * (1 << 20))))
            await settled()
    with os.fdopen(reading, "rb") as reader:  # lets the thread go
        left = 1 << 20
        while left:
            left -= len(await trio.to_thread.run_sync(reader.read1, left))
    stdout.close()


async def test_what_was_printed_before_the_end_is_put_out(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_cluster("one@test") as (node,):
        node.send("user", (Atom("io_request"), node.whereis("user"), 1, (PUT_CHARS, UNICODE, b"last words")))
    assert capsys.readouterr().out == "last words"
