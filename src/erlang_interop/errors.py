"""Every error this package raises, for every layer. Imports nothing of the package.

.. code-block:: text

    ErlangInteropError
    ├── EncodeError (ValueError) · DecodeError (ValueError) ► TermSyntaxError      etf
    ├── ProtocolError                                                 never raised itself
    │   ├── LocalProtocolError                                        we were about to break the protocol: a bug here
    │   └── RemoteProtocolError                                       the peer did; its connection is closed
    │       └── HandshakeError ► CookieMismatch · NotAllowed · MissingFlags · Superseded · TlsError ► CertificateError
    ├── ConnectError ► NodeUnreachable · NoSuchNode · HostNotFound · ConnectTimeout · ConnectRefused
    ├── EpmdError ► EpmdUnavailable · NameTaken
    ├── AddressInUse · NotConnected · NameAlreadyRegistered · BadName · BadAddress · CookieMissing
    ├── SpawnError · SupervisorError
    ├── GlobalError ► NoVisibleNode · GlobalNameTaken · TransactionAborted
    ├── TlsOptionsError (ValueError)
    └── CallError ► NoProcess · CallTimeout · NodeDownError · CalleeExited · BadRpc · ErpcError
        └── RemoteException ► RemoteError · RemoteExit · RemoteThrow          what a function raised on another node
    Exit · Throw                                                      outside the tree: control flow, as in Erlang

Constructors never log and do no work. Messages name the value and say what to do.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AddressInUse",
    "BadAddress",
    "BadName",
    "BadRpc",
    "CallError",
    "CallTimeout",
    "CalleeExited",
    "CertificateError",
    "ConnectError",
    "ConnectRefused",
    "ConnectTimeout",
    "CookieMismatch",
    "CookieMissing",
    "DecodeError",
    "EncodeError",
    "EpmdError",
    "EpmdUnavailable",
    "ErlangInteropError",
    "ErpcError",
    "Exit",
    "GlobalError",
    "GlobalNameTaken",
    "HandshakeError",
    "HostNotFound",
    "LocalProtocolError",
    "MissingFlags",
    "NameAlreadyRegistered",
    "NameTaken",
    "NoProcess",
    "NoSuchNode",
    "NoVisibleNode",
    "NodeDownError",
    "NodeUnreachable",
    "NotAllowed",
    "NotConnected",
    "ProtocolError",
    "RemoteError",
    "RemoteException",
    "RemoteExit",
    "RemoteProtocolError",
    "RemoteThrow",
    "SpawnError",
    "Superseded",
    "SupervisorError",
    "TermSyntaxError",
    "Throw",
    "TlsError",
    "TlsOptionsError",
    "TransactionAborted",
]


class ErlangInteropError(Exception):
    """Base of every error of this package, so that one ``except`` can hold them all."""


# ---------------------------------------------------------------------------------------------------------------- etf


class EncodeError(ErlangInteropError, ValueError):
    """A Python value has no Erlang form: an unsupported type, nan, an atom that is too long, too deep a nesting."""


class DecodeError(ErlangInteropError, ValueError):
    """Bytes or text are not a well-formed Erlang term, or break a limit.

    Attributes:
        offset: Where in the given data the offending term starts; a column for source text. ``-1`` when unknown.
    """

    def __init__(self, message: str, offset: int = -1) -> None:
        """Keep ``message`` without the offset; ``str()`` adds it."""
        super().__init__(message, offset)
        self.message = message
        self.offset = offset

    def __str__(self) -> str:
        """``message at offset N``."""
        return self.message if self.offset < 0 else f"{self.message} at offset {self.offset}"


class TermSyntaxError(DecodeError):
    """Text that is no Erlang term. ``offset`` is the index of the character at fault; the message counts from 1."""

    def __str__(self) -> str:
        """``message, column N``."""
        return f"{self.message}, column {self.offset + 1}"


# --------------------------------------------------------------------------------------------------------------- wire


class ProtocolError(ErlangInteropError):
    """Someone broke the distribution protocol. Never raised itself."""


class LocalProtocolError(ProtocolError):
    """This node was about to break the protocol: the calling code has a bug."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol. Its connection is closed; no other connection notices.

    Attributes:
        message: What was wrong, without the parts below.
        peer: Name of the peer as far as known.
        offset: Offset of the fault in the bytes of the frame.
        rule: The section of the manual, or the OTP file, that was broken.
    """

    def __init__(
        self, message: str, peer: str | None = None, offset: int | None = None, rule: str | None = None
    ) -> None:
        """Keep the parts apart; ``str()`` joins them."""
        super().__init__(message, peer, offset, rule)
        self.message = message
        self.peer = peer
        self.offset = offset
        self.rule = rule

    def __str__(self) -> str:
        """``peer: message at offset N (rule)``, as far as known."""
        text = self.message if self.peer is None else f"{self.peer}: {self.message}"
        if self.offset is not None:
            text += f" at offset {self.offset}"
        if self.rule is not None:
            text += f" ({self.rule})"
        return text


class HandshakeError(RemoteProtocolError):
    """The handshake with a peer did not reach an agreement."""


class CookieMismatch(HandshakeError):
    """The two nodes have different cookies: the peer's digest does not match, or the peer hung up on ours."""


class NotAllowed(HandshakeError):
    """The peer answered ``not_allowed``, or this node's ``allow=`` does not list the peer."""


class MissingFlags(HandshakeError):
    """The peer lacks capabilities without which no connection is possible.

    Attributes:
        missing: The absent flags, a :class:`~erlang_interop.flags.DFlag` (typed as ``int``: errors import nothing).
    """

    def __init__(
        self,
        message: str,
        missing: int = 0,
        peer: str | None = None,
        offset: int | None = None,
        rule: str | None = None,
    ) -> None:
        """Keep the flags beside the message."""
        super().__init__(message, peer, offset, rule)
        self.args = (message, missing, peer, offset, rule)
        self.missing = missing


class Superseded(HandshakeError):
    """Another connection between the same two nodes won: both dialled at once, or the peer is already connected."""


class TlsError(HandshakeError):
    """TLS with a peer did not come about, or one of the two does not speak it: the message says what to do."""


class CertificateError(TlsError):
    """A certificate was refused: the peer's by this node, or this node's by the peer; it says which and why."""


# --------------------------------------------------------------------------------------------------------- connecting


class ConnectError(ErlangInteropError):
    """A node could not be reached.

    Attributes:
        peer: Name of the node that was dialled.
    """

    def __init__(self, message: str, peer: str | None = None) -> None:
        """``message`` is complete; ``peer`` is for programs."""
        super().__init__(message, peer)
        self.message = message
        self.peer = peer

    def __str__(self) -> str:
        """The message alone."""
        return self.message


class NodeUnreachable(ConnectError):
    """The host refused or dropped the TCP connection to the node's port."""


class NoSuchNode(ConnectError):
    """EPMD on the peer's host does not know a node of that name."""


class HostNotFound(ConnectError):
    """The host part of the node name does not resolve to an address."""


class ConnectTimeout(ConnectError):
    """Connecting or shaking hands took longer than ``connect_timeout`` seconds."""


class ConnectRefused(ConnectError):
    """The handshake failed; ``__cause__`` is the :class:`HandshakeError` that says why."""


class EpmdError(ErlangInteropError):
    """EPMD, the port mapper, could not do what was asked."""


class EpmdUnavailable(EpmdError):
    """Nothing answers on EPMD's port. Start ``epmd -daemon``, or open the node with ``embedded_epmd=True``."""


class NameTaken(EpmdError):
    """EPMD already has a living node of that name on this host."""


class AddressInUse(ErlangInteropError):
    """The port to listen on is taken by another program."""


class NotConnected(ErlangInteropError):
    """There is no connection to a node, and none could be made.

    Attributes:
        peer: Name of that node.
    """

    def __init__(self, message: str, peer: str | None = None) -> None:
        """``message`` is complete; ``peer`` is for programs."""
        super().__init__(message, peer)
        self.message = message
        self.peer = peer

    def __str__(self) -> str:
        """The message alone."""
        return self.message


class SpawnError(ErlangInteropError):
    """A node did not start the process that it was asked for.

    Attributes:
        peer: Name of that node.
        function: ``module:function`` that was to run.
        reason: What it said: ``notsup`` (it starts none by request), ``noconnection``, ``badopt``, ``system_limit``.
    """

    def __init__(self, peer: str, function: str, reason: Any) -> None:
        """All three are for programs as well."""
        super().__init__(peer, function, reason)
        self.peer = peer
        self.function = function
        self.reason = reason

    def __str__(self) -> str:
        """``node did not start module:function: reason``."""
        return f"{self.peer} did not start {self.function}: {getattr(self.reason, 'name', self.reason)}"


class NameAlreadyRegistered(ErlangInteropError):
    """Another process of this node holds the name already."""


class BadName(ErlangInteropError, ValueError):
    """A node or process name is not one Erlang allows."""


class BadAddress(ErlangInteropError, ValueError):
    """An address or port that was given is not one: ``host:port``, ``[::1]:port``, ``("host", port)``, 1 to 65535."""


class CookieMissing(ErlangInteropError):
    """No cookie was given, and none was found where cookies are kept."""


class TlsOptionsError(ErlangInteropError, ValueError):
    """The options for TLS name an unknown option, a file that cannot be used, or things that exclude each other."""


class SupervisorError(ErlangInteropError):
    """A supervisor's child cannot be started, restarted, terminated or deleted: the message says which and why.

    From ``open_node``: the node's own supervisor has ended, and the node with it.
    """


# ------------------------------------------------------------------------------------------------------------- global


class GlobalError(ErlangInteropError):
    """``global``, the names and locks of the whole cluster, did not do what was asked."""


class NoVisibleNode(GlobalError):
    """No node is connected through which this one, which takes no part in ``global``, could use it."""


class GlobalNameTaken(GlobalError):
    """Another process has the name in ``global``.

    Attributes:
        name: The name, as it is on the other nodes.
    """

    def __init__(self, message: str, name: Any) -> None:
        """``message`` is complete; ``name`` is for programs."""
        super().__init__(message, name)
        self.message = message
        self.name = name

    def __str__(self) -> str:
        """The message alone."""
        return self.message


class TransactionAborted(GlobalError):
    """``aborted``: the lock of a transaction was held by others at each attempt; its function was not called."""


# -------------------------------------------------------------------------------------------------------------- calls


class CallError(ErlangInteropError):
    """A call to another process got no answer.

    Attributes:
        reason: The Erlang exit reason, as ``gen_server:call/3`` would exit with.
        label: Of a request in a collection of ``Requests``, its label there; otherwise None.
    """

    label: Any = None

    def __init__(self, reason: Any, message: str | None = None) -> None:
        """``message`` says it in words; without it the reason's ``repr`` stands."""
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        """The message, or the reason where there is none."""
        return repr(self.reason) if self.message is None else self.message


class NoProcess(CallError):
    """``noproc``: no process has that pid or name."""


class CallTimeout(CallError):
    """``timeout``: no answer within the time allowed; a late one is dropped."""


class NodeDownError(CallError):
    """``{nodedown, Node}``: the connection is gone, or could not be made."""


class CalleeExited(CallError):
    """The callee ended before it answered; ``reason`` is its exit reason."""


class BadRpc(CallError):
    """``{badrpc, Reason}``: the function called on the other node failed, does not exist, or may not be called."""


class ErpcError(CallError):
    """``error:{erpc, Reason}``: the call itself failed. A timeout and a lost connection have classes of their own.

    ``reason`` is Reason: ``notsup`` (the node has no ``erpc``), ``badarg``, ``system_limit``.
    """


class RemoteException(CallError):
    """What a function raised on another node: caught by ``erpc`` there, raised here.

    Attributes:
        class_: ``"error"``, ``"exit"`` or ``"throw"``, Erlang's class of the exception.
        reason: Its reason; of a throw, the value that was thrown.
        stack: Of an error, the stack trace as Erlang has it, innermost first; otherwise empty.
    """

    class_ = ""
    stack: list[Any] = []  # noqa: RUF012 -- never changed


class RemoteError(RemoteException):
    """``error:{exception, Reason, Stack}``: a runtime error, such as ``badarg`` or ``undef``."""

    class_ = "error"

    def __init__(self, reason: Any, stack: list[Any], message: str | None = None) -> None:
        """As CallError, with the stack trace."""
        super().__init__(reason, message)
        self.args = (reason, stack, message)
        self.stack = stack


class RemoteExit(RemoteException):
    """The function called ``exit(Reason)``, or its process was ended from outside.

    Attributes:
        signal: False for ``exit:{exception, Reason}``, True for ``exit:{signal, Reason}``.
    """

    class_ = "exit"

    def __init__(self, reason: Any, message: str | None = None, *, signal: bool = False) -> None:
        """As CallError."""
        super().__init__(reason, message)
        self.signal = signal


class RemoteThrow(RemoteException):
    """The function called ``throw(Reason)``, and nobody there caught it."""

    class_ = "throw"


class Throw(Exception):
    """Raised by a function that others call by ``rpc`` or ``erpc``: ``throw(value)`` to the caller. As Exit, no error.

    Attributes:
        value: Any Erlang term; ``rpc:call`` returns it, ``erpc:call`` throws it.
    """

    def __init__(self, value: Any) -> None:
        """``value`` may be any term."""
        super().__init__(value)
        self.value = value


class Exit(Exception):
    """Ends the running process with ``reason``, like ``erlang:exit/1``. Outside the tree: it is control flow.

    Attributes:
        reason: Any Erlang term; links and monitors receive it.
    """

    def __init__(self, reason: Any) -> None:
        """``reason`` may be any term, also a falsy one."""
        super().__init__(reason)
        self.reason = reason
