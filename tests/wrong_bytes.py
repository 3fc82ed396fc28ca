"""Right bytes to make wrong ones of: a message of each handshake tag, a frame of each operation, and what changes them.

Random bytes never get far enough to find a fault; what is nearly right does. Used on the wire classes alone
(``property/test_wrong_bytes.py``) and on a node over sockets (``interop/test_wrong_bytes.py``).
"""

from __future__ import annotations

import random
from typing import Any, Final

from erlang_interop.etf import encode
from erlang_interop.flags import OFFERED, DFlag
from erlang_interop.terms import Atom, Pid, Reference
from erlang_interop.wire.channel import DistChannel
from erlang_interop.wire.control import LAYOUTS, NO_PAYLOAD, Layout
from erlang_interop.wire.handshake import Verdict, digest

#: The node that says all this, and the one that hears it.
A, B = "a@127.0.0.1", "b@127.0.0.1"
COOKIE: Final = "c"

#: One change: what kind, where (or the bytes of a tail), and a value that depends on the kind.
Change = tuple[str, Any, int]


def changed(data: bytes, changes: list[Change]) -> bytes:
    """``data`` with bits flipped, bytes set, taken out or doubled, or with more behind; places are taken modulo."""
    for kind, where, value in changes:
        if kind == "tail":
            data += where
            continue
        if not data:
            break
        at = where % len(data)
        if kind == "flip":
            data = data[:at] + bytes((data[at] ^ 1 << value,)) + data[at + 1 :]
        elif kind == "set":
            data = data[:at] + bytes((value,)) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[at + value :]
        else:
            data = data[: at + value] + data[at : at + value] + data[at + value :]
    return data


#: Tags of terms, headers and fragments: a byte set to one of these is more than an unknown tag.
TAGS: Final = (68, 69, 70, 77, 80, 82, 88, 90, 97, 98, 104, 105, 106, 107, 108, 109, 110, 111, 112, 116, 119)


def any_changes(numbers: random.Random) -> list[Change]:
    """One to three changes."""
    made: list[Change] = []
    for _ in range(numbers.randint(1, 3)):
        kind = numbers.choice(("flip", "flip", "set", "set", "cut", "double", "tail"))
        place = numbers.randrange(1 << 20)
        match kind:
            case "tail":
                made.append((kind, numbers.randbytes(numbers.randint(1, 30)), 0))
            case "flip":
                made.append((kind, place, numbers.randrange(8)))
            case "set":
                made.append((kind, place, numbers.choice((0, 1, 0x7F, 0xFF, *TAGS))))
            case _:
                made.append((kind, place, numbers.randint(1, 20)))
    return made


# ------------------------------------------------------------------------------------------------------- the handshake


def message(body: bytes) -> bytes:
    """With its length in front."""
    return len(body).to_bytes(2, "big") + body


def name_of(name: str, flags: int = OFFERED) -> bytes:
    """``N``: flags, creation, length, name."""
    return b"N" + flags.to_bytes(8, "big") + bytes((0, 0, 0, 5)) + len(name).to_bytes(2, "big") + name.encode()


def challenge_of(name: str, flags: int = OFFERED) -> bytes:
    """``N``: flags, challenge, creation, length, name."""
    numbers = bytes((0, 0, 0, 7, 0, 0, 0, 6))
    return b"N" + flags.to_bytes(8, "big") + numbers + len(name).to_bytes(2, "big") + name.encode()


def messages_of(name: str, peer: str) -> dict[str, bytes]:
    """One message of each tag, and of each form where a tag has several.

    ``name`` is who says it, ``peer`` the node in the challenge. The digests are right for challenge 4 at the acceptor
    and 2 at the initiator.
    """
    host = name.partition("@")[2]
    given = f"given@{host}".encode()
    return {
        "NAME": name_of(name),
        "NAME (asking)": name_of(host, OFFERED | DFlag.NAME_ME),
        "NAME (challenge)": challenge_of(peer),
        "OLD_NAME": b"n\0\5" + (OFFERED & 0xFFFFFFFF).to_bytes(4, "big") + name.encode(),
        "COMPLEMENT": b"c" + (OFFERED >> 32).to_bytes(4, "big") + bytes((0, 0, 0, 5)),
        "REPLY": b"r" + bytes((0, 0, 0, 9)) + digest(COOKIE, 4),
        "ACK": b"a" + digest(COOKIE, 2),
        "STATUS named": b"snamed:" + len(given).to_bytes(2, "big") + given + bytes((0, 0, 0, 9)),
        **{f"STATUS {word}": b"s" + word.encode() for word in [*Verdict, "true", "false"]},
    }


# --------------------------------------------------------------------------------------------------------- the channel

PID, OURS, FOREIGN = Pid(Atom(A), 7, 0, 5), Pid(Atom(B), 8, 0, 3), Pid(Atom("c@127.0.0.1"), 8, 0, 3)
REF: Final = Reference(Atom(A), 5, bytes(range(12)))
HEADERS, WHOLE = OFFERED, OFFERED & ~DFlag.FRAGMENTS
PASS_THROUGH: Final = OFFERED & ~DFlag.DIST_HDR_ATOM_CACHE
PAYLOADS: Final = [layout for layout in LAYOUTS if layout.has_payload]


def payload_of(peer: Pid) -> Any:
    """A term of many kinds."""
    return (Atom("payload"), [1, 2.5, b"bytes", "text"], {Atom("key"): [Atom("é" * 20)]}, peer, [1 << 70])


def control_of(layout: Layout, peer: Pid = PID, ours: Pid = OURS) -> tuple[Any, ...]:
    """A control tuple of that operation from ``peer`` to ``ours``."""
    values: dict[str, Any] = {
        "unused": Atom(""),
        "term": (Atom("reason"), [peer]),
        "pid": ours,
        "peer": peer,
        "atom": Atom("name"),
        "proc": ours,
        "ref": Reference(peer.node, peer.creation, bytes(range(12))),
        "dest": ours,
        "int": 3,
        "id": 77,
        "id0": 77,
        "mfa": (Atom("m"), Atom("f"), 2),
    }
    return (layout.op, *(values[kind] for kind in layout.kind_names))


def frame(body: bytes) -> bytes:
    """With its length in front."""
    return len(body).to_bytes(4, "big") + body


def frames_of(layout: Layout, agreed: DFlag, peer: Pid = PID, ours: Pid = OURS) -> bytes:
    """A whole message as our own channel sends it."""
    channel = DistChannel(agreed, peer=ours.node.name)
    channel.send(control_of(layout, peer, ours), payload_of(peer) if layout.has_payload else NO_PAYLOAD)
    return channel.data_to_send()


def fragments_of(layout: Layout, count: int, peer: Pid = PID, ours: Pid = OURS) -> list[bytes]:
    """The bodies of a message in ``count`` frames, with one of its atoms in the first one's header."""
    control = encode(control_of(layout, peer, ours))[1:]
    payload = encode((Atom("x"), bytes(range(256))))[1:].replace(b"w\x01x", b"R\x00")
    size = -(-len(payload) // (count - 1))
    parts = [b"", *(payload[start : start + size] for start in range(0, len(payload), size))]
    ids = (1234).to_bytes(8, "big")
    first = b"\x83E" + ids + count.to_bytes(8, "big") + b"\x01\x08\x05\x01x" + control + parts[0]
    return [first, *(b"\x83F" + ids + (count - at).to_bytes(8, "big") + parts[at] for at in range(1, count))]
