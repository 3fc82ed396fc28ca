"""``wire/unlink.py``: the table of the manual's Link Protocol, and two sides against each other."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from erlang_interop.wire.unlink import Link, LinkState, UnlinkIds


def test_ids_begin_at_one_and_never_are_zero() -> None:
    ids = UnlinkIds()
    assert [ids.next() for _ in range(3)] == [1, 2, 3]
    ids = UnlinkIds(2**64 - 2)
    assert [ids.next(), ids.next()] == [2**64 - 1, 1]


def test_unlink_is_sent_once_and_the_ack_ends_it() -> None:
    link, ids = Link(), UnlinkIds()
    assert link.active
    assert link.link() is False, "linked already"
    assert link.unlink(ids) == 1
    assert not link.active
    assert link.unlink(ids) == 0, "unlinked already"
    link.ack_received(2)
    assert link.state.name == "UNLINKING", "somebody else's ack"
    link.ack_received(1)
    assert link.state.name == "GONE"


def test_link_overtakes_an_outstanding_unlink() -> None:
    link, ids = Link(), UnlinkIds()
    first = link.unlink(ids)
    assert link.link() is True
    assert link.active
    link.ack_received(first)
    assert link.active, "the late ack of the unlink that was overtaken"
    assert link.unlink(ids) == 2


def test_a_link_received_while_unlinking_does_not_activate() -> None:
    link, ids = Link(), UnlinkIds()
    link.unlink(ids)
    link.link_received()
    assert link.state is LinkState.UNLINKING


def test_unlink_received() -> None:
    link, ids = Link(), UnlinkIds()
    link.unlink(ids)
    link.unlink_received()
    assert link.state is LinkState.UNLINKING, "both unlinked at once: our ack is still to come"
    link = Link()
    link.unlink_received()
    assert link.state is LinkState.GONE


def test_exit_counts_only_on_an_active_link() -> None:
    link = Link()
    assert link.exit_received() is True
    assert link.state is LinkState.GONE
    link, ids = Link(), UnlinkIds()
    link.unlink(ids)
    assert link.exit_received() is False
    assert link.state is LinkState.GONE


class Side:
    """One process with its knowledge of the link, and the ordered channel to the other."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.ids = UnlinkIds()
        self.out: deque[tuple[str, int]] = deque()

    def forget(self) -> None:
        if self.link is not None and self.link.state is LinkState.GONE:
            self.link = None

    def call_link(self) -> None:
        if self.link is None:
            self.link = Link()
            self.out.append(("link", 0))
        elif self.link.link():
            self.out.append(("link", 0))

    def call_unlink(self) -> None:
        if self.link is not None and (unlink_id := self.link.unlink(self.ids)):
            self.out.append(("unlink", unlink_id))

    def receive(self, signal: tuple[str, int]) -> None:
        word, unlink_id = signal
        if word == "link":
            if self.link is None:
                self.link = Link()
            else:
                self.link.link_received()
        elif word == "unlink":
            if self.link is not None:
                self.link.unlink_received()
            self.out.append(("ack", unlink_id))
        elif self.link is not None:
            self.link.ack_received(unlink_id)
        self.forget()


@given(st.lists(st.sampled_from(["link a", "link b", "unlink a", "unlink b", "a to b", "b to a"]), max_size=60))
def test_both_sides_agree_in_the_end(steps: list[str]) -> None:
    a, b = Side(), Side()
    for step in steps:
        if step.startswith("link"):
            (a if step.endswith("a") else b).call_link()
        elif step.startswith("unlink"):
            (a if step.endswith("a") else b).call_unlink()
        elif step == "a to b" and a.out:
            b.receive(a.out.popleft())
        elif step == "b to a" and b.out:
            a.receive(b.out.popleft())
    while a.out or b.out:
        if a.out:
            b.receive(a.out.popleft())
        if b.out:
            a.receive(b.out.popleft())
    assert (a.link is not None and a.link.active) == (b.link is not None and b.link.active)
    assert a.link is None or a.link.active, "nothing is left unlinking"
