"""The little HTTP server: one page, refusals, and clients that behave badly."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from erlang_interop import AddressInUse, HostNotFound
from zenmon_node.metrics import http, serve_metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.unit.zenmon.conftest import Pair
    from zenmon_node import ZenMonitor

GET = b"GET /metrics HTTP/1.1\r\nHost: here\r\n"


@asynccontextmanager
async def served(zen: ZenMonitor) -> AsyncIterator[int]:
    """The port."""
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(serve_metrics, zen, "127.0.0.1", 0)
        yield int(addresses[0].rpartition(":")[2])
        nursery.cancel_scope.cancel()


async def everything(stream: trio.SocketStream) -> bytes:
    with trio.fail_after(30):
        return b"".join([part async for part in stream])


async def asked(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer, after which the server closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        answer = await everything(stream)
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert headers["connection"] == "close"
    return int(status.split()[1]), headers, body


async def test_the_page(pair: Pair) -> None:
    async with served(pair.zen) as port:
        status, headers, body = await asked(port, GET + b"\r\n")
        assert (status, headers["content-length"]) == (200, str(len(body)))
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "zen_monitor_local_batch_length" in {one.name for one in text_string_to_metric_families(body.decode())}
        _, headers, body = await asked(port, GET + b"Accept: application/openmetrics-text;version=1.0.0\r\n\r\n")
        assert headers["content-type"].startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics?name=x HTTP/1.1\r\nHost: here\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\nHost: here\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"HEAD /metrics HTTP/1.1\r\nHost: here\r\n\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"\x00\x06n\x00\x05\x00\x00\r\n\r\n", 400),
        (GET + b"Junk: " + b"x" * 100_000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_else_is_asked(pair: Pair, request_: bytes, status: int) -> None:
    async with served(pair.zen) as port:
        found, headers, body = await asked(port, request_)
        assert found == status
        assert headers.get("allow") == ("GET" if status == 405 else None)
        assert bool(body) == (not request_.startswith(b"HEAD"))


async def test_a_request_in_pieces(pair: Pair) -> None:
    async with served(pair.zen) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for byte in GET + b"\r\n":
            await stream.send_all(bytes([byte]))
        assert (await everything(stream)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_clients_that_go_away(pair: Pair) -> None:
    async with served(pair.zen) as port:
        for start in (b"", b"GET /met", GET + b"\r\n"):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(start)
            await stream.aclose()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:  # one that sends nothing and says so
            await stream.send_eof()
            assert await everything(stream) == b""
        assert (await asked(port, GET + b"\r\n"))[0] == 200


async def test_a_client_that_is_slow_is_closed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.05)
    async with served(pair.zen) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with suppress(trio.BrokenResourceError):  # where it is closed before this is sent
            await stream.send_all(b"GET /metrics")
            assert await everything(stream) == b""


async def test_clients_are_not_taken_without_limit(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MOST_CONNECTIONS", 1)
    async with served(pair.zen) as port, await trio.open_tcp_stream("127.0.0.1", port) as first:
        async with await trio.open_tcp_stream("127.0.0.1", port) as second:
            assert await everything(second) == b""
        await first.send_all(GET + b"\r\n")
        assert (await everything(first)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_metrics_that_cannot_be_read_are_an_error_of_the_server(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(pair.zen) as port:
        with capture_logs() as logs, monkeypatch.context() as patched:
            patched.setattr(pair.zen, "statistics", lambda: 1 / 0)
            status, _, body = await asked(port, GET + b"\r\n")
        assert (status, body) == (500, b"the metrics could not be read; the node's log says why\n")
        assert [(log["event"], log["log_level"]) for log in logs] == [("the metrics could not be read", "error")]
        assert (await asked(port, GET + b"\r\n"))[0] == 200


async def test_a_port_that_is_taken(pair: Pair) -> None:
    async with served(pair.zen) as port:
        with pytest.raises(AddressInUse, match=f"metrics: cannot listen on 127.0.0.1:{port}: Address already in use"):
            await serve_metrics(pair.zen, "127.0.0.1", port)


async def test_a_host_that_is_none(pair: Pair) -> None:
    with pytest.raises(HostNotFound, match="the host name 'no such host' for the metrics does not resolve"):
        await serve_metrics(pair.zen, "no such host", 0)
