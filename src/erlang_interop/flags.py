"""Distribution flags: what a node can do, as announced in the handshake.

The law is OTP's own header ``lib/kernel/include/dist.hrl`` (and ``erts/emulator/beam/dist.h``); the sentences are from
the manual, *Distribution Protocol, Distribution Flags*. They differ in one place: ``MANDATORY_25_DIGEST``.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = [
    "MANDATORY",
    "MANDATORY_25",
    "MANDATORY_26",
    "OFFERED",
    "DFlag",
    "announced",
    "missing_mandatory",
]


class DFlag(enum.IntFlag):
    """One bit a capability, 64 bits in handshake version 6. Names and values are those of ``dist.hrl``."""

    #: The node is to be published and part of the global namespace (that is: not hidden).
    PUBLISHED = 1 << 0
    #: The node implements an atom cache (obsolete).
    ATOM_CACHE = 1 << 1
    #: The node implements extended (3 x 32 bits) references. Required since OTP 25.
    EXTENDED_REFERENCES = 1 << 2
    #: The node implements distributed process monitoring.
    DIST_MONITOR = 1 << 3
    #: The node uses separate tags for funs (lambdas) in the distribution protocol.
    FUN_TAGS = 1 << 4
    #: The node implements distributed named process monitoring.
    DIST_MONITOR_NAME = 1 << 5
    #: The (hidden) node implements atom cache (obsolete).
    HIDDEN_ATOM_CACHE = 1 << 6
    #: The node understands the ``NEW_FUN_EXT`` tag.
    NEW_FUN_TAGS = 1 << 7
    #: The node can handle extended pids and ports. Required since OTP 25.
    EXTENDED_PIDS_PORTS = 1 << 8
    #: The node understands the ``EXPORT_EXT`` tag.
    EXPORT_PTR_TAG = 1 << 9
    #: The node understands the ``BIT_BINARY_EXT`` tag.
    BIT_BINARIES = 1 << 10
    #: The node understands the ``NEW_FLOAT_EXT`` tag.
    NEW_FLOATS = 1 << 11
    #: The node handles unicode in the I/O protocol.
    UNICODE_IO = 1 << 12
    #: The node implements atom cache in the distribution header.
    DIST_HDR_ATOM_CACHE = 1 << 13
    #: The node understands the ``SMALL_ATOM_EXT`` tag.
    SMALL_ATOM_TAGS = 1 << 14
    #: The node understands UTF-8 atoms encoded with ``ATOM_UTF8_EXT`` and ``SMALL_ATOM_UTF8_EXT``.
    UTF8_ATOMS = 1 << 16
    #: The node understands the map tag ``MAP_EXT``.
    MAP_TAG = 1 << 17
    #: The node understands big node creation tags ``NEW_PID_EXT``, ``NEW_PORT_EXT`` and ``NEWER_REFERENCE_EXT``.
    BIG_CREATION = 1 << 18
    #: Use the ``SEND_SENDER`` control message instead of the ``SEND`` control message.
    SEND_SENDER = 1 << 19
    #: The node understands any term as the seqtrace label.
    BIG_SEQTRACE_LABELS = 1 << 20
    #: Use the ``PAYLOAD_EXIT``, ``PAYLOAD_EXIT2`` and ``PAYLOAD_MONITOR_P_EXIT`` control messages.
    EXIT_PAYLOAD = 1 << 22
    #: Use fragmented distribution messages to send large messages.
    FRAGMENTS = 1 << 23
    #: The node supports the new connection setup handshake (version 6) introduced in OTP 23.
    HANDSHAKE_23 = 1 << 24
    #: Use the new link protocol: ``UNLINK_ID`` and ``UNLINK_ID_ACK``. Mandatory since OTP 26.
    UNLINK_ID = 1 << 25
    #: The node supports all capabilities that are mandatory in Erlang/OTP 25. The manual prints this as bit 36;
    #: ``dist.hrl`` and ``dist.h`` have ``16#4000000``, bit 26, and that is what nodes send.
    MANDATORY_25_DIGEST = 1 << 26
    #: Set if the ``SPAWN_REQUEST``, ``SPAWN_REQUEST_TT``, ``SPAWN_REPLY``, ``SPAWN_REPLY_TT`` messages are supported.
    SPAWN = 1 << 32
    #: Dynamic node name. The node wants the accepting node to choose its name.
    NAME_ME = 1 << 33
    #: The node accepts a larger amount of data in pids, ports and references (``V4_PORT_EXT``). Mandatory since OTP 26.
    V4_NC = 1 << 34
    #: The node supports process alias and can by this handle ``ALIAS_SEND`` and ``ALIAS_SEND_TT``.
    ALIAS = 1 << 35
    #: The node supports the ``ALTACT_SIG_SEND`` control message. Since OTP 28.
    ALTACT_SIG = 1 << 37
    #: The node understands native records, ``RECORD_EXT``. Since OTP 29.
    NATIVE_RECORDS = 1 << 38


#: Without these a node of OTP 25 or later refuses the connection (``dist.hrl``: ``MANDATORY_DFLAGS_25``).
MANDATORY_25: Final = (
    DFlag.EXTENDED_REFERENCES
    | DFlag.FUN_TAGS
    | DFlag.EXTENDED_PIDS_PORTS
    | DFlag.UTF8_ATOMS
    | DFlag.NEW_FUN_TAGS
    | DFlag.BIG_CREATION
    | DFlag.NEW_FLOATS
    | DFlag.MAP_TAG
    | DFlag.EXPORT_PTR_TAG
    | DFlag.BIT_BINARIES
    | DFlag.HANDSHAKE_23
)

#: What OTP 26 added to them.
MANDATORY_26: Final = DFlag.V4_NC | DFlag.UNLINK_ID

#: What we ask of a peer. OTP 25 announces all of it, so older nodes are refused and newer ones always fit.
MANDATORY: Final = MANDATORY_25 | MANDATORY_26

#: What we announce: exactly what works. ``PUBLISHED`` is added by a visible node.
OFFERED: Final = (
    MANDATORY
    | DFlag.MANDATORY_25_DIGEST
    | DFlag.DIST_MONITOR
    | DFlag.DIST_MONITOR_NAME
    | DFlag.UNICODE_IO
    | DFlag.DIST_HDR_ATOM_CACHE
    | DFlag.SMALL_ATOM_TAGS
    | DFlag.SEND_SENDER
    | DFlag.BIG_SEQTRACE_LABELS
    | DFlag.EXIT_PAYLOAD
    | DFlag.FRAGMENTS
    | DFlag.SPAWN
    | DFlag.ALIAS
    | DFlag.ALTACT_SIG
    | DFlag.NATIVE_RECORDS
)


def announced(flags: int) -> DFlag:
    """Return what a peer that sent ``flags`` can do.

    A node may send the one bit ``MANDATORY_25_DIGEST`` in place of the whole OTP 25 set (``dist_util.erl``,
    ``expand_mandatory_25_flags``). Bits this file does not know are kept.
    """
    known = DFlag(flags)
    return known | MANDATORY_25 if known & DFlag.MANDATORY_25_DIGEST else known


def missing_mandatory(flags: int) -> DFlag:
    """Return the mandatory flags absent from a peer's ``flags``; an empty set means that the two can talk."""
    return MANDATORY & ~announced(flags)
