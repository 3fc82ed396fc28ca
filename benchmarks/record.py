"""Record what a BEAM sends, for the micro benchmark: ``python -m benchmarks.record`` writes ``recorded/*.bin``.

A bare socket joins the BEAM as a node, and keeps the bytes behind the handshake as they come; what is in them is the
driver's own load. Needed again only when the load changes.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from typing import Final

from benchmarks.bare import join
from benchmarks.contenders import PROJECT
from benchmarks.micro import PEER, RECORDED, frames
from erlang_interop.testing.beam import Beam, Epmd, find_otp_roots

US: Final = "sink_node@127.0.0.1"
_END: Final = b"the_end"

LOADS: Final = {
    # One message to a registered process, as in W1.
    "casts_by_name": "bench_load:send_casts({sink, Node}, 200)",
    # The request of a bare call. Its answer, as W2's casts, goes to a pid.
    "requests": "[{sink, Node} ! {'$gen_call', {self(), make_ref()}, {echo, I}} || I <- lists:seq(1, 200)]",
    "casts_to_pid": "bench_load:send_casts(Pid, 200)",
    # Monitor, request with an alias for the answer, demonitor.
    "gen_server_calls": "[catch gen_server:call({sink, Node}, {echo, I}, 0) || I <- lists:seq(1, 200)]",
    "monitors": "[monitor(process, {sink, Node}) || _ <- lists:seq(1, 200)]",
    "dead_summary": (
        "Pids = plain_processes:spawn_many(1000), [Pid ! {dead_summary, [{P, normal} || P <- Pids]} || _ <- [1, 2]]"
    ),
    "subscriptions": (
        "Pids = plain_processes:spawn_many(1000),"
        " [Pid ! {'$gen_cast', {process, self(), [{subscribe, P} || P <- Pids]}} || _ <- [1, 2]]"
    ),
    "mixed_terms": (
        '[Pid ! {event, I, #{id => I, name => <<"sensor">>, value => I * 0.5, tags => [a, b, "text"],'
        " at => {{2024, 1, 1}, {12, 0, 0}}}} || I <- lists:seq(1, 200)]"
    ),
}
"""Name of a recording to what the BEAM evaluates; ``Node`` is our node, ``Pid`` a process of it.

The first messages of each announce their atoms and are not replayed.
"""


def main() -> None:
    """Record every load with a connection of its own."""
    ebin = subprocess.run(
        [sys.executable, str(PROJECT / "tools" / "build_fixtures.py")], capture_output=True, text=True, check=True
    ).stdout.strip()
    root = find_otp_roots()[25]
    cookie = secrets.token_hex(8)
    RECORDED.mkdir(exist_ok=True)
    with Epmd.start(root) as epmd:
        for name, load in LOADS.items():
            with Beam.start(root, PEER, cookie, epmd.port, hidden=True, code_paths=[PROJECT / ebin]) as beam:
                (RECORDED / f"{name}.bin").write_bytes(_record(beam, cookie, load))
            print(f"{name}: {(RECORDED / f'{name}.bin').stat().st_size} bytes")


def _record(beam: Beam, cookie: str, load: str) -> bytes:
    port = beam.eval_sync(f'{{port, P, _}} = erl_epmd:port_please("{PEER.partition("@")[0]}", {{127,0,0,1}}), P.')
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as sock:
        recorded = bytearray(join(sock, US, PEER, cookie))
        node = f"Node = '{US}'"
        # <9.1.0> of our node, as the BEAM reads it from the external form.
        pid = f'Pid = binary_to_term(<<131, 88, 119, {len(US)}, "{US}", 0:24, 1, 0:32, 7:32>>)'
        beam.eval_sync(f"{node}, {pid}, {load}, Pid ! {_END.decode()}, ok.")
        while _END not in recorded:
            data = sock.recv(65536)
            if not data:
                raise ConnectionError(f"{beam.name} closed the connection; its log:\n{beam.log}")
            recorded += data
    kept = []
    for frame in frames(bytes(recorded)):
        if _END in frame:
            break
        kept.append(frame)
    return b"".join(kept)


if __name__ == "__main__":
    main()
