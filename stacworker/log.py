"""Logs: structlog on standard error, console on a terminal, JSON lines elsewhere.

Event names are constant and dotted (`message.acked`); the logs of libraries go through the same
renderer. Never log bodies, credentials or DSNs; what the texts of foreign errors quote is redacted at the end.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import orjson
import structlog

from stacworker.redaction import redacted

Level = Literal["debug", "info", "warning", "error"]


def _dumps(value: object, **_: object) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode("utf-8", "replace")


def _redact(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {key: redacted(value) if isinstance(value, str) else value for key, value in event.items()}


def _console() -> structlog.dev.ConsoleRenderer:
    # Plain tracebacks: the rich ones print local variables, and with them whatever is secret there.
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def configure(level: Level = "info", format: Literal["auto", "json", "console"] = "auto") -> None:  # noqa: A002
    """Set up structlog and the standard library's logging for the whole process."""
    as_json = format == "json" or (format == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer = structlog.processors.JSONRenderer(serializer=_dumps) if as_json else _console()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("botocore", "aiobotocore", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # To it every garbled request is a warning, and anybody can send those.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
