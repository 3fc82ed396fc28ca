"""The values are compared with OTP's own in tests/interop/test_constants.py."""

from __future__ import annotations

import pytest

from erlang_interop.flags import MANDATORY, MANDATORY_25, MANDATORY_26, OFFERED, DFlag, announced, missing_mandatory


def test_each_flag_is_one_bit_of_its_own() -> None:
    values = [flag.value for flag in DFlag]
    assert len(set(values)) == len(DFlag.__members__)
    assert all(value.bit_count() == 1 for value in values)


def test_what_we_offer_satisfies_ourselves() -> None:
    assert not missing_mandatory(OFFERED)
    assert MANDATORY == MANDATORY_25 | MANDATORY_26


def test_what_does_not_work_is_not_offered() -> None:
    assert not OFFERED & (DFlag.PUBLISHED | DFlag.NAME_ME | DFlag.ATOM_CACHE | DFlag.HIDDEN_ATOM_CACHE)


@pytest.mark.parametrize("flag", list(MANDATORY))
def test_names_the_flag_that_is_missing(flag: DFlag) -> None:
    without = OFFERED & ~(flag | DFlag.MANDATORY_25_DIGEST)
    assert missing_mandatory(without) == flag
    assert flag.name is not None
    assert flag.name in repr(missing_mandatory(without))


def test_the_digest_stands_for_the_set_of_25() -> None:
    short = DFlag.MANDATORY_25_DIGEST | MANDATORY_26
    assert announced(short) == short | MANDATORY_25
    assert not missing_mandatory(short)
    assert missing_mandatory(DFlag.MANDATORY_25_DIGEST) == MANDATORY_26
    assert announced(DFlag.V4_NC) == DFlag.V4_NC


def test_unknown_bits_are_kept() -> None:
    assert int(announced(1 << 60 | 1)) == 1 << 60 | 1
    assert missing_mandatory(0) == MANDATORY
