"""Who may connect, and with which cookie.

Source: kernel/src/auth.erl (``get_cookie/1``, ``set_cookie/2``), kernel/src/dist_util.erl (``is_allowed/2``),
kernel/src/net_kernel.erl (``allow/1``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import BadName
from ..terms import MAX_ATOM_CHARACTERS
from .addresses import split_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: A cookie is an atom on a BEAM.
_LONGEST: Final = MAX_ATOM_CHARACTERS


class Cookies:
    """The secret shared with each peer; it is never shown, neither here nor in an error.

    Args:
        own: The one that peers share who have none of their own.
        of_peers: Those of peers that have one of their own, by node name.

    Raises:
        BadName: a cookie is none, or a key is no node name.
    """

    def __init__(self, own: str, of_peers: Mapping[str, str] | None = None) -> None:
        self._own = _checked(own)
        self._of_peers: dict[str, str] = {}
        for peer, cookie in (of_peers or {}).items():
            self.set(peer, cookie)

    def __repr__(self) -> str:
        return f"<Cookies, {len(self._of_peers)} of single peers>"

    def of(self, peer: str) -> str:
        """The cookie that is shown to ``peer`` and expected of it."""
        return self._of_peers.get(peer, self._own)

    def set(self, peer: str, cookie: str) -> None:
        """From now on this is the cookie shared with ``peer``. Raises BadName."""
        split_name(peer)
        self._of_peers[peer] = _checked(cookie)

    def set_own(self, cookie: str) -> None:
        """From now on this is the cookie of all peers that have none of their own. Raises BadName."""
        self._own = _checked(cookie)


def _checked(cookie: str) -> str:
    """The cookie, if it is one that a BEAM can have as well."""
    if not cookie:
        raise BadName("the cookie is empty: every node of a cluster shares one that is not")
    try:
        cookie.encode("latin-1")
    except UnicodeEncodeError:
        # `from None`: the error that it would chain has the cookie in it
        raise BadName("the cookie has characters beyond Latin-1, which no cookie of a BEAM has") from None
    if len(cookie) > _LONGEST:
        raise BadName(f"the cookie has {len(cookie)} characters; a BEAM's has {_LONGEST} at most")
    return cookie


class AllowList:
    """The nodes that may connect to this one, and be dialled by it (``net_kernel:allow/1``).

    An entry is a node's full name, a host (all nodes of it), or ``name@`` (the nodes of that name on any host).

    Args:
        entries: The list; None lets everybody with the cookie in. An empty list lets nobody in.

    Raises:
        BadName: an entry is none of these.
    """

    def __init__(self, entries: Iterable[str] | None = None) -> None:
        self._entries: set[str] | None = None
        if entries is not None:
            self._entries = set()
            self.add(entries)

    def __repr__(self) -> str:
        return "<AllowList of all>" if self._entries is None else f"<AllowList {sorted(self._entries)}>"

    @property
    def is_open(self) -> bool:
        """Whether there is no list, so that everybody with the cookie may connect."""
        return self._entries is None

    def add(self, entries: Iterable[str]) -> None:
        """Add to the list; the first entries make it one. No entries change nothing, as on a BEAM. Raises BadName."""
        if isinstance(entries, str):
            raise BadName(f"allow takes a list of names: write [{entries!r}]")
        added = [_entry(entry) for entry in entries]
        if added:
            self._entries = (self._entries or set()) | set(added)

    def permits(self, name: str) -> bool:
        """Whether the node ``name`` may connect, or be dialled; ``name`` may be the host of a node without a name."""
        if self._entries is None or name in self._entries:
            return True
        short, at, host = name.partition("@")
        return bool(at) and (host in self._entries or f"{short}@" in self._entries)


def _entry(entry: object) -> str:
    name = str(entry)
    short, at, host = name.partition("@")
    if not short or (at and "@" in host):
        raise BadName(f"{name!r} is nothing to allow: give node names, hosts, or 'name@' for that name on any host")
    return name
