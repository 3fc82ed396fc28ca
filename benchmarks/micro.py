"""Codec and wire alone: what one message costs without a socket, a node or a second process.

    python -m benchmarks.micro

The traffic was recorded from a BEAM (``benchmarks.record``). Receiving replays it through ``DistChannel.receive_data``
in reads of 64 KiB; sending gives the same signals to ``DistChannel.send`` and takes the bytes every 64 KiB, as the node
does. CPU time; the least of several repetitions, which is what the code costs when nothing disturbs it.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import as_text, micro_table
from benchmarks.results import Cost
from erlang_interop.flags import OFFERED
from erlang_interop.wire import channel
from erlang_interop.wire.channel import DistChannel

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDED: Final = Path(__file__).resolve().parent / "recorded"
PEER: Final = "driver@127.0.0.1"
READ_SIZE: Final = 64 * 1024
REPETITIONS: Final = 7
REPETITION_S: Final = 0.1


def measure() -> list[Cost]:
    """Measure every recording in ``recorded/``."""
    return [_measure(path) for path in sorted(RECORDED.glob("*.bin"))]


def _measure(path: Path) -> Cost:
    recording = path.read_bytes()
    wire = DistChannel(OFFERED, peer=PEER)
    # The first time round fills the atom cache; from then on only frames that announce nothing new are replayed.
    receive(wire, recording)
    steady = b"".join(frame for frame in frames(recording) if not announces_atoms(frame))
    signals = receive(wire, steady)
    batch = steady * max(1, READ_SIZE // len(steady))
    count = len(signals) * (len(batch) // len(steady))

    def receive_batch() -> None:
        for start in range(0, len(batch), READ_SIZE):
            wire.receive_data(batch[start : start + READ_SIZE])

    sender = DistChannel(OFFERED, peer=PEER)

    def send_batch() -> None:
        for control, payload in signals:
            sender.send(control, payload)
            if sender.pending >= READ_SIZE:
                sender.data_to_send()
        sender.data_to_send()

    receive_ns = least_ns(receive_batch) / count
    if wire.failure is not None:
        raise wire.failure
    return Cost(
        path.stem,
        len(steady) / len(signals),
        receive_ns,
        least_ns(send_batch) / len(signals),
        not str(channel.__file__).endswith(".py"),
    )


def receive(wire: DistChannel, data: bytes) -> list[tuple[tuple[Any, ...], Any]]:
    """All signals in ``data``; raises what is wrong with them."""
    signals = wire.receive_data(data)
    if wire.failure is not None:
        raise wire.failure
    return signals


def frames(recording: bytes) -> list[bytes]:
    """The frames of a recording, each with its length in front; ticks are left out."""
    found = []
    position = 0
    while position < len(recording):
        end = position + 4 + int.from_bytes(recording[position : position + 4], "big")
        if end > position + 4:
            found.append(recording[position:end])
        position = end
    return found


def announces_atoms(frame: bytes) -> bool:
    """Whether a frame's header fills a slot of the atom cache: such a frame occurs once and not a million times."""
    if frame[5] == 70:  # a further fragment has no references
        return False
    count = frame[6 if frame[5] == 68 else 22]
    flags = frame[7 if frame[5] == 68 else 23 :]
    return any((flags[index // 2] >> (4 if index & 1 else 0)) & 8 for index in range(count))


def least_ns(work: Callable[[], None]) -> float:
    """CPU time of one ``work()``, the least of some repetitions."""
    times = 1
    best = float("inf")
    done = 0
    while done < REPETITIONS:
        gc.collect()
        start = time.process_time_ns()
        for _ in range(times):
            work()
        spent = time.process_time_ns() - start
        if spent < REPETITION_S * 1e9 / 2:
            times *= 2
            continue
        best = min(best, spent / times)
        done += 1
    return best


def main() -> None:
    """Print the table."""
    costs = measure()
    print("compiled" if costs[0].compiled else "interpreted")
    print(as_text(micro_table(costs)))


if __name__ == "__main__":
    main()
