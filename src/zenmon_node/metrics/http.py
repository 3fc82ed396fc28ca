"""``GET /metrics`` over HTTP/1.1, on the node's own loop. h11 knows HTTP; what it says here is one page and refusals.

Whoever asks gets one answer on one connection. What is no request, is too large or takes too long ends its connection
and nothing else.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11
import trio

from erlang_interop import AddressInUse, HostNotFound
from erlang_interop.runtime.transport import Stream, listen

from ..logs import get_logger
from .prometheus import Page

if TYPE_CHECKING:
    from ..app import ZenMonitor

log = get_logger("zenmon_node.metrics")

#: Seconds for a request and its answer.
PATIENCE: Final = 10.0
#: Bytes that the head of a request may have.
MOST_BYTES: Final = 16 * 1024
#: Connections at a time; one more is closed at once, so that scrapers gone wrong leave sockets for the cluster.
MOST_CONNECTIONS: Final = 50
PATH: Final = b"/metrics"

_PLAIN: Final = "text/plain; charset=utf-8"


async def serve_metrics(
    zen: ZenMonitor, host: str, port: int, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the metrics of ``zen`` on ``http://host:port/metrics`` until cancelled.

    Args:
        zen: What is to be read.
        host: On each address of this name; a loopback address keeps them on this machine.
        port: The port; 0 takes a free one.
        task_status: Told the addresses, as ``host:port``, once it listens.

    Raises:
        AddressInUse: the port is taken, or the address is not of this machine.
        HostNotFound: the name does not resolve.
    """
    try:
        listener = await listen(host, port)
    except HostNotFound as error:
        raise HostNotFound(f"the host name {host!r} for the metrics does not resolve: {error.__cause__}") from error
    except AddressInUse as error:
        raise AddressInUse(f"metrics: {error}") from error
    server = _Server(Page(zen))
    try:
        async with trio.open_nursery() as nursery:
            task_status.started(listener.addresses)
            await listener.serve(server.serve, nursery)
    finally:
        listener.close()


class _Server:
    """Answers the connections of one listener."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._connections = 0

    async def serve(self, stream: Stream) -> None:
        self._connections += 1
        try:
            if self._connections <= MOST_CONNECTIONS:
                with trio.move_on_after(PATIENCE):
                    await self._exchange(stream)
        except OSError as error:
            log.debug("the client went away", client=stream.address, error=str(error))
        finally:
            self._connections -= 1
            stream.close()

    async def _exchange(self, stream: Stream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_BYTES)
        without_body = False
        try:
            request = await _request(http, stream)
            if request is None:
                return
            without_body = request.method == b"HEAD"
            status, headers, body = await self._answer(request)
        except h11.RemoteProtocolError as error:
            log.debug("no HTTP request", client=stream.address, error=str(error))
            status, headers, body = _refusal(HTTPStatus(error.error_status_hint))
        headers |= {"Content-Length": str(len(body)), "Connection": "close"}
        response = h11.Response(status_code=status, reason=status.phrase, headers=list(headers.items()))
        out = [http.send(response), http.send(h11.Data(b"" if without_body else body)), http.send(h11.EndOfMessage())]
        await stream.send_all(b"".join(part for part in out if part))
        stream.end()
        while await stream.receive_some():  # closing with something unread would take the answer away from the client
            pass

    async def _answer(self, request: h11.Request) -> tuple[HTTPStatus, dict[str, str], bytes]:
        if request.target.partition(b"?")[0] != PATH:
            return _refusal(HTTPStatus.NOT_FOUND, "the metrics are at /metrics")
        if request.method != b"GET":
            status, headers, body = _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "only GET")
            return status, headers | {"Allow": "GET"}, body
        accept = b", ".join(value for name, value in request.headers if name == b"accept")
        try:
            body, content_type = await self._page.render(accept.decode("latin-1"))
        except Exception:
            log.exception("the metrics could not be read")  # which must not end the node
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the metrics could not be read; the node's log says why")
        return HTTPStatus.OK, {"Content-Type": content_type}, body


def _refusal(status: HTTPStatus, text: str = "") -> tuple[HTTPStatus, dict[str, str], bytes]:
    return status, {"Content-Type": _PLAIN}, f"{text or status.phrase}\n".encode()


async def _request(http: h11.Connection, stream: Stream) -> h11.Request | None:
    """The request; None if the connection ends without one."""
    while True:
        event = http.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        http.receive_data(await stream.receive_some())
