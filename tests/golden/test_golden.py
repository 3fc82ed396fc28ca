"""What each OTP's own ``term_to_binary`` made, kept in files: decoded, compared, encoded again, compared."""

from __future__ import annotations

import base64

import pytest

from erlang_interop.etf import decode, encode
from erlang_interop.terms import Atom, ErlMap
from tests.golden.table import TERMS, Golden, path_of

RELEASES = (25, 27, 28, 29)


def read(release: int) -> dict[str, bytes]:
    lines = [line.split("\t") for line in path_of(release).read_text().splitlines()]
    return {label: base64.b64decode(data) for label, _source, data in lines}


FILES = {release: read(release) for release in RELEASES}
CASES = [
    pytest.param(release, golden, id=f"otp{release} {golden.label}")
    for release in RELEASES
    for golden in TERMS
    if golden.since <= release
]


@pytest.mark.parametrize("release", RELEASES)
def test_a_file_holds_the_whole_table(release: int) -> None:
    lines = path_of(release).read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [
        [golden.label, golden.source] for golden in TERMS if golden.since <= release
    ], "the table has changed: run `make golden`"


@pytest.mark.parametrize(("release", "golden"), CASES)
def test_decodes_to_the_python_value(release: int, golden: Golden) -> None:
    data = FILES[release][golden.label]
    value, end = decode(data)
    assert end == len(data)
    if isinstance(golden.value, type):
        assert type(value) is golden.value
    else:
        assert type(value) is type(golden.value)
        assert value == golden.value
        assert repr(value) == repr(golden.value) or isinstance(value, (dict, ErlMap))  # 1 == 1.0 == True, so repr too


@pytest.mark.parametrize(("release", "golden"), CASES)
def test_encodes_to_the_same_bytes(release: int, golden: Golden) -> None:
    data = FILES[release][golden.label]
    again = encode(decode(data)[0])
    if not golden.canonical:
        assert decode(again) == (decode(data)[0], len(again))
    elif release >= 26:
        assert again == data
    elif not isinstance(golden.value, type):
        # OTP 25 writes latin-1 atoms in the old form; what we make of its terms is what OTP 27 writes (unless there is
        # a large map, whose order is the hash function's).
        assert again in (data, FILES[27][golden.label])
    else:
        assert decode(again)[0] == decode(data)[0]


@pytest.mark.parametrize(("release", "golden"), CASES)
def test_reads_no_further_than_the_term(release: int, golden: Golden) -> None:
    data = FILES[release][golden.label]
    if golden.label == "LOCAL_EXT":
        return  # its end is the end of the data
    assert decode(b"\0\0" + data + b"\x61\x01", offset=2)[1] == len(data) + 2


def test_compressed_terms_are_compressed() -> None:
    """The table means what it says."""
    assert FILES[29]["compressed"][1] == 80
    assert decode(FILES[29]["compressed"])[0][0] == Atom("abc")
