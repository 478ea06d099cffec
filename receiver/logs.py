"""How the processes log: one structured line an occurrence, JSON unless a person is reading."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from receiver.redaction import redacted

# Local variables hold tokens and secrets: a traceback in the log shows none.
TRACEBACK = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def configure() -> None:
    """Send every log line of this process to standard error."""
    for_people = sys.stderr.isatty()
    renderer = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if for_people
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if for_people else TRACEBACK,
            renderer,
            _without_secrets,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _without_secrets(_: Any, __: str, line: Any) -> str:
    """The rendered line: whatever its parts were, a secret in them is hidden."""
    return redacted(line)
