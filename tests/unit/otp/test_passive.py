"""What a visible node says to the ``global`` of others; in ``interop/test_global.py`` a BEAM listens."""

from __future__ import annotations

import pytest
import trio

from erlang_interop.otp.gen import GEN_CAST
from erlang_interop.otp.passive import GLOBAL_NAME_SERVER, IN_SYNC
from erlang_interop.testing.cluster import open_cluster


async def test_both_visible_nodes_of_a_connection_say_so() -> None:
    async with open_cluster("a@test", "b@test", visible=True) as (a, b):
        async with a.open_process(name=GLOBAL_NAME_SERVER) as at_a, b.open_process(name=GLOBAL_NAME_SERVER) as at_b:
            await a.connect(b.name)
            assert await at_a.receive() == (GEN_CAST, (IN_SYNC, b.name, True))
            assert await at_b.receive() == (GEN_CAST, (IN_SYNC, a.name, True))


async def test_hidden_nodes_say_nothing() -> None:
    async with open_cluster("a@test", "b@test") as (a, b), b.open_process(name=GLOBAL_NAME_SERVER) as at_b:
        await a.connect(b.name)
        assert await a.ping(b.name)  # and its answer: all that went before it has arrived
        with pytest.raises(trio.WouldBlock):
            at_b.receive_nowait()
