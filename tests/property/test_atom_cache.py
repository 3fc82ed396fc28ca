"""Whatever atoms go through a connection, and however often the slots of its cache are taken over, they arrive."""

from __future__ import annotations

import random

import pytest

from erlang_interop.flags import OFFERED
from erlang_interop.terms import Atom, Pid
from erlang_interop.wire.channel import DistChannel
from erlang_interop.wire.control import BY_OP, Op

HERE, THERE = Atom("a@host"), Atom("b@host")
FROM, TO = Pid(HERE, 1, 0, 7), Pid(THERE, 2, 0, 8)


@pytest.mark.parametrize("each", [1, 3, 10, 20, 100, 300])
@pytest.mark.parametrize("variety", [30, 2_040, 3_000, 20_000])
def test_atoms_survive_the_taking_over_of_slots(each: int, variety: int) -> None:
    row = BY_OP[Op.SEND_SENDER]
    assert row is not None
    control = row.pack(FROM, TO)
    chance = random.Random(each * variety)
    sender, receiver = DistChannel(OFFERED, peer=THERE.name), DistChannel(OFFERED, peer=HERE.name)
    messages = [
        [Atom(f"atom_{chance.randrange(variety)}") for _ in range(chance.randint(1, each))]
        for _ in range(10_000 // each)
    ]
    for message in messages:
        sender.send(control, message)
    assert receiver.receive_data(sender.data_to_send()) == [(control, message) for message in messages]
    assert receiver.failure is None
