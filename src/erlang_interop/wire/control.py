"""Control messages: the table of them, and what follows from it.

Each signal between nodes is a control tuple, ``{Op, ...}``, that some operations follow with a payload: the message,
the exit reason or the arguments. One row of :data:`LAYOUTS` for each operation drives building (:meth:`Layout.pack`),
checking of what a peer sent (:func:`check`) and description (:func:`describe`). Order and arity are in no other place.

A slot reads ``name:kind``. Kinds: ``pid``; ``peer`` a pid of the node that sends it, anything else makes a BEAM close
the connection; ``atom`` (also ``True``, ``False`` and ``None``, as those atoms are decoded); ``proc`` a pid or an atom;
``ref``; ``dest`` any of the three; ``int`` from 0; ``id`` 1 to 2**64-1, ``id0`` from 0; ``mfa``; ``term`` and
``unused`` anything.

Spec: erl_dist_protocol, "Protocol between Connected Nodes"; ``dist.h``; ``erts_net_message()`` of ``dist.c``. Compiled.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, final

from .._native import core
from ..errors import RemoteProtocolError
from ..etf.text import format_term
from ..flags import DFlag
from ..terms import Atom, Pid, Reference

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ALTACT_ALIAS",
    "ALTACT_EXIT",
    "ALTACT_NAME",
    "ALTACT_PRIO",
    "ALTACT_TOKEN",
    "BY_OP",
    "LAYOUTS",
    "NO_PAYLOAD",
    "SPAWN_LINK",
    "SPAWN_MONITOR",
    "Layout",
    "Op",
    "check",
    "describe",
    "packer",
    "without_altact",
]


@final
class _NoPayload:
    """The type of :data:`NO_PAYLOAD`."""

    def __repr__(self) -> str:
        return "NO_PAYLOAD"


#: Stands where a control message has no payload; any term, also None, would be one.
NO_PAYLOAD: Final[Any] = _NoPayload()


class Op(enum.IntEnum):
    """First element of a control tuple. Names and numbers are those of OTP's ``dist.h`` (``DOP_...``)."""

    LINK = 1
    SEND = 2
    EXIT = 3
    REG_SEND = 6
    GROUP_LEADER = 7
    EXIT2 = 8
    SEND_TT = 12
    EXIT_TT = 13
    REG_SEND_TT = 16
    EXIT2_TT = 18
    MONITOR_P = 19
    DEMONITOR_P = 20
    MONITOR_P_EXIT = 21
    SEND_SENDER = 22
    SEND_SENDER_TT = 23
    PAYLOAD_EXIT = 24
    PAYLOAD_EXIT_TT = 25
    PAYLOAD_EXIT2 = 26
    PAYLOAD_EXIT2_TT = 27
    PAYLOAD_MONITOR_P_EXIT = 28
    SPAWN_REQUEST = 29
    SPAWN_REQUEST_TT = 30
    SPAWN_REPLY = 31
    SPAWN_REPLY_TT = 32
    ALIAS_SEND = 33
    ALIAS_SEND_TT = 34
    UNLINK_ID = 35
    UNLINK_ID_ACK = 36
    ALTACT_SIG_SEND = 37


#: What the flags of ``ALTACT_SIG_SEND`` say: a priority signal; a trace token stands behind the other elements; ``to``
#: is an alias; it is a name; the signal is an exit and not a message. Bits beyond these are to be ignored (``dist.c``).
ALTACT_PRIO: Final = 1
ALTACT_TOKEN: Final = 2
ALTACT_ALIAS: Final = 4
ALTACT_NAME: Final = 8
ALTACT_EXIT: Final = 16

#: What the flags of ``SPAWN_REPLY`` say: a link, a monitor was set up.
SPAWN_LINK: Final = 1
SPAWN_MONITOR: Final = 2

#: Each kind of slot: its words for people, and its test of the slot ``{x}`` as source text, ``p`` being the peer's
#: name. They are joined into one function for each row. The C core has those of the frequent kinds once more, and knows
#: the kinds by their numbers here; a unit test holds the two together.
_KINDS: Final[dict[str, tuple[str, str]]] = {
    "unused": ("anything", ""),
    "term": ("any term", ""),
    "pid": ("a pid", "type({x}) is Pid"),
    "peer": ("a pid of the sending node", "type({x}) is Pid and (p is None or {x}.node == p)"),
    "atom": ("an atom", "(type({x}) is Atom or {x} is None or type({x}) is bool)"),
    "proc": ("a pid or a name", "(type({x}) is Pid or type({x}) is Atom or {x} is None or type({x}) is bool)"),
    "ref": ("a reference", "type({x}) is Reference"),
    "dest": ("a pid, a name or an alias", "(type({x}) in (Pid, Atom, Reference, bool) or {x} is None)"),
    "int": ("an integer from 0", "type({x}) is int and {x} >= 0"),
    "id": ("an integer from 1 to 2**64-1", "type({x}) is int and 0 < {x} < 18446744073709551616"),
    "id0": ("an integer from 0 to 2**64-1", "type({x}) is int and 0 <= {x} < 18446744073709551616"),
    "mfa": ("{Module, Function, Arity}", "is_mfa({x})"),
}
_NUMBERS: Final[dict[str, int]] = {kind: number for number, kind in enumerate(_KINDS)}

_NO_FLAGS: Final = DFlag(0)
_EMPTY: Final = Atom("")


def _is_name(value: Any) -> bool:
    return isinstance(value, (Atom, bool)) or value is None


def _is_mfa(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 3
        and _is_name(value[0])
        and _is_name(value[1])
        and type(value[2]) is int
        and -(1 << 59) <= value[2] < 1 << 59
    )


@final
class Layout:
    """One row: how the control tuple of an operation is made up.

    Attributes:
        op: First element of the tuple.
        name: The manual's name of the operation.
        slots: Names of the elements behind the first.
        kinds: Kind of each slot, as numbers.
        payload: What follows the tuple; empty when nothing does.
        terms: How many terms that makes: 1 or 2.
        needs: Flags both nodes must have for it to be sent.
        open_ended: More elements than listed may follow; they are ignored.
        pack: Builds the tuple: takes the slots in order or by name, without those called ``unused``.
    """

    def __init__(
        self, op: Op, slots: str, payload: str = "", needs: DFlag = _NO_FLAGS, open_ended: bool = False
    ) -> None:
        pairs = [slot.partition(":")[::2] for slot in slots.split()]
        self.op: Final = int(op)
        self.name: Final = op.name
        self.slots: Final = [name for name, _ in pairs]
        self.kind_names: Final = [kind or name for name, kind in pairs]
        self.kinds: Final = bytes([_NUMBERS[kind] for kind in self.kind_names])
        self.payload: Final = payload
        self.has_payload: Final = bool(payload)
        self.terms: Final = 2 if payload else 1
        self.needs: Final = needs
        self.open_ended: Final = open_ended
        self.pack: Final[Any] = self._make_pack()
        self.accepts: Final[Any] = self._make_accepts()

    def __repr__(self) -> str:
        return f"Layout({self.name} {{{', '.join([str(self.op), *self.slots])}}} {self.payload})".replace(" )", ")")

    def _make_pack(self) -> Any:
        arguments = ", ".join([slot for slot in self.slots if slot != "unused"])
        elements = "".join([f", {'EMPTY' if slot == 'unused' else slot}" for slot in self.slots])
        return eval(f"lambda {arguments}: ({self.op}{elements})", {"EMPTY": _EMPTY})

    def _make_accepts(self) -> Any:
        tests = [f"len(c) {'>=' if self.open_ended else '=='} {len(self.slots) + 1}"]
        for index, kind in enumerate(self.kind_names):
            test = _KINDS[kind][1]
            if test:
                tests.append(test.replace("{x}", f"c[{index + 1}]"))
        scope = {"Pid": Pid, "Atom": Atom, "Reference": Reference, "is_mfa": _is_mfa}
        return eval(f"lambda c, p: {' and '.join(tests)}", scope)


#: Every operation this node can send or receive. UNLINK (4) is not among them: OTP 26 removed it. Neither are
#: the operations between OTP's own processes that never travelled (5, 9 to 11, 14, 15, 17).
LAYOUTS: Final[tuple[Layout, ...]] = (
    Layout(Op.LINK, "from_pid:peer to_pid:pid"),
    Layout(Op.SEND, "unused to_pid:pid", payload="message"),
    Layout(Op.EXIT, "from_pid:peer to_pid:pid reason:term"),
    Layout(Op.REG_SEND, "from_pid:pid unused to_name:atom", payload="message"),
    Layout(Op.GROUP_LEADER, "from_pid:pid to_pid:pid"),
    Layout(Op.EXIT2, "from_pid:peer to_pid:pid reason:term"),
    Layout(Op.SEND_TT, "unused to_pid:pid trace_token:term", payload="message"),
    Layout(Op.EXIT_TT, "from_pid:peer to_pid:pid trace_token:term reason:term"),
    Layout(Op.REG_SEND_TT, "from_pid:pid unused to_name:atom trace_token:term", payload="message"),
    Layout(Op.EXIT2_TT, "from_pid:peer to_pid:pid trace_token:term reason:term"),
    Layout(Op.MONITOR_P, "from_pid:peer to_proc:proc ref:ref", needs=DFlag.DIST_MONITOR),
    Layout(Op.DEMONITOR_P, "from_pid:peer to_proc:proc ref:ref", needs=DFlag.DIST_MONITOR),
    Layout(Op.MONITOR_P_EXIT, "from_proc:proc to_pid:pid ref:ref reason:term", needs=DFlag.DIST_MONITOR),
    Layout(Op.SEND_SENDER, "from_pid:pid to_pid:pid", payload="message", needs=DFlag.SEND_SENDER),
    Layout(Op.SEND_SENDER_TT, "from_pid:pid to_pid:pid trace_token:term", payload="message", needs=DFlag.SEND_SENDER),
    Layout(Op.PAYLOAD_EXIT, "from_pid:peer to_pid:pid", payload="reason", needs=DFlag.EXIT_PAYLOAD),
    Layout(Op.PAYLOAD_EXIT_TT, "from_pid:peer to_pid:pid trace_token:term", payload="reason", needs=DFlag.EXIT_PAYLOAD),
    Layout(Op.PAYLOAD_EXIT2, "from_pid:peer to_pid:pid", payload="reason", needs=DFlag.EXIT_PAYLOAD),
    Layout(
        Op.PAYLOAD_EXIT2_TT, "from_pid:peer to_pid:pid trace_token:term", payload="reason", needs=DFlag.EXIT_PAYLOAD
    ),
    Layout(Op.PAYLOAD_MONITOR_P_EXIT, "from_proc:proc to_pid:pid ref:ref", payload="reason", needs=DFlag.EXIT_PAYLOAD),
    Layout(
        Op.SPAWN_REQUEST,
        "req_id:ref from_pid:peer group_leader:pid mfa:mfa opt_list:term",
        payload="arg_list",
        needs=DFlag.SPAWN,
    ),
    Layout(
        Op.SPAWN_REQUEST_TT,
        "req_id:ref from_pid:peer group_leader:pid mfa:mfa opt_list:term trace_token:term",
        payload="arg_list",
        needs=DFlag.SPAWN,
    ),
    Layout(Op.SPAWN_REPLY, "req_id:ref to_pid:pid flags:int result:proc", needs=DFlag.SPAWN),
    Layout(Op.SPAWN_REPLY_TT, "req_id:ref to_pid:pid flags:int result:proc trace_token:term", needs=DFlag.SPAWN),
    Layout(Op.ALIAS_SEND, "from_pid:pid alias:ref", payload="message", needs=DFlag.ALIAS),
    Layout(Op.ALIAS_SEND_TT, "from_pid:pid alias:ref trace_token:term", payload="message", needs=DFlag.ALIAS),
    Layout(Op.UNLINK_ID, "id:id from_pid:peer to_pid:pid", needs=DFlag.UNLINK_ID),
    Layout(Op.UNLINK_ID_ACK, "id:id0 from_pid:peer to_pid:pid", needs=DFlag.UNLINK_ID),
    # "The tuple may grow": with flag 2 set a trace token follows.
    Layout(
        Op.ALTACT_SIG_SEND, "flags:int from_pid:pid to:dest", payload="message", needs=DFlag.ALTACT_SIG, open_ended=True
    ),
)

#: The rows by operation number; None where there is none.
BY_OP: Final[list[Layout | None]] = [None] * 64
for _layout in LAYOUTS:
    BY_OP[_layout.op] = _layout

if core is not None:
    core.bind(
        layouts=[row and (row.kinds, row.has_payload, row.open_ended) for row in BY_OP],
        no_payload=NO_PAYLOAD,
    )


def packer(op: Op) -> Callable[..., tuple[Any, ...]]:
    """Return what builds the control tuple of ``op`` from its slots: ``Layout.pack`` of its row."""
    row = BY_OP[op]
    assert row is not None
    pack: Callable[..., tuple[Any, ...]] = row.pack
    return pack


def without_altact(control: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return what an ``ALTACT_SIG_SEND`` is for a node that does not know it: without its priority.

    None for an exit signal to an alias, which has no other form.
    """
    flags, sender, to = control[1], control[2], control[3]
    token = control[4:5] if flags & ALTACT_TOKEN else ()
    if flags & ALTACT_EXIT:
        return None if flags & ALTACT_ALIAS else (int(Op.PAYLOAD_EXIT2), sender, to)
    if flags & ALTACT_ALIAS:
        return (int(Op.ALIAS_SEND_TT if token else Op.ALIAS_SEND), sender, to, *token)
    if flags & ALTACT_NAME:
        return (int(Op.REG_SEND_TT if token else Op.REG_SEND), sender, _EMPTY, to, *token)
    return (int(Op.SEND_SENDER_TT if token else Op.SEND_SENDER), sender, to, *token)


def check(control: Any, has_payload: bool, peer: Atom | None = None) -> Layout:
    """Return the row of a control tuple after looking at its operation, arity and slots.

    Args:
        control: What stood first in a frame, decoded.
        has_payload: Whether a second term followed.
        peer: Name of the sending node; None leaves out the look at whose pids the ``peer`` slots hold.

    Raises:
        RemoteProtocolError: No such operation, or not its form; ``rule`` names the row.
    """
    if isinstance(control, tuple) and control:
        op = control[0]
        if type(op) is int and 0 <= op < 64:
            layout = BY_OP[op]
            if layout is not None and layout.has_payload == has_payload:
                if layout.accepts(control, peer):
                    return layout
    raise _misfit(control, has_payload, peer)


def _misfit(control: Any, has_payload: bool, peer: Atom | None) -> RemoteProtocolError:
    """Say what is wrong with a control message that :func:`check` refused."""
    name = None if peer is None else peer.name
    general = "Distribution Protocol, control messages"
    if not isinstance(control, tuple) or not control or type(control[0]) is not int:
        return RemoteProtocolError(f"{_short(control)} is no control message", name, None, general)
    op: int = control[0]
    layout = BY_OP[op] if 0 <= op < 64 else None
    if layout is None:
        why = ", which OTP 26 removed" if op == 4 else ""
        return RemoteProtocolError(f"unknown operation {_short(op)}{why}: {_short(control)}", name, None, general)
    rule = f"{layout.name} {{{', '.join([str(op), *layout.slots])}}}"
    if layout.has_payload != has_payload:
        text = f"without its {layout.payload}" if layout.has_payload else "with a payload"
    elif len(control) - 1 != len(layout.slots) and not (layout.open_ended and len(control) - 1 > len(layout.slots)):
        text = f"of {len(control)} elements"
    else:
        text = "malformed"
        for slot, kind, value in zip(layout.slots, layout.kind_names, control[1:], strict=False):
            test = _KINDS[kind][1] or "True"
            if not eval(test.replace("{x}", "x"), _scope(value, peer)):
                text = f"whose {slot} is {_short(value)}, not {_KINDS[kind][0]}"
                break
    return RemoteProtocolError(f"{layout.name} {text}", name, None, rule)


def _scope(value: Any, peer: Atom | None) -> dict[str, Any]:
    return {"Pid": Pid, "Atom": Atom, "Reference": Reference, "is_mfa": _is_mfa, "x": value, "p": peer}


def describe(control: tuple[Any, ...], payload: Any = NO_PAYLOAD) -> str:
    """Return one line for a trace: ``REG_SEND from_pid=<py@h.1.0> to_name=logger message={hello,1}``.

    The control message is one that :func:`check` accepted or ``pack`` built.
    """
    layout = BY_OP[control[0]]
    if layout is None:
        return _short(control)
    words = [layout.name]
    for slot, value in zip(layout.slots, control[1:], strict=False):
        if slot != "unused":
            words.append(f"{slot}={_short(value)}")
    if payload is not NO_PAYLOAD:
        words.append(f"{layout.payload}={_short(payload)}")
    return " ".join(words)


def _short(term: Any) -> str:
    return format_term(term, limit=200)
