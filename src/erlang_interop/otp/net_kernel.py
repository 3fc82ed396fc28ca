"""``net_kernel``: what other nodes ask a node itself.

Source: kernel/src/net_adm.erl (ping/1), kernel/src/net_kernel.erl (handle_call).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..runtime.inline import InlineServer
from ..terms import Atom
from .gen import GEN_CALL, is_from, reply, shown_term

if TYPE_CHECKING:
    from ..terms import Term

log = logging.getLogger("erlang_interop.net_kernel")

NET_KERNEL: Final = Atom("net_kernel")
IS_AUTH: Final = Atom("is_auth")
YES: Final = Atom("yes")
_UNSUPPORTED: Final = (Atom("error"), Atom("unsupported"))


class NetKernel(InlineServer):
    """The process registered as ``net_kernel``.

    ``{is_auth, Node}`` is answered ``yes``: whoever can ask has passed the handshake. That is all of ``net_adm:ping``.

    Any other call is answered ``{error, unsupported}``. A BEAM's net_kernel takes calls from its own node alone
    (``connect``, ``longnames``, ``nodes_info``, ...), and nobody but ``net_adm`` calls a remote one. Should a release
    begin to, an answer that matches no success lets the caller go on, where silence would hang it until its timeout,
    which in ``net_adm`` is infinity. Other messages are dropped, as a BEAM's net_kernel drops what it does not know.
    """

    def handle_message(self, message: Term) -> None:
        """Answer a call; drop all else."""
        match message:
            case (Atom() as tag, from_, request) if tag == GEN_CALL and is_from(from_):
                match request:
                    case (Atom() as what, _) if what == IS_AUTH:
                        reply(self.process, from_, YES)
                    case _:
                        log.info("%s asks net_kernel for %s, which it does not know", from_[0], shown_term(request))
                        reply(self.process, from_, _UNSUPPORTED)
            case _:
                log.debug("net_kernel drops %s", shown_term(message))
