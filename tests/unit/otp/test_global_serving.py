"""A node of ours that takes no part in ``global`` goes through one that does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from erlang_interop import Atom, BadRpc, EpmdAddress, GlobalNameTaken, Node, open_node
from erlang_interop.otp._global_calls import Holder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

YES, NO = Atom("yes"), Atom("no")


@pytest.fixture
async def full(one_node: Node, epmd_address: EpmdAddress) -> AsyncIterator[Node]:
    """A node that takes part, and is connected to a hidden one."""
    async with open_node("full@127.0.0.1", cookie="secret", epmd=epmd_address, visible="full") as full:
        await one_node.connect(full.name)
        yield full


async def test_a_hidden_node_has_names_and_locks_through_it(one_node: Node, full: Node) -> None:
    names, pid = one_node.global_names, one_node.start_inline(Holder())
    await names.register("ours", pid)
    assert await full.global_names.whereis("ours") == await names.whereis("ours") == pid
    with pytest.raises(GlobalNameTaken):
        await names.register("ours", one_node.start_inline(Holder()))
    theirs = full.start_inline(Holder())
    await names.register("theirs", theirs)
    assert sorted(name.name for name in await names.registered_names()) == ["ours", "theirs"]
    with pytest.raises(GlobalNameTaken):
        await names.register("second", theirs)
    await names.register("second", pid)
    await names.re_register("ours", theirs)
    assert await names.whereis("ours") == theirs
    await names.unregister("ours")
    assert await names.whereis("ours") is None
    await names.sync()
    assert await names.set_lock(("resource", pid))
    assert full.global_server is not None
    assert [lock.holders for lock in full.global_server.locks.held] == [(pid,)]
    await names.del_lock(("resource", pid))
    assert full.global_server.locks.held == []


async def test_as_erlang_calls_it(one_node: Node, full: Node) -> None:
    async def called(function: str, *arguments: object) -> object:
        return await one_node.rpc(full.name, "global", function, arguments)

    name, pid = Atom("name"), one_node.start_inline(Holder())
    assert await called("register_name_external", name, pid) == YES
    assert await called("register_name", name, pid) == NO
    assert await called("re_register_name", name, pid) == YES
    assert await called("unregister_name_external", name) == Atom("ok")
    assert await called("whereis_name", name) == Atom("undefined")
    for function in ("register_name_external", "register_name", "re_register_name"):
        with pytest.raises(BadRpc, match="is no pid"):
            await called(function, name, b"nobody")
    assert await called("registered_names") == []
