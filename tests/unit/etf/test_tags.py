"""Tag numbers, held against what each OTP's own ``term_to_binary`` writes (tests/golden)."""

import base64
from pathlib import Path

import pytest

from erlang_interop.etf import tags

GOLDEN = Path(__file__).resolve().parents[2] / "golden"


def first_tags(release: int) -> set[int]:
    lines = (GOLDEN / f"otp{release}.tsv").read_text(encoding="utf-8").splitlines()
    terms = [base64.b64decode(line.split("\t")[2]) for line in lines if line and not line.startswith("#")]
    assert all(term[0] == tags.VERSION for term in terms)
    return {term[1] for term in terms}


@pytest.mark.parametrize("release", [25, 27, 28, 29])
def test_every_tag_that_an_otp_writes_has_a_name(release: int) -> None:
    assert first_tags(release) <= tags.NAMES.keys()


def test_a_name_stands_for_one_number() -> None:
    constants = {name: value for name, value in vars(tags).items() if name.endswith("_EXT")}
    assert len(set(constants.values())) == len(constants)
    assert all(tags.NAMES[value] == name for name, value in constants.items())


def test_the_record_tag_is_of_otp_29_alone() -> None:
    assert tags.RECORD_EXT in first_tags(29)
    assert tags.RECORD_EXT not in first_tags(25) | first_tags(27) | first_tags(28)
