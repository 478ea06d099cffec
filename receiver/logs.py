"""How the processes log: one structured line an occurrence, JSON unless a person is reading."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import cast

import structlog

from receiver.redaction import redacted

# Local variables hold tokens and secrets: a traceback in the log shows none.
TRACEBACK = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


class LossyLogger(structlog.PrintLogger):
    """Drops a line that cannot be written: a full disk or a closed pipe must not stop the work."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def configure(hide: Callable[[str], str] = redacted) -> None:
    """Send every log line of this process to standard error.

    `hide` takes the rendered line: whatever its parts were, a secret in them is hidden.
    """
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
            lambda _, __, line: hide(cast("str", line)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: LossyLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
