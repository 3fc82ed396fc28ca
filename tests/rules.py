"""The table *rule by OTP*, ``docs/rules.md``, from the results of the tests.

A test that shows a rule of the protocol says so, ``@pytest.mark.rule("Area: rule in a few words")``. Several tests may
show one rule; it holds on an OTP when all of them passed there. What an OTP does not have leaves its cell empty:
``since=28`` for what came with OTP 28, ``on=(25, 27)`` for other cases.

    pytest tests -m rule --rules-table docs/rules.md     writes the table (``make rules``)
    pytest tests --rules-check docs/rules.md             fails where this run showed something else (``make test``)

The check compares the columns of the OTPs that ran. It is left out, and says so, when only some of the tests ran.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from erlang_interop.testing.beam import find_otp_roots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Where no test of a rule runs on an OTP: what it is about came with a later one.
NOTHING: Final = "-"
PASSED: Final = "passed"
FAILED: Final = "failed"

#: The sections in the order of the table; an area that is not here is a mistake in a mark.
AREAS: Final = (
    "Connections",
    "Handshake",
    "Ticks",
    "Node events",
    "EPMD",
    "Control messages",
    "Aliases",
    "Spawn",
    "Fragments and atom cache",
    "TLS",
    "Identifiers",
    "Terms",
    "Flow control",
    "Visible nodes",
    "Hostile input",
)

INTRODUCTION: Final = """\
# The rules of the protocol, by OTP

Each row is a rule of the distribution protocol, and how the tests that show it ended against a genuine BEAM of each
OTP: `passed` when all of them passed, `failed` when one did not, `-` where none runs, because that OTP does not have
what the rule is about. `make rules` writes this page from the results; `make test` fails when they say something else.
"""

_SAY_VERSIONS: Final = """\
File = filename:join([code:root_dir(), "releases", erlang:system_info(otp_release), "OTP_VERSION"]),
{ok, Release} = file:read_file(File),
io:format("~ts ~ts~n", [string:trim(Release), erlang:system_info(version)]),
halt()."""

_CELL: Final = re.compile(rf"{PASSED}|{FAILED}|{NOTHING}")
_LINK: Final = re.compile(r"\]\(\.\./([^)]*)\)")


# ------------------------------------------------------------------------------------------------------------ the table


@dataclass
class Table:
    """How each rule fared on each OTP, and the tests that show it.

    ``cells`` has ``"Area: rule"`` → release → ``passed`` or ``failed``; ``files`` the paths of the tests below the
    project, with slashes.
    """

    releases: tuple[int, ...]
    cells: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    files: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, rule: str, release: int, file: str, passed: bool) -> None:
        """Count the outcome of one test, or of one of its phases."""
        before = self.cells[rule].get(release, PASSED)
        self.cells[rule][release] = PASSED if passed and before == PASSED else FAILED
        self.files[rule].add(file)

    def sections(self) -> dict[str, list[str]]:
        """The rules of each area, in the order of the page."""
        return {area: sorted(rule for rule in self.cells if area_of(rule) == area) for area in AREAS}

    def differences(self, other: Table, releases: Iterable[int]) -> list[str]:
        """What ``other``, the results, says otherwise than this table, in the columns of ``releases``."""
        told = []
        columns = [release for release in releases if release in self.releases]
        for rule in sorted({*self.cells, *other.cells}):
            for release in columns:
                here, there = (table.cells.get(rule, {}).get(release, NOTHING) for table in (self, other))
                if here != there:
                    told.append(f"{rule!r} on OTP {release}: {here} in the table, {there} in this run")
            whole = set(columns) == set(self.releases)
            if whole and rule in self.cells and rule in other.cells and self.files[rule] != other.files[rule]:
                told.append(f"{rule!r} is shown by {', '.join(sorted(other.files[rule]))}")
        return told


def area_of(rule: str) -> str:
    """``"Handshake"`` of ``"Handshake: cookies per peer"``.

    Raises:
        ValueError: it has no area, or an unknown one.
    """
    area, colon, words = rule.partition(": ")
    if area not in AREAS or not colon or not words.strip() or "|" in rule:
        raise ValueError(f"a rule is marked as 'Area: rule', not {rule!r}; the areas are {', '.join(AREAS)}")
    return area


def render(table: Table, versions: Mapping[int, tuple[str, str]]) -> str:
    """The page. ``versions`` has the versions of OTP and erts of each release."""
    columns = [f"OTP {release}" for release in table.releases]
    parts = [
        INTRODUCTION,
        _lines(
            ["version of", *columns],
            [
                ["OTP", *(versions[release][0] for release in table.releases)],
                ["erts", *(versions[release][1] for release in table.releases)],
            ],
        ),
    ]
    for area, rules in table.sections().items():
        if rules:
            parts.append(f"## {area}\n")
            parts.append(_lines(["rule", *columns, "shown by"], [_row(table, rule) for rule in rules]))
    return "\n".join(parts)


def _row(table: Table, rule: str) -> list[str]:
    cells = [table.cells[rule].get(release, NOTHING) for release in table.releases]
    links = [f"[{Path(file).name}](../{file})" for file in sorted(table.files[rule])]
    return [rule.partition(": ")[2], *cells, ", ".join(links)]


def _lines(heads: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [heads, ["---"] * len(heads), *rows])


def parse(page: str) -> Table:
    """Read what :func:`render` wrote; the versions are left out."""
    area = ""
    table = Table(())
    for line in page.splitlines():
        if line.startswith("## "):
            area = line[3:]
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not area or not line.startswith("| ") or set(line) <= set("| -"):
            continue
        if cells[0] == "rule":
            table.releases = tuple(int(cell.removeprefix("OTP ")) for cell in cells[1:-1])
            continue
        rule = f"{area}: {cells[0]}"
        for release, cell in zip(table.releases, cells[1:-1], strict=True):
            if not _CELL.fullmatch(cell):
                raise ValueError(f"{cell!r} in the row of {rule!r} is neither passed nor failed")
            if cell != NOTHING:
                table.cells[rule][release] = cell
        table.files[rule] = set(_LINK.findall(cells[-1]))
    return table


def versions_of(root: Path) -> tuple[str, str]:
    """The versions of OTP, with its patch level, and of erts, that the BEAM at ``root`` says it is."""
    argv = [str(root / "bin" / "erl"), "-noshell", "-boot", "no_dot_erlang", "-eval", _SAY_VERSIONS]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    return said[0], said[1]


# ----------------------------------------------------------------------------------------------------------- the plugin


class Collecting:
    """Gathers the results of a run in the process that has them all, and writes or checks the page at its end."""

    def __init__(self, config: pytest.Config, releases: tuple[int, ...]) -> None:
        self.config = config
        self.table = Table(releases)
        self.write_to: Path | None = config.getoption("--rules-table")
        self.compare_with: Path | None = config.getoption("--rules-check")
        self.said: list[str] = []
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of a test: what fails in its set-up or at its end fails the rule as well."""
        if not report.failed and not (report.passed and report.when == "call"):
            return  # nothing was shown
        properties = report.user_properties
        rules = [str(value) for name, value in properties if name == "rule"]
        for release in (int(str(value)) for name, value in properties if name == "otp"):
            for rule in rules:
                self.table.add(rule, release, report.location[0].replace("\\", "/"), not report.failed)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write or compare; what is wrong makes the run fail."""
        stopped = session.shouldstop or session.shouldfail
        if self.write_to is not None:
            stopped = stopped or self.config.option.keyword or ("" if self.table.cells else "no test of a rule ran")
            if stopped:
                self._complain(f"{self.write_to} is left as it was: not all tests of rules ran ({stopped})")
            else:
                roots = find_otp_roots()
                versions = {release: versions_of(roots[release]) for release in self.table.releases}
                self.write_to.write_text(render(self.table, versions))
                self.said.append(f"{self.write_to}: {len(self.table.cells)} rules")
        if self.compare_with is not None:
            partial = stopped or self._selection()
            if partial:
                self.said.append(f"{self.compare_with} was not compared: only some of the tests ran ({partial})")
            else:
                self._compare(self.compare_with)
        if self.failed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what came of it."""
        if self.said:
            terminalreporter.section("rules by OTP")
            for line in self.said:
                terminalreporter.write_line(line, red=self.failed)

    def _compare(self, page: Path) -> None:
        if not page.is_file():
            self._complain(f"{page} is missing: run 'make rules'")
            return
        committed = parse(page.read_text())
        differences = committed.differences(self.table, self.table.releases)
        if differences:
            self._complain(f"{page} is not what this run showed: run 'make rules', and look at the difference")
            self.said += differences
        else:
            self.said.append(f"{page} is true of this run")

    def _complain(self, line: str) -> None:
        self.failed = True
        self.said.append(line)

    def _selection(self) -> str:
        """What keeps this run from being one of all tests; empty if nothing does."""
        option = self.config.option
        chosen = [f"-k {option.keyword}"] if option.keyword else []
        chosen += [f"-m {option.markexpr}"] if option.markexpr else []
        chosen += [f"--deselect {name}" for name in option.deselect or ()]
        chosen += [f"--ignore {path}" for path in option.ignore or ()]
        chosen += ["--lf"] if getattr(option, "lf", False) else []
        given = [Path(str(argument)).resolve() for argument in self.config.args]
        for folder in self.config.getini("testpaths"):
            if not any((self.config.rootpath / folder).is_relative_to(path) for path in given):
                chosen += [str(argument) for argument in self.config.args]
        return ", ".join(chosen)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rules by OTP")
    group.addoption("--rules-table", type=Path, metavar="FILE", help="write the table of rules and OTPs to FILE")
    group.addoption("--rules-check", type=Path, metavar="FILE", help="fail when the table in FILE is not true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test's reports its rules and its OTP: this is what reaches the controller of pytest-xdist.

    Raises:
        pytest.UsageError: a mark that is no rule, or on a test that runs on no OTP.
    """
    for item in items:
        marks = list(item.iter_markers("rule"))
        if not marks:
            continue
        callspec = getattr(item, "callspec", None)
        if callspec is None or "otp" not in callspec.params:
            raise pytest.UsageError(f"{item.nodeid} shows a rule on no OTP: it takes none of otp, epmd and beam")
        release = callspec.params["otp"]
        item.user_properties.append(("otp", release))
        rules = [_rule(item, mark, release) for mark in marks]
        item.user_properties += [("rule", rule) for rule in dict.fromkeys(rules) if rule]


def _rule(item: pytest.Item, mark: pytest.Mark, release: int) -> str:
    """The rule that a mark names; empty where this OTP does not have what it is about."""
    if len(mark.args) != 1 or not mark.kwargs.keys() <= {"since", "on"} or not isinstance(mark.args[0], str):
        raise pytest.UsageError(f"{item.nodeid}: a rule is marked as pytest.mark.rule('Area: rule', since=28)")
    try:
        area_of(mark.args[0])
    except ValueError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None
    has_it = release >= mark.kwargs.get("since", 0) and release in mark.kwargs.get("on", (release,))
    return mark.args[0] if has_it else ""


def collect_rules(config: pytest.Config, releases: Iterable[int], all_releases: Iterable[int]) -> None:
    """Begin to gather, in the process that sees all results, where a table is to be written or checked.

    Raises:
        pytest.UsageError: a table is to be written from some of the OTPs only.
    """
    options = config.getoption("--rules-table"), config.getoption("--rules-check")
    if hasattr(config, "workerinput") or options == (None, None):
        return
    asked = tuple(sorted(releases))
    if options[0] is not None and not set(asked) >= set(all_releases):
        names = ", ".join(str(release) for release in sorted(all_releases))
        raise pytest.UsageError(f"the table has a column for each of OTP {names}: run the tests with all of them")
    config.pluginmanager.register(Collecting(config, asked), "rules-by-otp")
