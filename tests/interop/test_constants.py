"""The distribution flags, compared with OTP's own: its header file, and what its emulator says of itself.

OTP 28 comes from a wheel that has no header files; there the emulator alone is asked. The emulator's answer is the list
it announces in the handshake, ``erts_internal:get_dflags/0``; it has no names in it, but it would show a flag that is
missing here, or one that was moved.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from erlang_interop.flags import MANDATORY_25, MANDATORY_26, OFFERED, DFlag
from erlang_interop.terms import Atom

if TYPE_CHECKING:
    from erlang_interop.testing.beam import Beam

DEFINE = re.compile(r"^-define\(DFLAG_(\w+),\s*\(?16#([0-9A-Fa-f]+)(?: bsl (\d+))?\)?\)\.", re.MULTILINE)
MANDATORY_SET = re.compile(r"^-define\(MANDATORY_DFLAGS_(\d+),(.*?)\)\.$", re.MULTILINE | re.DOTALL)

#: In the header, and no flag a node may send: a mask of unused bits, and a mark of the emulator's own.
INTERNAL = {"RESERVED", "LOCAL_EXT"}
LOCAL_EXT = 1 << 36
#: What came after OTP 25.
SINCE = {"ALTACT_SIG": 28, "NATIVE_RECORDS": 29}


@pytest.mark.rule("Handshake: the flags have the values of dist.hrl", on=(25, 27, 29))
async def test_flags_are_those_of_the_header(beam: Beam) -> None:
    answer = await beam.eval('file:read_file(filename:join(code:lib_dir(kernel), "include/dist.hrl"))')
    if beam.release == 28:
        assert answer == (Atom("error"), Atom("enoent")), "OTP 28 has header files now: compare with them"
        return
    text = answer[1].decode()
    theirs = {name: int(digits, 16) << int(shift or 0) for name, digits, shift in DEFINE.findall(text)}
    ours = {name: flag.value for name, flag in DFlag.__members__.items() if SINCE.get(name, 0) <= beam.release}
    assert {name: value for name, value in theirs.items() if name not in INTERNAL} == ours

    mandatory = {int(otp): set(re.findall(r"\?DFLAG_(\w+)", names)) for otp, names in MANDATORY_SET.findall(text)}
    expected = {25: {flag.name for flag in MANDATORY_25}, 26: {flag.name for flag in MANDATORY_26}}
    assert mandatory == {otp: names for otp, names in expected.items() if otp <= beam.release}


@pytest.mark.rule("Handshake: the flags are those the emulator announces")
async def test_flags_are_those_the_emulator_announces(beam: Beam) -> None:
    _, default, mandatory, _addable, _rejected, _ordered = await beam.eval("erts_internal:get_dflags()")
    known = sum(flag.value for flag in DFlag)
    assert default & ~(known | LOCAL_EXT) == 0, "the BEAM announces a flag that DFlag does not have"
    assert mandatory == (MANDATORY_25 if beam.release == 25 else MANDATORY_25 | MANDATORY_26)
    for name, release in SINCE.items():
        assert bool(default & DFlag[name]) is (beam.release >= release)


@pytest.mark.rule("Handshake: no flag is offered that a BEAM does not have")
@pytest.mark.parametrize("flag", list(OFFERED))
async def test_what_we_offer_a_beam_offers_too(beam: Beam, flag: DFlag) -> None:
    """Each bit we set means something to the peer; net_kernel adds those the emulator leaves to it."""
    default = (await beam.eval("erts_internal:get_dflags()"))[1]
    later = DFlag.MANDATORY_25_DIGEST | DFlag.DIST_HDR_ATOM_CACHE
    assert default & flag or flag & later or SINCE.get(str(flag.name), 0) > beam.release
