"""What the page of rules says of the OTPs that the tests ran on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.rules import versions_of

if TYPE_CHECKING:
    from tests.conftest import Otp


def test_the_versions_of_a_beam(otp: Otp) -> None:
    version, runtime = versions_of(otp.root)
    assert version.startswith(f"{otp.release}.")
    assert int(runtime.split(".")[0]) == otp.release - 12
