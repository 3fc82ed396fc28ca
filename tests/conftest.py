"""Fixtures of all tests: the genuine BEAMs, one test run for each OTP asked for.

    pytest tests/interop --otp 25 --otp 29         or ZENMON_OTPS="25 29"; without either 25, 27, 28 and 29
    pytest tests/interop -n 2 --dist loadgroup     tests are handed out one by one; each process has BEAMs of its own

A test that takes ``otp``, ``epmd``, ``beam`` or ``fresh_beam`` runs once for each OTP and is marked ``interop``. An OTP
that is not installed is a failure that says what to run; it is never skipped.
"""

from __future__ import annotations

import itertools
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import HealthCheck, settings

from erlang_interop import terms
from erlang_interop._native import core
from erlang_interop.testing.beam import Beam, Epmd, find_otp_roots

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

pytest_plugins = ["tests.rules"]

PROJECT = Path(__file__).resolve().parent.parent
RELEASES = (25, 27, 28, 29)

# A loaded machine is slow, and that is no failure; the same tests show the same on each run. Other examples each time:
# --hypothesis-profile=default.
settings.register_profile(
    "zenmon", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("zenmon")


@dataclass(frozen=True)
class Otp:
    """An OTP to test with: its release, and the folder that holds its ``bin/erl``."""

    release: int
    root: Path


class BeamFactory(Protocol):
    """Starts one more BEAM, with the fixture modules on its path; it is killed when the test ends."""

    def __call__(
        self, name: str | None = None, *, hidden: bool = False, cookie: str | None = None, args: Sequence[str] = ()
    ) -> Beam: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--otp", action="append", type=int, metavar="RELEASE", help="OTP to test with (repeat for more)")
    # Of tests/interop/test_zenmon_soak.py; docs/testing.md says more.
    soak = parser.getgroup("soak")
    soak.addoption("--soak-seed", type=int, metavar="N", help="what is done in the soak test (each OTP has a default)")
    soak.addoption("--soak-seconds", type=float, metavar="S", help="how long it goes on at least")
    soak.addoption("--soak-script", metavar="FILE", help="play this script, which a failure has left")


def pytest_report_header() -> str:
    return f"zenmon-node: {build()} build, {Path(str(terms.__file__)).parent}"


def build() -> str:
    """Which of the two builds these tests run on, or that it is neither: a compiler that did not do all."""
    by_mypyc = not str(terms.__file__).endswith(".py")
    if by_mypyc is (core is None):
        return "half-compiled"
    return "compiled" if by_mypyc else "pure"


def pytest_configure(config: pytest.Config) -> None:
    """Gather the results for the table of rules.

    Refuse to test another build than the one asked for: ZENMON_BUILD=pure (src/) or installed (site-packages).
    """
    asked = os.environ.get("ZENMON_BUILD")
    from_source = Path(str(terms.__file__)).is_relative_to(PROJECT / "src")
    if asked == "pure" and not (from_source and build() == "pure"):
        raise pytest.UsageError(f"ZENMON_BUILD=pure, but the package comes from {terms.__file__}: set PYTHONPATH=src")
    if asked == "installed" and from_source:
        raise pytest.UsageError(
            f"ZENMON_BUILD=installed, but the package comes from {terms.__file__}: unset PYTHONPATH"
        )
    from tests.rules import collect_rules  # here: pytest imports its plugins itself

    collect_rules(config, releases_asked_for(config), RELEASES)


def releases_asked_for(config: pytest.Config) -> list[int]:
    asked: list[int] | None = config.getoption("--otp")
    if asked is None:
        asked = [int(release) for release in os.environ.get("ZENMON_OTPS", "").replace(",", " ").split()]
    return list(dict.fromkeys(asked)) or list(RELEASES)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "otp" in metafunc.fixturenames:
        parameters = [
            pytest.param(release, id=f"otp{release}", marks=pytest.mark.interop)
            for release in releases_asked_for(metafunc.config)
        ]
        metafunc.parametrize("otp", parameters, indirect=True, scope="session")


@pytest.fixture(scope="session")
def otp(request: pytest.FixtureRequest) -> Otp:
    """One of the OTPs asked for."""
    release: int = request.param
    root = find_otp_roots().get(release)
    if root is None:
        pytest.fail(f"OTP {release} is not installed: run tools/get_otp.py {release}", pytrace=False)
    return Otp(release, root)


@pytest.fixture(scope="session")
def fixtures_ebin() -> Path:
    """The folder of the compiled rebar_fixtures, brought up to date."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "tools" / "build_fixtures.py")], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"the Erlang fixtures cannot be compiled: {done.stderr}", pytrace=False)
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def cookie() -> str:
    """The cookie of the test cluster."""
    return secrets.token_hex(8)


@pytest.fixture(scope="session")
def epmd(otp: Otp) -> Iterator[Epmd]:
    """The OTP's own EPMD on a private port; all BEAMs of that OTP are registered there."""
    with Epmd.start(otp.root) as epmd:
        yield epmd


@pytest.fixture(scope="session")
def beam(otp: Otp, epmd: Epmd, cookie: str, fixtures_ebin: Path) -> Iterator[Beam]:
    """A visible BEAM that lives as long as the session. Tests that stop it, or fill it, take ``fresh_beam``."""
    name = f"beam{otp.release}_{secrets.token_hex(3)}@127.0.0.1"
    with Beam.start(otp.root, name, cookie, epmd.port, code_paths=[fixtures_ebin]) as beam:
        yield beam


STARTED = pytest.StashKey[list[Beam]]()
"""The BEAMs that a test started itself, for the report of its failure."""


@pytest.fixture
def fresh_beam(
    request: pytest.FixtureRequest, otp: Otp, epmd: Epmd, cookie: str, fixtures_ebin: Path
) -> Iterator[BeamFactory]:
    """Start BEAMs for this test alone."""
    started = request.node.stash.setdefault(STARTED, [])
    numbers = itertools.count(1)
    prefix = f"fresh{otp.release}_{secrets.token_hex(3)}"
    shared_cookie = cookie

    def start(
        name: str | None = None, *, hidden: bool = False, cookie: str | None = None, args: Sequence[str] = ()
    ) -> Beam:
        beam = Beam.start(
            otp.root,
            name or f"{prefix}_{next(numbers)}@127.0.0.1",
            cookie or shared_cookie,
            epmd.port,
            hidden=hidden,
            code_paths=[fixtures_ebin],
            args=args,
        )
        started.append(beam)
        return beam

    yield start
    for beam in started:
        beam.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what its BEAMs logged to the report of a test that failed."""
    report = yield
    if report.failed and report.when == "call":
        shared = getattr(item, "funcargs", {}).get("beam")
        for beam in [*([shared] if isinstance(shared, Beam) else []), *item.stash.get(STARTED, [])]:
            report.sections.append((f"log of {beam.name}", beam.log[-8000:]))
    return report
