"""What a visible node says to ``global`` that takes no part in it: that nobody has to wait for it.

``global:sync/0`` on a BEAM waits until every visible node that is connected has said ``in_sync``, which those say that
have exchanged names and locks with it. This node has none to exchange, so it says so at once. It becomes no member by
that: nobody asks it for a lock or tells others of it.

Source: kernel/src/global.erl, ``handle_cast({in_sync, ...})``; the same from OTP 25 to 29.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..runtime.events import NodeUp
from ..terms import Atom
from . import gen

if TYPE_CHECKING:
    from ..runtime.events import NodeEvent
    from ..runtime.node import Node

GLOBAL_NAME_SERVER: Final = Atom("global_name_server")
IN_SYNC: Final = Atom("in_sync")


def let_nobody_wait(node: Node) -> None:
    """From now on tell each visible node that connects."""

    def tell(event: NodeEvent) -> None:
        if isinstance(event, NodeUp) and event.type == "visible":
            gen.cast(node, (GLOBAL_NAME_SERVER, event.name), (IN_SYNC, node.name, True))

    node.watch_nodes(tell)
