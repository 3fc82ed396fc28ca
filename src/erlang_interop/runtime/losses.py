"""What the loss of a connection owes to the processes of this node: exit signals, DOWNs, and answers that never come.

A connection may hold a million monitors. So it is worked off in slices, each a call of :func:`hand_out_loss`, and only
what the connection itself holds is looked at, never the whole of the processes.

Source: ERTS manual, "Processes" (what ``noconnection`` is); ``con_monitor_link_seq_cleanup()`` of ``dist.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ..terms import Term
    from .peer import Peer
    from .signals import Router

Key = TypeVar("Key")


def hand_out_loss(router: Router, peer: Peer, reason: Term, limit: int) -> bool:
    """Hand out what the loss of ``peer`` owes: exits, DOWNs, and the end of its monitors here.

    Args:
        peer: A peer that is down.
        reason: ``noconnection``.
        limit: Entries to work off in this call.

    Returns:
        True when nothing is left.
    """
    done = 0
    while peer.links and done < limit:
        pid, remotes = peer.links.popitem()
        process = router.processes.get(pid)
        for remote in remotes:
            done += 1
            if router.carries(pid, remote):
                continue  # linked anew meanwhile: it had its exit signal then
            link = None if process is None else process.links.pop(remote, None)
            if process is not None and link is not None and link.exit_received():
                router.exit_signal(process, remote, reason, linked=True, priority=link.priority)
    # Oldest first: DOWNs come in the order in which the monitors were set.
    for ref in _first(peer.monitors, limit - done):
        done += 1
        owner = peer.monitors.pop(ref, None)  # gone if a DOWN before this one made its receiver demonitor
        if owner is not None:
            router.fire_down(owner, ref, reason)
    for ref in _first(peer.spawns, limit - done):
        done += 1
        request = peer.spawns.pop(ref, None)
        if request is not None:
            request.failed(reason)
    for ref in _first(peer.watched, limit - done):
        done += 1
        watched = peer.watched.pop(ref, None)
        process = None if watched is None else router.processes.get(watched)
        if process is not None:
            process.watchers.pop(ref)
    # Last, so that who monitors a node and its processes hears of the processes first.
    for pid in _first(peer.node_monitors, limit - done):
        done += 1
        count = peer.node_monitors.pop(pid, 0)
        watch = router.processes[pid].node_watch if pid in router.processes else None
        if watch is not None:
            watch.lost(peer, count)
    return not (peer.links or peer.monitors or peer.spawns or peer.watched or peer.node_monitors)


def _first(table: dict[Key, Any], limit: int) -> list[Key]:
    """At most ``limit`` keys of ``table``, oldest first."""
    if limit <= 0:
        return []
    if len(table) <= limit:
        return list(table)
    iterator = iter(table)
    return [next(iterator) for _ in range(limit)]
