"""Our EPMD beside the genuine one: the same bytes for the same requests, and OTP's own programs as its clients."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from erlang_interop import Atom, EpmdAddress, open_node
from erlang_interop.runtime import EpmdServer
from erlang_interop.runtime import epmd as client
from erlang_interop.testing.beam import Beam, Epmd
from erlang_interop.testing.ports import free_port, is_free
from tests.command import Command
from tests.interop.collectors import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Otp

COOKIE = "epmd test"


# ------------------------------------------------------------------------------------------ both, asked the same things


@dataclass(frozen=True)
class Both:
    """The ports of a genuine EPMD and of ours."""

    genuine: int
    ours: int


@asynccontextmanager
async def both(otp: Otp, *, relaxed: bool = False) -> AsyncIterator[Both]:
    """One EPMD of each kind, both without any name."""
    with pytest.MonkeyPatch.context() as patch:
        if relaxed:
            patch.setenv("ERL_EPMD_RELAXED_COMMAND_CHECK", "1")
        genuine = await trio.to_thread.run_sync(lambda: Epmd.start(otp.root))
    try:
        async with trio.open_nursery() as nursery:
            ours: int = await nursery.start(EpmdServer(relaxed=relaxed).serve)
            yield Both(genuine.port, ours)
            nursery.cancel_scope.cancel()
    finally:
        genuine.close()


async def exchange(port: int, data: bytes) -> bytes:
    """Send ``data`` and the end behind it; return all that comes back until the other side ends as well.

    The end makes it finite: an EPMD whose client has ended its half answers what is complete, then ends too. A reset is
    an end: bytes that the EPMD did not read make one of it. What it answered before that is there still.
    """
    received = b""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(data)
                await stream.send_eof()
            try:
                while part := await stream.receive_some():
                    received += part
            except trio.BrokenResourceError:
                pass
    return received


def comparable(answer: bytes, port: int) -> bytes:
    """An answer without what is each EPMD's own: its port, file descriptors, and the creations it gives."""
    if answer[:2] == b"v\0" and len(answer) == 6:
        assert 4 <= int.from_bytes(answer[2:], "big") < 2**32
        return b"v\0 and a creation"
    if answer[:2] == b"y\0" and len(answer) == 4:
        assert 1 <= int.from_bytes(answer[2:], "big") <= 3
        return b"y\0 and a creation"
    if answer[:4] == port.to_bytes(4, "big"):
        answer = b"port" + answer[4:]
    return re.sub(rb"fd = -?\d+", b"fd = N", answer)


async def assert_same(at: Both, data: bytes, about: str = "") -> bytes:
    """Both answer ``data`` alike; returns how."""
    genuine = comparable(await exchange(at.genuine, data), at.genuine)
    ours = comparable(await exchange(at.ours, data), at.ours)
    assert ours == genuine, f"{about or data!r}: epmd answers {genuine!r}, ours {ours!r}"
    return genuine


def request(body: bytes) -> bytes:
    return len(body).to_bytes(2, "big") + body


def alive2(name: bytes, *, port: int = 4711, extra: bytes = b"", version: int = 6, node_type: int = 77) -> bytes:
    """An ALIVE2_REQ, from the manual's table."""
    body = b"x" + port.to_bytes(2, "big") + bytes((node_type, 0)) + version.to_bytes(2, "big") + b"\0\5"
    return request(body + len(name).to_bytes(2, "big") + name + len(extra).to_bytes(2, "big") + extra)


@asynccontextmanager
async def registered(at: Both, data: bytes) -> AsyncIterator[list[trio.SocketStream]]:
    """The same name at both, for as long as the block runs."""
    async with (
        await trio.open_tcp_stream("127.0.0.1", at.genuine) as one,
        await trio.open_tcp_stream("127.0.0.1", at.ours) as two,
    ):
        with trio.fail_after(PATIENCE):
            for stream in (one, two):
                await stream.send_all(data)
                assert (await stream.receive_some())[1] == 0
        yield [one, two]


REQUESTS: list[tuple[str, bytes]] = [
    ("no node: NAMES", request(b"n")),
    ("NAMES with more in it", request(b"n and more")),
    ("the largest request", request(b"n" + bytes(3056))),
    ("one that is too large", request(b"n" + bytes(3057))),
    ("one that is much too large", request(bytes(65535))),
    ("DUMP", request(b"d")),
    ("PORT_PLEASE2 of a node that is there", request(b"zhere")),
    ("PORT_PLEASE2 of one that is old", request(b"zold")),
    ("PORT_PLEASE2 of one with an extra field", request(b"zextra")),
    ("PORT_PLEASE2 beyond ASCII", request("zblå".encode())),
    ("PORT_PLEASE2, zero-terminated", request(b"zhere\0")),
    ("PORT_PLEASE2, terminated twice", request(b"zhere\0\0")),
    ("PORT_PLEASE2 of nobody", request(b"znobody")),
    ("PORT_PLEASE2 of the start of a name", request(b"zher")),
    ("PORT_PLEASE2 without a name", request(b"z")),
    ("PORT_PLEASE2 with a zero byte", request(b"zhe\0re")),
    ("PORT_PLEASE2 that is no UTF-8", request(b"z\xff")),
    ("PORT_PLEASE2, 254 characters", request(b"z" + b"a" * 254)),
    ("PORT_PLEASE2, 255 characters", request(b"z" + b"a" * 255)),
    ("PORT_PLEASE2, 254 characters of two bytes", request(b"z" + "å".encode() * 254)),
    ("ALIVE2", alive2(b"new")),
    ("ALIVE2 of a hidden node", alive2(b"new", node_type=72)),
    ("ALIVE2 of version 5", alive2(b"new", version=5)),
    ("ALIVE2 of a version to come", alive2(b"new", version=7)),
    ("ALIVE2 of a name that is taken", alive2(b"here")),
    ("ALIVE2 of a name that is taken, version 5", alive2(b"here", version=5)),
    ("ALIVE2 without a name", alive2(b"")),
    ("ALIVE2 without a name, with an extra field", alive2(b"", extra=b"x")),
    ("ALIVE2, 255 characters", alive2(b"a" * 255)),
    ("ALIVE2, 256 characters", alive2(b"a" * 256)),
    ("ALIVE2, 255 characters of four bytes", alive2("𝄞".encode() * 255)),
    ("ALIVE2, 256 characters of four bytes", alive2("𝄞".encode() * 256)),
    ("ALIVE2 that is no UTF-8", alive2(b"\xff\xfe")),
    ("ALIVE2 with half a surrogate pair", alive2(b"\xed\xa0\x80")),
    ("ALIVE2 with a zero byte", alive2(b"ne\0w")),
    ("ALIVE2 with spaces and a line feed", alive2(b"a b\nc")),
    ("ALIVE2, an extra field of 1020 bytes", alive2(b"new", extra=bytes(1020))),
    ("ALIVE2, an extra field of 1021 bytes", alive2(b"new", extra=bytes(1021))),
    ("ALIVE2 with bytes behind the extra field", request(alive2(b"new")[2:] + b"more")),
    ("ALIVE2 whose name is longer than it says", request(alive2(b"new")[2:-3])),
    ("ALIVE2 whose extra field is longer than it says", request(alive2(b"new", extra=b"12345")[2:-1])),
    ("KILL while nodes are registered", request(b"k")),
    ("KILL with more in it", request(b"kill")),
    ("an empty request", b"\0\0"),
    ("half a length", b"\0"),
    ("nothing", b""),
    ("a request and more", request(b"n") + b"n"),
    ("two requests", request(b"n") * 2),
    ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("the distribution handshake", request(b"N" + bytes(14) + b"\0\5one@h")),
    *(("unknown tags", request(bytes((tag,)))) for tag in (0, 97, 98, 112, 118, 119, 121, 255)),
]


@pytest.mark.rule("EPMD: every request is answered as the genuine EPMD answers it, byte for byte")
async def test_both_answer_every_request_alike(otp: Otp) -> None:
    async with both(otp) as at:
        nobody = [await assert_same(at, request(body)) for body in (b"n", b"d", b"zhere", b"shere")]
        assert nobody == [b"port", b"port", b"w\1", b""]
        async with (
            registered(at, alive2(b"here", port=1)),
            registered(at, alive2(b"old", port=2, version=5)),
            registered(at, alive2(b"extra", port=65535, extra=bytes(range(256)))),
            registered(at, alive2("blå".encode(), port=4)),
        ):
            answers = {about: await assert_same(at, data, about) for about, data in REQUESTS}
            assert await assert_same(at, request(b"shere"), "STOP, which is not permitted") == b""
        # The two agree on what matters, not on silence alone.
        assert answers["NAMES with more in it"].count(b"name ") == 4
        assert answers["PORT_PLEASE2 of one with an extra field"].endswith(b"\1\0" + bytes(range(256)))
        assert answers["ALIVE2 of a name that is taken"] == b"v\1\0\0\0c"
        assert answers["KILL while nodes are registered"] == b"NO"


@pytest.mark.rule("EPMD: DUMP tells of the nodes that were")
async def test_both_dump_former_nodes_alike(otp: Otp) -> None:
    async with both(otp) as at:
        for name in (b"one", b"two", b"three", b"one"):
            assert await assert_same(at, alive2(name, port=len(name))) == b"v\0 and a creation"
        async with registered(at, alive2(b"two")):
            dump = await assert_same(at, request(b"d"))
        assert dump.count(b"active name") == 1
        assert dump.count(b"old/unused") == 2


@pytest.mark.rule("EPMD: KILL and STOP are permitted as the genuine EPMD permits them")
async def test_both_obey_a_relaxed_command_check_alike(otp: Otp) -> None:
    async with both(otp, relaxed=True) as at:
        async with registered(at, alive2(b"one")) as nodes, registered(at, alive2(b"two")) as others:
            assert await assert_same(at, request(b"sthree")) == b"NOEXISTSTOPPED"
            assert await assert_same(at, request(b"s\xff")) == b"NOEXISTSTOPPED"
            assert await assert_same(at, request(b"s")) == b""
            assert await assert_same(at, request(b"sone\0")) == b"STOPPED"
            assert [await ended(stream) for stream in nodes] == [b"", b""]
            assert await assert_same(at, request(b"n")) == b"portname two at port 4711\n"
            assert await assert_same(at, request(b"k")) == b"OK"
            assert [await ended(stream) for stream in others] == [b"", b""]


async def ended(stream: trio.SocketStream) -> bytes:
    with trio.fail_after(PATIENCE):
        try:
            return bytes(await stream.receive_some())
        except trio.BrokenResourceError:
            return b""


@pytest.mark.rule("EPMD: more bytes on the connection that registered a node end it")
async def test_both_forget_a_node_that_says_more(otp: Otp) -> None:
    async with both(otp) as at, registered(at, alive2(b"one")) as streams:
        for stream in streams:
            await stream.send_all(b"x")
        assert [await ended(stream) for stream in streams] == [b"", b""]
        assert await assert_same(at, request(b"n")) == b"port"


@pytest.mark.rule("EPMD: bytes that are no request cost their sender the connection alone")
@pytest.mark.parametrize("data", [alive2(b"new", extra=b"12"), request(b"zhere"), request(b"shere"), request(b"n")])
async def test_both_are_silent_about_requests_cut_short(otp: Otp, data: bytes) -> None:
    async with both(otp) as at, registered(at, alive2(b"here")):
        for size in range(len(data)):
            assert await assert_same(at, data[:size]) == b""
        assert await assert_same(at, request(b"n")) == b"portname here at port 4711\n"


@pytest.mark.rule("EPMD: bytes that are no request cost their sender the connection alone")
async def test_both_answer_random_requests_alike(otp: Otp) -> None:
    """Requests with bytes changed, taken out and put in, and lengths that are right and wrong."""
    numbers = random.Random(otp.release)
    models = [data for _, data in REQUESTS if len(data) < 400]
    async with both(otp) as at, registered(at, alive2(b"here")):
        answered = 0
        for _ in range(400):
            body = bytearray(numbers.choice(models)[2:])
            for _ in range(numbers.randint(0, 3)):
                place = numbers.randrange(len(body) + 1)
                match numbers.randrange(3):
                    case 0:
                        body[place:place] = numbers.randbytes(numbers.randint(1, 3))
                    case 1:
                        del body[place : place + numbers.randint(1, 3)]
                    case _:
                        body[place : place + 1] = numbers.randbytes(1)
            right = numbers.random() < 0.8
            data = request(bytes(body)) if right else numbers.randbytes(2) + bytes(body)
            answered += bool(await assert_same(at, data))
        assert answered > 50
        assert await assert_same(at, request(b"n")) == b"portname here at port 4711\n"


# ------------------------------------------------------------------------------------------------ OTP's own programs


def program_of(otp: Otp, name: str) -> Path:
    """A program of the OTP, also one that only lies beside the runtime. Every OTP that the tests run with has all."""
    found = otp.root / "bin" / name
    return found if found.is_file() else next(path for path in otp.root.rglob(f"bin/{name}") if path.is_file())


async def run(otp: Otp, program: str, *words: str, port: int, home: Path | None = None) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a program of the OTP."""
    environment = os.environ | {"ERL_EPMD_PORT": str(port)} | ({"HOME": str(home)} if home else {})
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [program_of(otp, program), *words],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.rule("EPMD: the embedded server serves epmd -names, -kill and -stop")
@pytest.mark.parametrize("relaxed", [False, True], ids=["strict", "relaxed"])
async def test_genuine_commands_say_the_same_of_both(otp: Otp, relaxed: bool) -> None:
    async with both(otp, relaxed=relaxed) as at:

        async def say(*words: str) -> tuple[int, str, str]:
            genuine = await run(otp, "epmd", *words, port=at.genuine)
            ours = await run(otp, "epmd", *words, port=at.ours)
            assert ours == tuple(
                part.replace(str(at.genuine), str(at.ours)) if isinstance(part, str) else part for part in genuine
            ), words
            return ours

        assert "data:" in (await say("-names"))[1]
        async with registered(at, alive2(b"one")):
            assert "name one at port 4711" in (await say("-names"))[1]
            assert "<one>" in (await run(otp, "epmd", "-dump", port=at.ours))[1]
            await say("-stop", "one")
            assert ("name one" in (await say("-names"))[1]) is not relaxed
        async with registered(at, alive2(b"two")):
            status, said, _ = await say("-kill")
            assert ("Killed" in said, status) == ((True, 0) if relaxed else (False, 1))
        if not relaxed:
            await until(partial(nobody_is_registered, at))
            assert "Killed" in (await say("-kill"))[1]
        await until(partial(nobody_listens, at))  # they answer before they end
        assert "Cannot connect to local epmd" in "".join(map(str, await say("-names")))


async def nobody_is_registered(at: Both) -> bool:
    return not [name for port in (at.genuine, at.ours) for name in await client.names(EpmdAddress(port=port))]


async def nobody_listens(at: Both) -> bool:
    return is_free(at.genuine) and is_free(at.ours)


@pytest.mark.rule("EPMD: the embedded server serves erl_call")
async def test_erl_call_finds_nodes_through_ours(otp: Otp, tmp_path: Path) -> None:
    epmd = EpmdAddress(port=free_port())
    (tmp_path / ".erlang.cookie").write_text(COOKIE)
    (tmp_path / ".erlang.cookie").chmod(0o400)
    async with open_node("py@127.0.0.1", cookie=COOKIE, epmd=epmd, embedded_epmd=True):
        beam = await Beam.start_async(otp.root, "one@127.0.0.1", COOKIE, epmd.port)
        try:
            status, said, complaint = await run(
                otp, "erl_call", "-name", beam.name, "-a", "erlang node", port=epmd.port, home=tmp_path
            )
            assert (status, said.strip(), complaint) == (0, f"'{beam.name}'", "")
            assert (await run(otp, "erl_call", "-name", "two@127.0.0.1", "-a", "erlang node", port=epmd.port))[0] != 0
        finally:
            await trio.to_thread.run_sync(beam.close)


@pytest.mark.rule("EPMD: a BEAM registers again when the embedded server is back")
async def test_beams_come_back_to_ours(otp: Otp) -> None:
    """erl_epmd.erl tries every two seconds."""
    port = free_port()

    @asynccontextmanager
    async def serving() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(EpmdServer().serve, "127.0.0.1", port)
            yield
            nursery.cancel_scope.cancel()

    async def is_registered() -> bool:
        return [entry.name for entry in await client.names(EpmdAddress(port=port))] == ["one"]

    async with serving():
        beam = await Beam.start_async(otp.root, "one@127.0.0.1", COOKIE, port)
        assert await is_registered()
    try:
        creation = await beam.eval("erlang:system_info(creation)")
        async with serving():
            await until(is_registered)
            assert await beam.eval("erlang:system_info(creation)") == creation
    finally:
        await trio.to_thread.run_sync(beam.close)


# ------------------------------------------------------------------------------------------------------- the command


@pytest.mark.rule("EPMD: the command zenmon-node epmd serves genuine nodes and ends when it is killed")
async def test_the_command_serves_until_it_is_killed(otp: Otp, tmp_path: Path) -> None:
    port = free_port()
    command = Command(tmp_path, port, None)
    async with command.started("epmd") as server:
        await server.err.until(f"listening on 127.0.0.1:{port}")
        beam = await Beam.start_async(otp.root, "one@127.0.0.1", COOKIE, port)
        try:
            other = await Beam.start_async(otp.root, "two@127.0.0.1", COOKIE, port)
            try:
                assert await other.eval("net_adm:ping('one@127.0.0.1')") == Atom("pong")
                assert "name two at port" in (await command("names")).out
                assert (await run(otp, "epmd", "-kill", port=port))[0] == 1
                assert "name one at port" in (await run(otp, "epmd", "-names", port=port))[1]
            finally:
                await trio.to_thread.run_sync(other.close)
        finally:
            await trio.to_thread.run_sync(beam.close)

        async def killed() -> bool:
            return "Killed" in (await run(otp, "epmd", "-kill", port=port))[1]

        await until(killed)
        assert (await server.end()).status == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_ends_by_signals(otp: Otp, tmp_path: Path, number: signal.Signals) -> None:
    command = Command(tmp_path, free_port(), None)
    async with command.started("epmd", "--relaxed-command-check", "--address", "127.0.0.2") as server:
        assert "127.0.0.2:" in await server.err.until("listening on ")
        assert (await run(otp, "epmd", "-names", port=int(command.environment["ERL_EPMD_PORT"])))[0] == 0
        assert (await server.signal(number)).status == 0
