"""What ``io_lib:format`` gives; tests/interop/test_io_server.py has a BEAM judge the same and more."""

from __future__ import annotations

from typing import Any

import pytest

from erlang_interop import Atom, ImproperList
from erlang_interop.otp.io_format import MAX_WIDTH, BadFormat, characters, format_text, write
from erlang_interop.terms import charlist

AB = charlist("ab")

GOOD = [
    ("plain", [], "plain"),
    ("~~ ~n", [], "~ \n"),
    ("~3n", [], "\n\n\n"),
    ("~w ~w", [AB, (1, Atom("it's"))], "[97,98] {1,'it\\'s'}"),
    ("~p ~tp", [AB, b"ab"], '"ab" <<"ab">>'),
    ("~lp", [AB], "[97,98]"),
    ("~P ~W", [AB, 9, AB, 9], '"ab" [97,98]'),
    ("~s ~s ~s", [AB, b"\xe4", Atom("a")], "ab ä a"),
    ("~ts ~ts", ["ż".encode(), b"\xff"], "ż ÿ"),
    ("|~5s|~-5s|~1s|", [AB, AB, AB], "|   ab|ab   |a|"),
    ("|~5.1s|~-5.3s|~.3s|~3.3s|", [AB, AB, AB, AB], "|    a|ab   |ab | ab|"),
    ("|~5w|~-5w|~1w|~5.1w|", [12, 12, 12, 12], "|   12|12   |*|    *|"),
    ("|~4..0w|~*w|~*..*w|", [7, 4, 7, -4, 48, 7], "|0007|   7|7000|"),
    ("~c~3c~5.2c|~tc", [97, 98, 99, 1024], "abbb   cc|Ѐ"),
    ("~b ~B ~.16b ~.16B ~.2b", [10, -10, 255, 255, 5], "10 -10 ff FF 101"),
    ("~# ~.16# ~.16+", [31, -31, 31], "10#31 -16#1F 16#1f"),
    ("~.16x ~.16X ~x", [31, charlist("0x"), -31, Atom("0X"), 5, [b"#"]], "0x1f -0X1F #5"),
    ("~3..0b|~2b", [7, 123], "007|**"),
    ("~f ~.2f ~10.3f", [1.5, 2.345, -1.0], "1.500000 2.35     -1.000"),
    ("~e ~.3e ~e", [1.5, 123456.0, 1e-100], "1.50000e+0 1.23e+5 1.00000e-100"),
    ("~g ~g ~g", [0.5, 123.456, 1e6], "0.500000 123.456 1.00000e+6"),
    ("~i~w", [1, 2], "2"),
]


@pytest.mark.parametrize(("source", "arguments", "text"), GOOD, ids=[source for source, _, _ in GOOD])
def test_formats(source: str, arguments: list[Any], text: str) -> None:
    assert format_text(charlist(source), arguments) == text
    assert format_text(source.encode("latin-1"), arguments) == text
    assert format_text(Atom(source), arguments) == text


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        ("~w", []),
        ("~w", [1, 2]),
        ("~w", Atom("a")),
        ("~", []),
        ("~5", [1]),
        ("~5.", [1]),
        ("~q", [1]),
        ("~Kp", [1, 2]),
        ("~*w", [Atom("a"), 1]),
        ("~5..*w", [-1, 1]),
        ("~.*w", [-1, 1]),
        ("~P", [1]),
        ("~W", [1, Atom("a")]),
        ("~s", [1]),
        ("~s", [[256]]),
        ("~s", [[0xD800]]),
        ("~2.3s", [AB]),
        ("~c", [AB]),
        ("~tc", [-1]),
        ("~1.2c", [97]),
        ("~b", [1.5]),
        ("~b", [True]),
        ("~.1b", [1]),
        ("~.37b", [1]),
        ("~x", [1]),
        ("~x", [1, 2]),
        ("~x", [1, b"0x"]),
        ("~-2n", []),
        ("~.0g", [1.0]),
        ("~f", [1]),
        ("~.0f", [1.0]),
        ("~.1e", [1.0]),
        (f"~{MAX_WIDTH + 1}c", [97]),
        (f"~{MAX_WIDTH}c~c~1n", [97, 97]),
    ],
)
def test_bad_formats(source: str, arguments: Any) -> None:
    with pytest.raises(BadFormat):
        format_text(charlist(source), arguments)


def test_formats_that_are_no_text() -> None:
    for source in (1, 1.5, (), [1.5], [-1], [Atom("a")], ImproperList([97], 98)):
        with pytest.raises(BadFormat):
            format_text(source, [])


def test_a_tilde_in_a_nested_list_is_a_tilde() -> None:
    assert format_text([[126], 119, charlist("~w"), b"~w", *charlist("~w")], [1]) == "~w~w~w1"


def test_a_long_integer_is_in_base_16() -> None:
    for control in ("~w", "~b", "~.7b"):
        assert format_text(control, [1 << 5000]) == f"16#1{'0' * 1250}"
    assert format_text("~.16b", [1 << 5000]) == f"1{'0' * 1250}"


def test_write() -> None:
    assert write([97, b"a", {}, [], "b"]) == "[97,<<97>>,#{},[],<<98>>]"


def test_characters() -> None:
    assert characters([b"a", 98, ImproperList([99], b"d")]) == "abcd"
    assert characters([]) == ""
    assert characters(bytearray(b"\xe4"), latin1=True) == "ä"
    with pytest.raises(ValueError, match="no character here"):
        characters([b"\xc3", 97])
