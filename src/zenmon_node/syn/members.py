"""The groups of a scope, as a program uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio

from erlang_interop.runtime.signals import atom_of

from ..pacing import SLICE
from . import messages as m
from .asking import TIMEOUT, Asking, carried_term, metadata, new_meta
from .errors import refusal
from .multi_call import Replies, multi_call
from .pg import Groups, Member

if TYPE_CHECKING:
    from erlang_interop import Atom, LocalProcess, Pid, Term

    from .asking import Update
    from .server import ScopeServer


class Members(Asking):
    """The half of a ``Scope`` that is its groups."""

    _members: ScopeServer

    async def join(
        self,
        group: Term,
        pid: Pid,
        meta: Term = m.UNDEFINED,
        *,
        timeout: float = TIMEOUT,
        caller: LocalProcess | None = None,
    ) -> None:
        """``syn:join/3,4``: put a process into a group, or give it new metadata there. It is a member once.

        Args:
            group: Any term. It is there as long as it has members.
            pid: A process of this node, or of any other in the scope; its own node decides.
            meta: Goes with the membership to all nodes; Atom("undefined") without it.
            timeout: Seconds that the node of the process may take.
            caller: In a strict scope: the process that calls.

        Raises:
            NotAlive: the process has ended.
            NotSelf: the scope is strict, and ``caller`` is not this process.
        """
        self._require_self(pid, caller)
        group = carried_term(group)
        reply = await self._ask(self._members, pid, m.PG.ask_put(self.node.name, group, pid, metadata(meta)), timeout)
        new_meta(reply, "join", group, pid, where="pg")

    async def leave(self, group: Term, pid: Pid, *, timeout: float = TIMEOUT) -> None:
        """``syn:leave/3``: take a process out of a group.

        Raises:
            NotInGroup: it is no member.
        """
        group = carried_term(group)
        reply = await self._ask(self._members, pid, m.PG.ask_remove(self.node.name, group, pid), timeout)
        if reply[0] != m.OK:
            raise refusal(reply, "leave", group, pid, "pg")

    async def update_member(
        self, group: Term, pid: Pid, fun: Update, *, timeout: float = TIMEOUT, caller: LocalProcess | None = None
    ) -> Member:
        """``syn:update_member/4``: make new metadata of those that a member has, where nothing can come between.

        Args:
            group: A group.
            pid: A member of it.
            fun: ``fun(meta)`` returns the new metadata; for the rest see :meth:`update_registry`.
            timeout: Seconds that the node of the process may take.
            caller: In a strict scope: the process that calls.

        Returns:
            The member with its metadata now.

        Raises:
            NotInGroup: it is no member (``undefined`` in syn).
            NotAlive, NotSelf, TypeError, RemoteException, Exception: as :meth:`update_registry`.
        """
        self._require_self(pid, caller)
        group = carried_term(group)
        run = self._function(pid, fun)
        reply = await self._ask(self._members, pid, m.PG.ask_put(self.node.name, group, pid, run.sent), timeout)
        return Member(pid, new_meta(reply, "update", group, pid, where="pg", run=run))

    def members(self, group: Term) -> list[Member]:
        """``syn:members/2``: the members on all nodes, in the order of their pids; empty for a group that is none."""
        return self._groups.members(carried_term(group)).copy()

    def local_members(self, group: Term) -> list[Member]:
        """``syn:local_members/2``: the members on this node, in the order of their pids."""
        here = self.node.name
        return [member for member in self._groups.members(carried_term(group)) if member.pid.node == here]

    def member(self, group: Term, pid: Pid) -> Member | None:
        """``syn:member/3``: a member with its metadata; None for ``undefined``."""
        entry = self._groups.member(carried_term(group), pid)
        return None if entry is None else Member(entry.pid, entry.meta)

    def is_member(self, group: Term, pid: Pid) -> bool:
        """``syn:is_member/3``."""
        return self._groups.member(carried_term(group), pid) is not None

    def is_local_member(self, group: Term, pid: Pid) -> bool:
        """``syn:is_local_member/3``: whether it is a member, and of this node."""
        return pid.node == self.node.name and self.is_member(group, pid)

    def member_count(self, group: Term, node: Atom | str | None = None) -> int:
        """``syn:member_count/2,3``: how many members a group has, or has on ``node``."""
        return self._groups.member_count(carried_term(group), None if node is None else atom_of(node))

    def local_member_count(self, group: Term) -> int:
        """``syn:local_member_count/2``: how many members a group has on this node."""
        return self.member_count(group, self.node.name)

    def group_names(self, node: Atom | str | None = None) -> list[Any]:
        """``syn:group_names/1,2``: the groups that have members, or members on ``node``, in Erlang's order of terms."""
        return self._groups.names(None if node is None else atom_of(node))

    def local_group_names(self) -> list[Any]:
        """``syn:local_group_names/1``: the groups that have members on this node."""
        return self._groups.names(self.node.name)

    def group_count(self, node: Atom | str | None = None) -> int:
        """``syn:group_count/1,2``: how many groups have members, or members on ``node``."""
        return self._groups.count(None if node is None else atom_of(node))

    def local_group_count(self) -> int:
        """``syn:local_group_count/1``: how many groups have members on this node."""
        return self._groups.count(self.node.name)

    # -- messages to members

    async def publish(self, group: Term, message: Term) -> int:
        """``syn:publish/3``: send a message to all members of a group, as it is.

        Returns:
            How many members there are, 0 for a group that is none.

        Raises:
            EncodeError: no external term can carry the message, and a member is on another node.
        """
        return await self._publish(self.members(group), message)

    async def local_publish(self, group: Term, message: Term) -> int:
        """``syn:local_publish/3``: as :meth:`publish`, to the members on this node."""
        return await self._publish(self.local_members(group), message)

    async def _publish(self, members: list[Member], message: Term) -> int:
        for done, member in enumerate(members, start=1):
            sending = self.node.send(member.pid, message)
            if done % SLICE == 0:
                await sending  # where a peer takes no more for now, and for the others' turn
        await trio.lowlevel.checkpoint()
        return len(members)

    async def multi_call(self, group: Term, message: Term, timeout: float = TIMEOUT) -> Replies:
        """``syn:multi_call/3,4``: ask all members of a group at once, and wait for their answers.

        A member receives ``(Atom("syn_multi_call"), message, caller, meta)``, with the metadata that it has in the
        group, and answers with :func:`multi_call_reply`.

        Args:
            group: A group; of one that is none nobody is asked.
            message: Any term.
            timeout: Seconds that all of them have.

        Returns:
            ``replies``, a list of ``(member, reply)``, and ``bad``, the members that did not answer: they have ended,
            or were not in time.
        """
        return await multi_call(self.node, self.members(group), message, timeout)

    @property
    def _groups(self) -> Groups:
        self._require_open()
        return cast(Groups, self._members.service)
