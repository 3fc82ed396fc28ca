from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from erlang_interop import (
    Atom,
    BadName,
    CallTimeout,
    CookieMissing,
    EpmdAddress,
    EpmdUnavailable,
    GenServer,
    NameTaken,
    Node,
    open_node,
)
from erlang_interop.otp.node import find_cookie
from tests.servers import Calculator

if TYPE_CHECKING:
    from pathlib import Path

    from erlang_interop import From, Term


async def test_ping(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    assert await one.ping("two@127.0.0.1") is True
    assert one.nodes("hidden") == [two.name]
    assert await two.ping(one.name) is True
    assert await one.ping(one.name) is True
    assert await one.ping("nobody@127.0.0.1") is False
    with pytest.raises(BadName):
        await one.ping("nobody")


@pytest.mark.parametrize("answer", ["no process", "another answer", "no answer"])
async def test_a_pang_leaves_no_connection(two_nodes: tuple[Node, Node], answer: str) -> None:
    one, two = two_nodes

    class Odd(GenServer):
        async def handle_call(self, request: Term, from_: From) -> Any:
            if answer == "no answer":
                await trio.sleep_forever()
            return Atom("no")

    await one.connect(two.name)
    two.unregister("net_kernel")
    if answer != "no process":
        await Odd.start(two, name="net_kernel")
    assert await one.ping(two.name, timeout=0.05 if answer == "no answer" else None) is False
    assert one.nodes("connected") == []


async def test_call_and_cast(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    await Calculator.start(two, name="calc")
    one.cast(("calc", "two@127.0.0.1"), (Atom("store"), 1))
    assert await one.call(("calc", "two@127.0.0.1"), Atom("seen")) == [1]
    with pytest.raises(CallTimeout):
        await one.call(("calc", "two@127.0.0.1"), Atom("keep"), timeout=0.01)


async def test_hidden_unless_it_is_to_be_visible(one_node: Node, epmd_address: EpmdAddress) -> None:
    async with open_node("seen@127.0.0.1", cookie="secret", epmd=epmd_address, visible="passive") as seen:
        await one_node.connect(seen.name)
        assert one_node.nodes("visible") == [seen.name]
        assert seen.nodes("hidden") == [one_node.name]
    assert (one_node.visible, seen.visible, seen.global_server) == (False, True, None)


async def test_a_full_node_takes_part_in_global_before_anybody_can_connect(epmd_address: EpmdAddress) -> None:
    async with open_node(
        "full@127.0.0.1", cookie="secret", epmd=epmd_address, embedded_epmd=True, visible="full"
    ) as full:
        assert full.visible
        assert full.global_server is not None
        assert full.whereis("global_name_server") == full.global_server.process.pid


@pytest.mark.parametrize("visible", ["half", True, None])
async def test_there_are_three_ways_to_be_visible(epmd_address: EpmdAddress, visible: Any) -> None:
    with pytest.raises(ValueError, match=r"'passive'.*'full'"):
        async with open_node("x@127.0.0.1", cookie="x", visible=visible, epmd=epmd_address, embedded_epmd=True):
            pass


async def test_names_that_cannot_be_had(one_node: Node, epmd_address: EpmdAddress) -> None:
    with pytest.raises(NameTaken, match="one"):
        async with open_node("one@127.0.0.1", cookie="secret", epmd=epmd_address):
            pass
    with pytest.raises(BadName, match="name@host"):
        async with open_node("one", cookie="secret", epmd=epmd_address):
            pass


async def test_without_an_epmd(epmd_address: EpmdAddress) -> None:
    with pytest.raises(EpmdUnavailable, match="embedded_epmd=True"):
        async with open_node("one@127.0.0.1", cookie="secret", epmd=epmd_address):
            pass


async def test_an_error_of_the_block_comes_out_as_it_is(epmd_address: EpmdAddress) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with open_node("one@127.0.0.1", cookie="secret", epmd=epmd_address, embedded_epmd=True):
            raise LookupError("mine")


class TestCookie:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("ZENMON_COOKIE", raising=False)
        return tmp_path

    async def test_from_the_environment_first(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (home / ".erlang.cookie").write_text("OFTHEFILE")
        monkeypatch.setenv("ZENMON_COOKIE", "OFTHEENVIRONMENT")
        assert find_cookie() == "OFTHEENVIRONMENT"

    @pytest.mark.parametrize("text", ["OFTHEFILE", "OFTHEFILE\n", "OFTHEFILE\r\n", " OFTHEFILE \nrest"])
    async def test_from_the_file(self, home: Path, text: str) -> None:
        (home / ".erlang.cookie").write_bytes(text.encode())
        assert find_cookie() == "OFTHEFILE"

    async def test_none_at_all(self, home: Path, epmd_address: EpmdAddress) -> None:
        with pytest.raises(CookieMissing, match=r"pass cookie=, set ZENMON_COOKIE, or put .*\.erlang\.cookie"):
            async with open_node("one@127.0.0.1", epmd=epmd_address, embedded_epmd=True):
                pass
        (home / ".erlang.cookie").write_text("\n")
        with pytest.raises(CookieMissing, match="is empty"):
            find_cookie()

    async def test_one_that_cannot_be_read(self, home: Path) -> None:
        (home / ".erlang.cookie").mkdir()
        with pytest.raises(CookieMissing, match="cannot be read"):
            find_cookie()

    async def test_it_is_what_the_node_uses_and_never_shows(
        self, home: Path, one_node: Node, epmd_address: EpmdAddress
    ) -> None:
        (home / ".erlang.cookie").write_text("secret\n")
        async with open_node("two@127.0.0.1", epmd=epmd_address) as two:
            assert await two.ping(one_node.name)
            assert "secret" not in repr(two)
            assert not any("secret" in repr(info) for info in two.connections)
