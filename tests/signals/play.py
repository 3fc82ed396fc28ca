"""Scripts of commands, played on two sides and on the model at once, and compared after every step."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from hypothesis import strategies as st

from tests.signals.model import SIDES, Key, Model, Signal, other

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.signals.sides import Registry, Side

#: Processes that a side has at the start, and at most.
AT_START, AT_MOST = 2, 4
_MONITOR_MODES = (None, "explicit_unalias", "demonitor", "reply_demonitor")
_ALIAS_MODES = ("explicit_unalias", "reply")

#: Commands and how often each is drawn.
_WEIGHTS = {
    "link": 9,
    "unlink": 9,
    "trap": 2,
    "monitor": 5,
    "monitor_name": 2,
    "demonitor": 5,
    "alias": 2,
    "unalias": 2,
    "send": 3,
    "send_name": 2,
    "send_alias": 5,
    "exit": 3,
    "register": 2,
    "unregister": 1,
    "end": 3,
    "spawn": 1,
    "deliver": 14,
    "cut": 1,
    "disconnect": 1,
}
Command = tuple[str, int, int, int]


#: What reaches each crossing in the fewest steps. The first number says who: 0 is a0, 2 is b0;
#: "deliver 0" lets one frame cross from a to b, "deliver 1" from b to a.
SHORTEST: dict[str, str] = {
    "unlink crosses unlink": "link 0, deliver 0, unlink 0, unlink 2, deliver 0, deliver 1",
    "unlink crosses exit": "link 0, deliver 0, unlink 0, end 2, deliver 1",
    "unlink crosses the end": "link 0, deliver 0, unlink 0, end 2, deliver 0",
    "link crosses unlink": "link 0, unlink 0, link 2, deliver 1",
    "link crosses link": "link 0, link 2, deliver 0, deliver 1",
    "link crosses the end": "link 0, end 2, deliver 0",
    "link again before the acknowledgement": "link 0, unlink 0, link 0",
    "unlink, link, unlink before the first acknowledgement": "link 0, unlink 0, link 0, unlink 0",
    "demonitor crosses DOWN": "monitor 0, deliver 0, end 2, demonitor 0, deliver 1",
    "DOWN crosses demonitor": "monitor 0, deliver 0, end 2, demonitor 0, deliver 0",
    "monitor crosses the end": "monitor 0, end 2, deliver 0",
    "exit/2 crosses the end": "exit 0, end 2, deliver 0",
    "message crosses the end": "send 0 2, end 2, deliver 0",
    "message crosses unalias": "alias 2, send_alias 0, unalias 0, deliver 0",
    "second message to an alias of one": "alias 2 1, send_alias 0, send_alias 0, deliver 0, deliver 0",
    "cut with signals under way": "link 0, cut",
    "cut before the acknowledgement of an unlink": "link 0, deliver 0, unlink 0, cut",
    "connected anew while the other side has not noticed": "disconnect 0, link 0",
}

#: What went wrong once.
ONCE_WRONG = (
    "monitor 1 5 1, send_alias 0",  # who monitored himself had an alias of it, which on a BEAM he has not
    # The exit that one link brings when its connection is replaced went out, for the other link, over the new one.
    "link 2, link 2 5, disconnect 0, link 0",
)


def parse(text: str) -> list[Command]:
    """A script of :data:`SHORTEST`, whose missing numbers are 0."""
    steps = [[*step.split(), "0", "0", "0"] for step in text.split(", ")]
    return [(step[0], int(step[1]), int(step[2]), int(step[3])) for step in steps]


def scripts(longest: int, *, without: tuple[str, ...] = ()) -> st.SearchStrategy[list[Command]]:
    """Lists of commands; the three numbers choose among whatever there is when the command's turn comes."""
    names = ["nothing"]  # what others are reduced to when a failure is made small
    names += [name for name, weight in _WEIGHTS.items() if name not in without for _ in range(weight)]
    small = st.integers(0, 7)
    return st.lists(st.tuples(st.sampled_from(names), small, small, small), min_size=longest // 4, max_size=longest)


class World(Protocol):
    """Two sides and the connection between them."""

    registry: Registry

    @property
    def sides(self) -> Mapping[str, Side]: ...

    async def settle(self) -> None:
        """Return when both sides have done what follows from the last step."""

    async def signals(self, side: str, count: int) -> list[Signal]:
        """What ``side`` sent since the last look: ``count`` signals are awaited, more are found if they are there."""

    async def deliver(self, side: str) -> None:
        """Let the oldest frame that ``side`` sent cross."""

    async def cut(self) -> None: ...
    async def disconnect(self, side: str) -> None: ...
    async def look(self, side: str, expected: dict[Key, Any]) -> dict[Key, Any]:
        """What ``look()`` of the side finds, as soon as it is ``expected``, or at last."""


class Player:
    """Plays scripts. ``reached`` counts the crossings of the model."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.model = Model()
        self.story: list[str] = []
        self._refs: list[int] = []
        self._messages = 0

    async def play(self, script: list[Command]) -> Counter[str]:
        """Play a script, deliver all that is left, end all processes, and look at what remains."""
        try:
            for side in SIDES:
                for _ in range(AT_START):
                    await self._spawn(side)
            for name, i, j, k in script:
                await getattr(self, f"_do_{name}")(i, j, k)
            await self._deliver_all()
            self._check_symmetry()
            for proc in list(self.model.procs.values()):
                if proc.alive:
                    await self._end(proc.key, "normal")
            await self._deliver_all()
        except BaseException as error:
            error.add_note("what was done:\n  " + "\n  ".join(self.story))
            raise
        assert not self.model.watchers
        assert not self.model.aliases
        return self.model.crossed

    # ------------------------------------------------------------------------------------------------ one step

    async def _step(self, *words: Any) -> None:
        """The model has done its part, the world was told to: wait for that, and compare."""
        self.story.append(" ".join(str(word) for word in words))
        model, world = self.model, self.world
        model.settle()
        await world.settle()
        for side in SIDES:
            expected, model.sent[side] = model.sent[side], []
            self._adopt(side, expected, await world.signals(side, len(expected)))
        for side in SIDES:
            states = {proc.key: self._state(proc.key) for proc in model.procs.values() if proc.key[0] == side}
            expected_states = {key: state for key, state in states.items() if model.procs[key].alive}
            seen = await world.look(side, expected_states)
            assert seen == expected_states, f"side {side}: {seen} instead of {expected_states}"

    def _adopt(self, side: str, expected: list[Signal], seen: list[Signal]) -> None:
        """What was sent must be what the model says; among signals of one step the order is the sender's choice."""
        unlinks = self.world.registry.unlinks
        signals: list[Signal] = []
        for signal in seen:
            if signal[0] == "UNLINK_ID":
                _, unlink_id, me, you = signal
                number = next((known[1] for known in expected if known[0] == signal[0] and known[2:] == (me, you)), -1)
                unlinks[me, you, unlink_id] = number
                signal = ("UNLINK_ID", number, me, you)
            elif signal[0] == "UNLINK_ID_ACK":
                _, unlink_id, me, you = signal
                signal = ("UNLINK_ID_ACK", unlinks[you, me, unlink_id], me, you)
            signals.append(signal)
        assert Counter(signals) == Counter(expected), f"side {side} sent {signals} instead of {expected}"
        queue = self.model.queue[side]
        for _ in expected:
            queue.pop()
        queue.extend(signals)

    def _state(self, key: Key) -> dict[str, Any]:
        proc = self.model.procs[key]
        return {
            "inbox": sorted(proc.inbox, key=repr),
            "links": sorted(you for you, unlinking in proc.links.items() if unlinking is None),
            "monitors": len(proc.monitors),
            "watchers": sum(watched == key for watched, _, _ in self.model.watchers.values()),
        }

    def _check_symmetry(self) -> None:
        """Nothing is under way: who is linked to somebody has him linked as well."""
        procs = self.model.procs
        for proc in procs.values():
            for you in proc.links:
                assert proc.links[you] is None, f"{proc.key} waits for the acknowledgement of its unlink from {you}"
                assert proc.key in procs[you].links, f"{proc.key} is linked to {you}, who is not"

    async def _deliver_all(self) -> None:
        while any(self.model.queue.values()):
            for side in SIDES:
                for _ in range(len(self.model.queue[side])):
                    if self.model.queue[side]:
                        await self._deliver(side)

    # ------------------------------------------------------------------------------------------------ choices

    def _living(self, i: int) -> Key | None:
        living = [proc.key for proc in self.model.procs.values() if proc.alive]
        return living[i % len(living)] if living else None

    def _any(self, i: int) -> Key:
        known = list(self.model.procs)
        return known[i % len(known)]

    def _partner(self, me: Key, j: int) -> Key:
        """Mostly the one on the other side that is chosen by others like it: two who deal much cross each other."""
        opposite = [key for key in self.model.procs if key[0] != me[0]]
        return opposite[me[1] % len(opposite)] if j < 5 else self._any(j)

    # ------------------------------------------------------------------------------------------------ commands

    async def _spawn(self, side: str) -> None:
        key = self.model.spawn(side)
        self.world.registry.add_pid(key, await self.world.sides[side].spawn(key))
        await self._step("spawn", key)

    async def _do_nothing(self, i: int, j: int, k: int) -> None:
        pass

    async def _do_spawn(self, i: int, j: int, k: int) -> None:
        side = SIDES[i % 2]
        if sum(1 for key in self.model.procs if key[0] == side) < AT_MOST:
            await self._spawn(side)

    async def _do_link(self, i: int, j: int, k: int) -> None:
        me = self._living(i)
        if me is not None:
            you = self._partner(me, j)
            self.model.link(me, you)
            await self.world.sides[me[0]].link(me, self.world.registry.pids[you])
            await self._step(me, "links", you)

    async def _do_unlink(self, i: int, j: int, k: int) -> None:
        me = self._living(i)
        if me is None:
            return
        links = list(self.model.procs[me].links)
        you = links[j % len(links)] if links else self._partner(me, j)
        self.model.unlink(me, you)
        await self.world.sides[me[0]].unlink(me, self.world.registry.pids[you])
        await self._step(me, "unlinks", you)

    async def _do_trap(self, i: int, j: int, k: int) -> None:
        me = self._living(i)
        if me is not None:
            self.model.procs[me].trap = bool(j % 4)
            await self.world.sides[me[0]].trap(me, bool(j % 4))
            await self._step(me, "traps exits:", bool(j % 4))

    async def _do_monitor(self, i: int, j: int, k: int) -> None:
        me = self._living(i)
        if me is not None:
            await self._monitor(me, self._partner(me, j), _MONITOR_MODES[k % 4])

    async def _do_monitor_name(self, i: int, j: int, k: int) -> None:
        me = self._living(i)
        if me is not None:
            await self._monitor(me, ("name", SIDES[j % 2]), _MONITOR_MODES[k % 4])

    async def _monitor(self, me: Key, target: Any, mode: str | None) -> None:
        number = self.model.monitor(me, target, mode)
        real = self.world.registry.target(target)
        self.world.registry.add_ref(number, await self.world.sides[me[0]].monitor(me, real, mode))
        self._refs.append(number)
        await self._step(me, "monitors", target, "as", number, mode or "")

    async def _do_demonitor(self, i: int, j: int, k: int) -> None:
        owners = [(proc.key, ref) for proc in self.model.procs.values() if proc.alive for ref in proc.monitors]
        fired = [
            (proc.key, message[1])
            for proc in self.model.procs.values()
            if proc.alive and self._has_mailbox(proc.key)
            for message in proc.inbox
            if message[0] == "DOWN"
        ]
        choices = owners + fired
        if choices:
            me, ref = choices[i % len(choices)]
            flush = self._has_mailbox(me) and bool(j % 2)
            self.model.demonitor(me, ref, flush=flush)
            await self.world.sides[me[0]].demonitor(me, self.world.registry.refs[ref], flush)
            await self._step(me, "demonitors", ref, "flush" if flush else "")

    def _has_mailbox(self, key: Key) -> bool:
        has_mailbox = getattr(self.world.sides[key[0]], "has_mailbox", None)
        return has_mailbox is None or has_mailbox(key)

    async def _do_alias(self, i: int, j: int, k: int) -> None:
        me, mode = self._living(i), _ALIAS_MODES[j % 2]
        if me is not None:
            number = self.model.alias(me, mode)
            self.world.registry.add_ref(number, await self.world.sides[me[0]].alias(me, mode))
            self._refs.append(number)
            await self._step(me, "has alias", number, mode)

    async def _do_unalias(self, i: int, j: int, k: int) -> None:
        choices = [(proc.key, ref) for proc in self.model.procs.values() if proc.alive for ref in proc.aliases]
        if choices:
            me, ref = choices[i % len(choices)]
            self.model.unalias(me, ref)
            await self.world.sides[me[0]].unalias(me, self.world.registry.refs[ref])
            await self._step(me, "unaliases", ref)

    async def _do_send(self, i: int, j: int, k: int) -> None:
        await self._send(self._living(i), self._any(j))

    async def _do_send_name(self, i: int, j: int, k: int) -> None:
        await self._send(self._living(i), ("name", SIDES[j % 2]))

    async def _do_send_alias(self, i: int, j: int, k: int) -> None:
        refs = [ref for ref in self._refs if self.model.is_alias(ref)]
        if refs:
            await self._send(self._living(i), ("alias", refs[-1 - j % len(refs)]))

    async def _send(self, me: Key | None, dest: Any) -> None:
        if me is None:
            return
        self._messages += 1
        self.model.send(me, dest, self._messages)
        registry = self.world.registry
        message = (registry.term("message"), self._messages, registry.pids[me])
        await self.world.sides[me[0]].send(me, registry.target(dest), message)
        await self._step(me, "sends", self._messages, "to", dest)

    async def _do_exit(self, i: int, j: int, k: int) -> None:
        me = self._living(i)
        if me is not None:
            you = self._partner(me, j)
            reason: Any = {0: "kill", 1: "normal"}.get(k, ("told", len(self.story)))
            self.model.exit(me, you, reason)
            registry = self.world.registry
            await self.world.sides[me[0]].exit(me, registry.pids[you], registry.term(reason))
            await self._step(me, "tells", you, "to exit:", reason)

    async def _do_register(self, i: int, j: int, k: int) -> None:
        me = self._living(i)
        if me is not None and self.model.register(me):
            await self.world.sides[me[0]].register(me)
            await self._step(me, "registers")

    async def _do_unregister(self, i: int, j: int, k: int) -> None:
        side = SIDES[i % 2]
        if self.model.unregister(side):
            await self.world.sides[side].unregister()
            await self._step("name of", side, "unregistered")

    async def _do_end(self, i: int, j: int, k: int) -> None:
        me = self._living(i)
        if me is not None:
            await self._end(me, {0: "kill", 1: "normal", 2: "normal"}.get(j, ("end", len(self.story))))

    async def _end(self, me: Key, reason: Any) -> None:
        self.model.end(me, reason)
        await self.world.sides[me[0]].end(me, self.world.registry.term(reason))
        await self._step(me, "ends:", reason)

    async def _do_deliver(self, i: int, j: int, k: int) -> None:
        for _ in range(1 + j // 3):
            if self.model.queue[SIDES[i % 2]]:
                await self._deliver(SIDES[i % 2])

    async def _deliver(self, side: str) -> None:
        signal = self.model.queue[side][0]
        self.model.deliver(side)
        await self.world.deliver(side)
        await self._step("->" if side == "a" else "<-", *signal)

    async def _do_cut(self, i: int, j: int, k: int) -> None:
        if any(self.model.up.values()):
            self.model.cut()
            await self.world.cut()
            await self._step("cut")

    async def _do_disconnect(self, i: int, j: int, k: int) -> None:
        side = SIDES[i % 2]
        if self.model.up[side] and self.model.up[other(side)]:
            self.model.disconnect(side)
            await self.world.disconnect(side)
            await self._step(side, "disconnects")
