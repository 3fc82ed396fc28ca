"""Clusters of BEAMs, of several OTPs, and nodes of ours, over links that can be cut; what became of them is recorded.

A cluster has BEAMs ``b``, ``c``, ``d``... and newcomers: nodes of ours in one of the :data:`MODES`, or, to see what OTP
itself does, BEAMs in their place. Newcomers are called ``x``, and are the first then whom `global` asks for a lock, or
``a``, and are the last. Every BEAM writes down which nodes it loses and why. A scenario
(``partition_scenarios.py``) breaks something and says between which nodes connections may be lost by that; a
connection between two BEAMs that is lost besides was cut because of a newcomer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from typing import Final

import trio

from tests.interop.collectors import until
from tests.interop.cuttable import Network, open_network
from tests.interop.partition_members import BeamMember, Down, MatrixError, Member, Mode, OurMember, Pair, View

#: Seconds within which a cluster agrees: `global` goes through its locks for each node that joins, with pauses.
AGREEMENT_LIMIT_S: Final = 90.0
#: Seconds between two looks at a cluster.
LOOK_AGAIN_S: Final = 0.2
#: Seconds between two attempts to mend it.
MEND_AGAIN_S: Final = 1.0
#: Attempts after which `global` has had its time to connect the others, and to exchange names.
PATIENT_ROUNDS: Final = 10


class Cluster:
    """All nodes, and what each of them should see. Use :func:`open_cluster`."""

    def __init__(
        self, network: Network, mode: Mode, beams: Mapping[str, BeamMember], newcomers: Mapping[str, Member]
    ) -> None:
        self.network = network
        self.mode: Mode = mode
        self.beams = beams
        self.newcomers = newcomers
        self.members: dict[str, Member] = {**beams, **newcomers}
        self.taken_out = 0
        """How often `global` had to be helped."""

    # -------------------------------------------------------------------------------------------- what should be
    @property
    def in_mesh(self) -> bool:
        """Whether newcomers are members as BEAMs are: `global` connects them with everybody."""
        return self.mode in ("beam", "full")

    def should_be_connected(self, one: str, other: str) -> bool:
        return self.in_mesh or not (one in self.newcomers and other in self.newcomers)

    def expected_nodes(self, short: str, present: Iterable[str]) -> frozenset[str]:
        """Whom a node should have connections with while these are in the cluster."""
        return frozenset(other for other in present if other != short and self.should_be_connected(short, other))

    def expected_names(self, present: Iterable[str]) -> frozenset[str]:
        return frozenset(map(name_of, present))

    # ------------------------------------------------------------------------------------------------- life
    async def start(self, *shorts: str) -> None:
        """Start nodes, all at once. Each holds a name, and is connected with nobody.

        A newcomer beside the mesh has its name as soon as it is connected with a BEAM.
        """
        async with trio.open_nursery() as nursery:
            for short in shorts or self.members:
                nursery.start_soon(self._start, self.members[short])

    async def _start(self, member: Member) -> None:
        await member.start()
        await member.hold(name_of(member.short))

    async def join(self, *shorts: str) -> None:
        """Bring nodes in: one connection is enough where `global` makes the others, else one with each BEAM."""
        for short in shorts:
            peers = [beam for beam in self.beams if beam != short]
            if short in self.beams or self.in_mesh:
                peers = peers[:1]
            await self.members[short].join([self.members[peer].name for peer in peers])

    async def come_back(self, short: str) -> None:
        """Bring a node in again that was killed, or has left."""
        await self.start(short)
        await self.join(short)
        if short in self.beams and not self.in_mesh:
            for newcomer in self.newcomers.values():
                await newcomer.join([self.members[short].name])

    async def agree(
        self, *, absent: Iterable[str] = (), besides: Iterable[str] = (), mending: Sequence[str] = ()
    ) -> None:
        """Return when every node sees the same cluster: everybody but ``absent``, and all names.

        Args:
            absent: Nodes that are not there.
            besides: Names that are registered beside those of the nodes.
            mending: Victims of a fault that is over: connect what is not connected, as somebody who mends a cluster
                does; and take these out once more if `global` does not exchange its names with them.

        Raises:
            MatrixError: they do not agree in time.
        """
        gone = set(absent)
        present = [short for short in self.members if short not in gone]
        names = self.expected_names(present) | set(besides)
        views: dict[str, View] = {}
        idle_rounds = 0
        mended_at = trio.current_time()
        with trio.move_on_after(AGREEMENT_LIMIT_S):
            while True:
                views = {short: await self.members[short].view() for short in present}
                if self._is_agreement(views, names):
                    return
                if mending and trio.current_time() - mended_at >= MEND_AGAIN_S:
                    idle_rounds += 1
                    if await self._connect(views, all_pairs=idle_rounds == PATIENT_ROUNDS):
                        idle_rounds = 0
                    elif idle_rounds > PATIENT_ROUNDS:
                        await self._take_out(mending)
                        idle_rounds = 0
                    mended_at = trio.current_time()
                await trio.sleep(LOOK_AGAIN_S)
        seen = "\n".join(f"  {short}: {view}" for short, view in views.items())
        raise MatrixError(f"no agreement on {present} and {sorted(names)}:\n{seen}\n{self.logs()}")

    def _is_agreement(self, views: Mapping[str, View], names: frozenset[str]) -> bool:
        first = next(iter(views.values())).names
        return first.keys() == names and all(
            view.names == first
            and view.connected == view.told == self.expected_nodes(short, views)
            and view.hidden == self._expected_hidden(short, views)
            for short, view in views.items()
        )

    def _expected_hidden(self, short: str, present: Iterable[str]) -> frozenset[str]:
        if self.mode != "hidden" or short not in self.beams:
            return frozenset()
        return frozenset(other for other in present if other in self.newcomers)

    async def _connect(self, views: Mapping[str, View], *, all_pairs: bool) -> bool:
        """Connect members of the mesh with the first BEAM, or with all; newcomers beside the mesh with every BEAM.

        Returns:
            Whether anything was missing.
        """
        missing = [
            (later, earlier)
            for earlier, later in combinations(views, 2)
            if self.should_be_connected(earlier, later) and earlier not in views[later].connected
        ]
        hub = next(iter(self.beams))
        chosen = [
            pair for pair in missing if all_pairs or hub in pair or (pair[0] in self.newcomers and not self.in_mesh)
        ]
        for later, earlier in chosen:
            await self.members[later].join([self.members[earlier].name])
        return bool(chosen)

    async def _take_out(self, victims: Iterable[str]) -> None:
        """Have members leave the mesh; they are connected again with the next attempt.

        Two that could not reach each other when the rest told them of each other's names have dropped these. They keep
        each other for members; once there is a connection, they do not exchange names again.
        """
        for short in victims:
            if short in self.beams or self.in_mesh:
                self.taken_out += 1
                await self.members[short].disconnect()

    async def have_lost(self, lost: Iterable[Pair]) -> None:
        """Return when, of each of these pairs, every node that can say it has lost the other."""
        wanted = {(one, other) for pair in lost for one in pair for other in pair if one != other}
        with trio.move_on_after(AGREEMENT_LIMIT_S):
            while wanted:
                for short in {one for one, _other in wanted}:
                    view = await self.members[short].view()
                    connected = view.connected | view.told
                    wanted -= {pair for pair in wanted if pair[0] == short and pair[1] not in connected}
                await trio.sleep(LOOK_AGAIN_S)
            return
        raise MatrixError(f"still connected, as they see it: {sorted(wanted)}\n{self.logs()}")

    async def has_dropped(self, beam: str, newcomer: str) -> None:
        """Return when this BEAM does not know the name of a newcomer beside the mesh, and the other BEAMs do."""

        async def so() -> bool:
            name, views = name_of(newcomer), {short: await member.view() for short, member in self.beams.items()}
            return {short for short, view in views.items() if name not in view.names} == {beam}

        await until(so, AGREEMENT_LIMIT_S)

    async def sees(self, observer: str, node: str) -> None:
        """Return when ``observer`` is connected with ``node``."""

        async def so() -> bool:
            return node in (await self.members[observer].view()).told

        await until(so, AGREEMENT_LIMIT_S)

    async def take_downs(self) -> list[Down]:
        """What the BEAMs have lost since the last call. One that was killed has taken its reports along."""
        return [down for beam in self.beams.values() for down in await beam.downs()]

    def unexplained(self, downs: Iterable[Down], explained: Iterable[Pair]) -> list[Down]:
        """What is between two BEAMs (newcomers that are BEAMs are none of them) and not explained."""
        allowed = set(explained)
        return [down for down in downs if down.node in self.beams and down.pair not in allowed]

    def pairs_with(self, *shorts: str) -> list[Pair]:
        """All pairs that one of these is part of."""
        return [frozenset(pair) for pair in combinations(self.members, 2) if set(pair) & set(shorts)]

    def logs(self) -> str:
        return "\n".join(f"-- log of {short}\n{member.log[-3000:]}" for short, member in self.members.items())


def name_of(short: str) -> str:
    """The name that a node's process has in `global`."""
    return f"held_by_{short}"


@asynccontextmanager
async def open_cluster(
    roots: Sequence[Path],
    mode: Mode,
    ebin: Path,
    cookie: str,
    *,
    newcomers: Sequence[str] = ("x",),
    net_ticktime: int = 8,
    relayed: bool = True,
) -> AsyncIterator[Cluster]:
    """Nodes, started and in agreement, until the block ends.

    Args:
        roots: The OTP of each BEAM.
        mode: What the newcomers are.
        ebin: The compiled fixtures.
        cookie: The cluster's.
        newcomers: Their names; those that are BEAMs have the OTP of the last one.
        net_ticktime: Seconds after which silence is noticed.
        relayed: Whether links can be cut; measurements go without.
    """
    async with open_network(relayed=relayed) as network:
        beams = {
            short: BeamMember(short, root, cookie, await network.epmd_of(short), ebin, net_ticktime)
            for short, root in zip("bcdefg", roots, strict=False)
        }
        others: dict[str, Member] = {}
        for short in newcomers:
            port = await network.epmd_of(short)
            if mode == "beam":
                others[short] = BeamMember(short, roots[-1], cookie, port, ebin, net_ticktime)
            else:
                others[short] = OurMember(short, mode, cookie, port, net_ticktime)
        cluster = Cluster(network, mode, beams, others)
        try:
            await cluster.start()
            await cluster.join(*list(beams)[1:], *others)
            await cluster.agree(mending=list(cluster.members)[1:])
            await cluster.take_downs()
            yield cluster
        finally:
            with trio.CancelScope(shield=True):
                for member in cluster.members.values():
                    await member.close()
