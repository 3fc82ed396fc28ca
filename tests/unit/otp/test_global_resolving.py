"""What this node answers when it is asked who keeps a name; BEAMs ask in tests/interop/test_global_names.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from erlang_interop import Atom, BadRpc, Exit, Export, Pid, Throw
from erlang_interop.otp._global_calls import Holder
from erlang_interop.otp._global_resolving import Resolving

if TYPE_CHECKING:
    from erlang_interop import Node, Term

NAME = Atom("name")


def keep_second(_name: Term, _pid: Pid, pid2: Pid) -> Pid:
    return pid2


async def keep_nobody(_name: Term, _pid: Pid, _pid2: Pid) -> None:
    return None


def throw_first(_name: Term, pid: Pid, _pid2: Pid) -> None:
    raise Throw(pid)


def end_it(_name: Term, _pid: Pid, _pid2: Pid) -> None:
    raise Exit(Atom("bye"))


def one_argument(name: Term) -> Term:
    return name


class Meeting:
    """Two nodes; the second one asks the first one about two processes, one on each."""

    def __init__(self, one: Node, two: Node) -> None:
        self.one, self.two = one, two
        self.resolving = Resolving(one)
        self.here, self.there = one.start_inline(Holder()), two.start_inline(Holder())

    async def resolve(self, method: Term, *pids: Pid) -> Any:
        arguments = [method, NAME, *(pids or (self.there, self.here))]
        return await self.two.rpc(self.one.name, "global", "resolve_it", arguments)


@pytest.fixture
async def meeting(two_nodes: tuple[Node, Node]) -> Meeting:
    one, two = two_nodes
    await one.connect(two.name)
    return Meeting(one, two)


async def test_functions_of_python(meeting: Meeting) -> None:
    def method(function: Any) -> Export:
        return meeting.resolving.method_of(function, here=True)

    assert method(keep_second) == Export(Atom(__name__), Atom("keep_second"), 3)
    assert await meeting.resolve(method(keep_second)) == meeting.here
    assert await meeting.resolve(method(keep_nobody)) == Atom("none")
    assert await meeting.resolve(method(throw_first)) == meeting.there
    with pytest.raises(BadRpc, match=r"\{'EXIT',bye\}"):
        await meeting.resolve(method(end_it))
    assert await meeting.resolve(method(lambda _name, pid, _pid2: pid)) == meeting.there


async def test_methods_that_cannot_be_called_fail(meeting: Meeting) -> None:
    """The node that asks takes this for a method that has failed, as that of a process that is gone."""
    with pytest.raises(BadRpc, match=r"\{'EXIT',undef\}"):
        await meeting.resolve(Export(Atom("nothing"), Atom("known"), 3))
    with pytest.raises(BadRpc, match=r"\{'EXIT',\{badfun,<<\"no fun\">>\}\}"):
        await meeting.resolve(b"no fun")
    with pytest.raises(BadRpc, match="undef"):
        await meeting.two.rpc(meeting.one.name, "global", "resolve_it", [1])


async def test_globals_own_end_one(meeting: Meeting) -> None:
    method = meeting.resolving.method_of("random_exit_name", here=False)
    assert method == Export(Atom("global"), Atom("random_exit_name"), 3)
    # one@ is before two@ whichever comes first, so that both sides keep the same one
    assert await meeting.resolve(method) == meeting.here
    async with meeting.two.open_process() as watching:
        ref = watching.monitor(meeting.there)
        assert await watching.receive(timeout=30) == (
            Atom("DOWN"),
            ref,
            Atom("process"),
            meeting.there,
            Atom("noproc"),
        )
    assert await meeting.resolve(method, meeting.here, meeting.two.start_inline(Holder())) == meeting.here
    assert meeting.one.is_alive(meeting.here)


async def test_globals_own_tell_one_or_both(meeting: Meeting) -> None:
    conflict = Atom("global_name_conflict")
    async with meeting.one.open_process() as here, meeting.two.open_process() as there:
        notify = meeting.resolving.method_of("random_notify_name", here=True)
        assert await meeting.resolve(notify, there.pid, here.pid) == here.pid
        assert await there.receive(timeout=30) == (conflict, NAME)
        both = meeting.resolving.method_of("notify_all_name", here=True)
        assert await meeting.resolve(both, there.pid, here.pid) == Atom("none")
        assert await there.receive(timeout=30) == (conflict, NAME, here.pid)
        assert await here.receive(timeout=30) == (conflict, NAME, there.pid)


async def test_what_is_no_method(meeting: Meeting) -> None:
    method_of = meeting.resolving.method_of
    with pytest.raises(ValueError, match=r"'toss_a_coin' is no way to resolve .* random_exit_name, random_notify_name"):
        method_of("toss_a_coin", here=True)
    with pytest.raises(ValueError, match="is to take three arguments"):
        method_of(one_argument, here=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot resolve for a process of another node"):
        method_of(keep_second, here=False)
