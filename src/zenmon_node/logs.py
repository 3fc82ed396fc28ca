"""Logs of the program: structlog, configured once; the records of the standard library go the same way.

``erlang_interop`` logs through the standard library, since a library must not choose. What this package says about its
own running are structlog events. Both leave as one line each on one stream, for people or as JSON.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from structlog.typing import Processor

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

#: What both kinds of records go through before they are rendered.
_SHARED: Final[Sequence[Processor]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(level: Level = "info", *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Set up logging for the whole program; a second call replaces the first.

    Args:
        level: What is less important is left out.
        as_json: One JSON object a line, instead of text for people.
        stream: Where the lines go; None: standard error.
    """
    stream = stream or sys.stderr
    renderer: list[Processor]
    if as_json:
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        renderer = [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What the library calls information, the program says in its own words; what it calls a warning is one.
    logging.getLogger("erlang_interop").setLevel("WARNING" if level == "info" else level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> Any:
    """A structlog logger: ``log.info("connected", node="beam@127.0.0.1")``."""
    return structlog.stdlib.get_logger(name)
