"""The C core against the Python source that is its reference: the same bytes, and the same terms, given to both.

    python tests/core_fuzz.py CORE SECONDS SEED

CORE is the extension, wherever it was built; ``unit/test_core.py`` builds it with AddressSanitizer and
UndefinedBehaviorSanitizer, and ``make fuzz`` runs that for longer. Golden terms and frames of all operations are
decoded as they are and with bytes changed; terms that are made up are encoded, and some of them are none. Both sides
must give the same term and position, or the same error at the same place; the same bytes, and leave the same behind.
At the end the same rounds are gone through again and again, and must leave nothing behind at all.
"""

from __future__ import annotations

import base64
import gc
import importlib.machinery
import importlib.util
import random
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any, Final

PROJECT: Final = Path(__file__).resolve().parent.parent


def load_core(path: str) -> None:
    """Make the extension at ``path`` the package's core, before anything of the package is imported."""
    name = "erlang_interop._core"
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)


if __name__ == "__main__":
    sys.path[:0] = [str(PROJECT / "src"), str(PROJECT)]
    load_core(sys.argv[1])

from erlang_interop._native import core  # noqa: E402
from erlang_interop.errors import DecodeError, EncodeError  # noqa: E402
from erlang_interop.etf import _decode, _encode  # noqa: E402
from erlang_interop.terms import (  # noqa: E402
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
)
from erlang_interop.wire import channel  # noqa: E402
from erlang_interop.wire.control import LAYOUTS  # noqa: E402
from tests.golden.table import FOLDER  # noqa: E402
from tests.wrong_bytes import HEADERS, PID, any_changes, changed, frames_of  # noqa: E402

NODE = PID.node
ATOMS: list[Any] = [NODE, True, Atom("ok"), None]
NAMES: list[Any] = [NODE, Atom("ok"), Atom("é" * 130), Atom("true"), Atom("")]


class Mine(int):
    """An integer to Erlang, and one of the seldom types."""


# ---------------------------------------------------------------------------------------------------------- decoding


def decoded(decode_terms: Any, *args: Any) -> tuple[Any, ...]:
    """What decoding comes to: terms and position, or the error."""
    try:
        terms, behind = decode_terms(*args)
    except DecodeError as error:
        return "error", error.message, error.offset
    return "terms", repr(terms), behind


def check_decoding(data: bytes, pos: int, end: int, count: int, max_depth: int) -> None:
    """Decode ``data[pos:end]`` on both sides."""
    args = (data, pos, end, count, ATOMS, max_depth)
    ours, reference = decoded(_decode.decode_terms, *args), decoded(_decode.decode_terms_interpreted, *args)
    assert ours == reference, (args, ours, reference)


def check_frames(data: bytes, headers: dict[bytes, list[Any]]) -> None:
    """Read frames on both sides; the core may stop earlier, at an operation it leaves to Python."""
    results = []
    for read_frames in (channel.read_frames, channel.read_frames_interpreted):
        signals: list[Any] = []
        results.append((read_frames(data, 0, headers, NODE, 200, signals), [repr(signal) for signal in signals]))
    (ours, our_signals), (behind, signals_) = results
    assert ours <= behind, (data, ours, behind)
    assert our_signals == signals_[: len(our_signals)], data
    assert ours == behind or our_signals != signals_, (data, ours, behind)


def headers_of(frames: bytes) -> dict[bytes, list[Any]]:
    """A table of headers in which the first frame's is known."""
    count = frames[6]
    return {frames[6 : 8 + count // 2 + count]: (ATOMS * 64)[: max(count, 1)]}


# ---------------------------------------------------------------------------------------------------------- encoding


def encoded(writer: Any, term: Any, refs: dict[bytes, int] | None, max_depth: int) -> tuple[Any, ...]:
    """What encoding comes to: bytes, or the error; and what it leaves behind."""
    writer.truncate(0)
    writer.write(b"before")
    refs = None if refs is None else dict(refs)
    try:
        writer.write_term(term, refs, max_depth)
    except EncodeError as error:
        return "error", str(error), writer.getvalue(), refs
    return "bytes", writer.getvalue(), refs and list(refs.items())


OURS, REFERENCE = _encode.TermWriter("too old"), _encode.TermWriterInterpreted("too old")


def check_encoding(term: Any, numbers: random.Random) -> None:
    """Encode ``term`` on both sides, and as part of a frame."""
    refs = numbers.choice((None, {}, {Atom("ok").wire: 0}, {bytes((119, 1, byte)): byte for byte in range(254)}))
    args = (term, refs, numbers.choice((0, 1, 3, 10_000)))
    ours, reference = encoded(OURS, *args), encoded(REFERENCE, *args)
    assert ours == reference, (args, ours, reference)
    results: list[tuple[Any, ...]] = []
    for writer in (OURS, REFERENCE):
        writer.truncate(0)
        known = {Atom("ok").wire: 0, NODE.wire: 1}
        result: int | str
        try:
            result = writer.write_frame(b"\0\0\0\0\x83D", known, 100, (Atom("ok"), PID), term)
        except EncodeError as error:
            result = str(error)
        results.append((result, writer.getvalue(), list(known.items())))
    assert results[0] == results[1], (term, results)


def any_term(numbers: random.Random, depth: int = 3) -> Any:
    """A term, or nearly one, which must then be refused alike."""

    def number() -> int:
        bits = numbers.choice((0, 1, 8, 31, 32, 63, 64, 3000))
        return numbers.choice((1, -1)) * ((1 << bits) - numbers.randrange(2))

    def small() -> int:
        return numbers.choice((0, 7, 0xFFFFFFFF, 1 << 32, -1))

    atom = numbers.choice(NAMES)
    kind = numbers.randrange(26 if depth else 18)
    if kind >= 18:
        parts = [any_term(numbers, depth - 1) for _ in range(numbers.choice((0, 1, 2, 3, 4 if depth > 1 else 300)))]
        match kind:
            case 18 | 19 | 20:
                return tuple(parts)
            case 21 | 22:
                return parts
            case 23:
                return {repr(part): part for part in parts}
            case 24 if parts and not isinstance(parts[-1], list):
                return ImproperList(parts[:1], parts[-1])
            case _:
                return ErlMap([(1, parts), (1.0, 2)]) if all(map(is_term, parts)) else [parts, parts]
    simple: list[Any] = [
        atom,
        atom,
        number(),
        numbers.randrange(256),
        None,
        numbers.random() < 0.5,
        Pid(NODE, small(), 1, small()),
        Pid(atom, numbers.randrange(1 << 32), 0, 5),
        Reference(atom, small(), numbers.randbytes(numbers.choice((4, 12, 12, 20)))),
        Reference(NODE, 1, numbers.randbytes(numbers.choice((0, 3, 12, 24)))),
        Port(atom, number(), small()),
        numbers.choice((b"", b"bytes", bytearray(b"array"), "text", "é", "\ud800", bytes(300))),
        numbers.choice((0.0, -1.5, float("nan"), float("-inf"))),
        [numbers.randrange(257) for _ in range(numbers.choice((1, 5, 400)))],
        numbers.choice((Export(atom, Atom("f"), 2), BitString(b"\x80", 1), LocalTerm(b"x"), object(), {1, 2}, Mine(3))),
        Record(Atom("m"), Atom("r"), True, ((Atom("x"), 1),)),
        Fun(Atom("m"), 1, b"u" * 16, 2, 3, 1, PID, (atom, [2])),
        (),
    ]
    return simple[kind]


def is_term(value: Any) -> bool:
    """Whether an ErlMap can hold it."""
    try:
        _encode.encode(value)
    except EncodeError:
        return False
    return True


def nested(numbers: random.Random) -> Any:
    """A term about as deep as the recursive ways go."""
    term = any_term(numbers, 1)
    for _ in range(numbers.choice((98, 99, 100, 101, 150))):
        term = (term,) if numbers.random() < 0.5 else [term, NODE]
    return term


# ------------------------------------------------------------------------------------------------------- the programme


def vectors() -> list[bytes]:
    """Terms without their version byte."""
    lines = [line.split("\t") for path in sorted(FOLDER.glob("*.tsv")) for line in path.read_text().splitlines()]
    whole = [base64.b64decode(line[2])[1:] for line in lines]
    return [data for data in whole if data[0] not in (80, 121)]  # compressed and local terms are read elsewhere


def one_round(numbers: random.Random, terms: list[bytes], frames: list[bytes]) -> None:
    """Everything once, of what the numbers choose."""
    data = numbers.choice(terms)
    if numbers.random() < 0.2:
        data = b"h\1" * numbers.choice((1, 99, 100, 130)) + data
    if numbers.random() < 0.3:
        data = bytes((104, 2)) + data + b"R" + bytes((numbers.randrange(5),))
    if numbers.random() < 0.8:
        data = changed(data, any_changes(numbers))
    end = len(data) if numbers.random() < 0.7 else numbers.randrange(len(data) + 1)
    check_decoding(data, 0, end, numbers.choice((0, 1, 1, 1, 2)), numbers.choice((0, 1, 5, 200)))
    data = numbers.choice(frames)
    headers = headers_of(data)
    check_frames(data, headers)
    check_frames(changed(data * 2, any_changes(numbers)), headers)
    check_encoding(any_term(numbers) if numbers.random() < 0.9 else nested(numbers), numbers)


def check_for_leaks(terms: list[bytes], frames: list[bytes]) -> None:
    """The same rounds over and over must leave no more memory behind, and no more references to what they share."""
    shared = [None, True, NODE, NODE.wire, ATOMS, Pid, Reference, Atom, OURS]

    def rounds() -> list[int]:
        numbers = random.Random(7)
        for _ in range(300):
            one_round(numbers, terms, frames)
        gc.collect()
        return [sys.getrefcount(one) for one in shared]

    rounds()
    tracemalloc.start()
    rounds()
    before, held = rounds(), tracemalloc.get_traced_memory()[0]
    after, more = rounds(), tracemalloc.get_traced_memory()[0] - held
    tracemalloc.stop()
    assert more < 50_000, f"{more} bytes more after 300 rounds"
    grown = [one for one, old, new in zip(shared, before, after, strict=True) if new - old > 100]
    assert not grown, f"more references than before: {grown}"


def main() -> None:
    """Run for so many seconds at least; say how far it got."""
    seconds, seed = float(sys.argv[2]), int(sys.argv[3])
    assert core is not None
    terms = vectors()
    frames = [frames_of(layout, HEADERS) for layout in LAYOUTS]
    for data in terms:
        check_decoding(data, 0, len(data), 1, 200)
    started, count = time.monotonic(), 0
    numbers = random.Random(seed)
    while time.monotonic() - started < seconds:
        one_round(numbers, terms, frames)
        count += 1
    check_for_leaks(terms, frames)
    sys.stdout.write(f"{count} rounds, seed {seed}\n")


if __name__ == "__main__":
    main()
