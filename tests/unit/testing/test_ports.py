import socket
from pathlib import Path

import pytest

from erlang_interop.testing import ports
from erlang_interop.testing.ports import free_port

ASKED = 200


def of_worker(monkeypatch: pytest.MonkeyPatch, number: int, count: int) -> set[int]:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", str(count))
    every = ports._own_ports()
    first = next(every)
    return {first, *iter(lambda: next(every), first)}


@pytest.fixture
def system_range(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    told_in = tmp_path / "ip_local_port_range"
    monkeypatch.setattr(ports, "_SYSTEM_RANGE", told_in)
    return told_in


def test_a_port_can_be_listened_on_and_is_given_once() -> None:
    given = [free_port() for _ in range(ASKED)]

    assert len(set(given)) == ASKED
    socket.create_server(("127.0.0.1", given[0])).close()


def test_a_port_that_somebody_listens_on_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    monkeypatch.setattr(ports, "_ports", iter([taken, free]))

    with socket.create_server(("127.0.0.1", taken)):
        assert free_port() == free


def test_test_processes_share_the_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = of_worker(monkeypatch, 0, 2), of_worker(monkeypatch, 1, 2)

    assert not one & other
    assert one | other == of_worker(monkeypatch, 0, 1)


def test_no_port_is_one_that_the_system_chooses(monkeypatch: pytest.MonkeyPatch, system_range: Path) -> None:
    system_range.write_text("20000\t65535\n")

    assert max(of_worker(monkeypatch, 0, 1)) < 20000


@pytest.mark.parametrize("told", ["1024\t65535\n", "10000\t60999\n"])
def test_where_the_system_takes_nearly_all_there_are_ports_still(
    monkeypatch: pytest.MonkeyPatch, system_range: Path, told: str
) -> None:
    system_range.write_text(told)

    assert len(of_worker(monkeypatch, 0, 1)) >= ports._FEWEST
