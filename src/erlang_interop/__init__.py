"""An Erlang node in Python: join a cluster, send, monitor, call and be called, on trio.

.. code-block:: python

    async with open_node("py@127.0.0.1", cookie="secret") as node:
        answer = await node.call(("calc", "beam@127.0.0.1"), (Atom("add"), 1, 2))

Layers, each importing only those below: ``otp``, ``runtime``, ``wire``, ``etf``, then ``terms``, ``flags`` and
``errors``. What is named here is the public interface.
"""

from .errors import (
    AddressInUse,
    BadName,
    BadRpc,
    CalleeExited,
    CallError,
    CallTimeout,
    ConnectError,
    ConnectRefused,
    ConnectTimeout,
    CookieMismatch,
    CookieMissing,
    DecodeError,
    EncodeError,
    EpmdError,
    EpmdUnavailable,
    ErlangInteropError,
    Exit,
    HandshakeError,
    HostNotFound,
    LocalProtocolError,
    MissingFlags,
    NameAlreadyRegistered,
    NameTaken,
    NodeDownError,
    NodeUnreachable,
    NoProcess,
    NoSuchNode,
    NotAllowed,
    NotConnected,
    ProtocolError,
    RemoteProtocolError,
    SpawnError,
    Superseded,
    SupervisorError,
)
from .flags import DFlag
from .otp.gen import From
from .otp.node import Node, open_node
from .otp.server import NO_REPLY, GenServer, Stop
from .otp.supervisor import ChildInfo, ChildSpec, Supervisor
from .runtime.distribution import ConnectionInfo
from .runtime.epmd import EpmdAddress
from .runtime.events import NodeDown, NodeEvent, NodeUp
from .runtime.inline import InlineServer
from .runtime.process import Destination, LocalProcess, MonitorTarget, Process
from .runtime.timers import Timer
from .terms import (
    Atom,
    BitString,
    ErlMap,
    Export,
    Fun,
    ImproperList,
    LocalTerm,
    Pid,
    Port,
    Record,
    Reference,
    Term,
    charlist,
    text,
)

__all__ = [
    "NO_REPLY",
    "AddressInUse",
    "Atom",
    "BadName",
    "BadRpc",
    "BitString",
    "CallError",
    "CallTimeout",
    "CalleeExited",
    "ChildInfo",
    "ChildSpec",
    "ConnectError",
    "ConnectRefused",
    "ConnectTimeout",
    "ConnectionInfo",
    "CookieMismatch",
    "CookieMissing",
    "DFlag",
    "DecodeError",
    "Destination",
    "EncodeError",
    "EpmdAddress",
    "EpmdError",
    "EpmdUnavailable",
    "ErlMap",
    "ErlangInteropError",
    "Exit",
    "Export",
    "From",
    "Fun",
    "GenServer",
    "HandshakeError",
    "HostNotFound",
    "ImproperList",
    "InlineServer",
    "LocalProcess",
    "LocalProtocolError",
    "LocalTerm",
    "MissingFlags",
    "MonitorTarget",
    "NameAlreadyRegistered",
    "NameTaken",
    "NoProcess",
    "NoSuchNode",
    "Node",
    "NodeDown",
    "NodeDownError",
    "NodeEvent",
    "NodeUnreachable",
    "NodeUp",
    "NotAllowed",
    "NotConnected",
    "Pid",
    "Port",
    "Process",
    "ProtocolError",
    "Record",
    "Reference",
    "RemoteProtocolError",
    "SpawnError",
    "Stop",
    "Superseded",
    "Supervisor",
    "SupervisorError",
    "Term",
    "Timer",
    "charlist",
    "open_node",
    "text",
]
