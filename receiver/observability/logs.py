"""Structured logs: one line per event, as JSON unless a person reads it on a terminal."""

from __future__ import annotations

import json
import logging
import os
import select
import stat
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from io import StringIO
from threading import RLock
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

from receiver.observability.logger import AUTO, CONSOLE, pending
from receiver.text import display

# Local variables may contain tokens and secrets, so tracebacks do not show them.
TRACEBACK = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
PATIENCE = 0.2  # seconds to wait for the reader of a full pipe, before a line is dropped
DROPPED = "lines were dropped, because the log could not be written"


class LossyLogger:
    """Writes lines to standard error. Drops a line that cannot be written, so that work continues.

    The disk may be full, or the pipe closed, or full without a reader. The next line that can be
    written comes after a line with the number of dropped lines.
    """

    def __init__(self) -> None:
        self._lock = RLock()  # a signal handler may log while its thread writes
        self._dropped = 0
        self._is_torn = False  # the end of the previous line was dropped

    def write(self, line: str) -> None:
        """Write a line, which has to end with a line break."""
        with self._lock:
            deadline = time.monotonic() + (0 if self._dropped else PATIENCE)
            notice = _dropped_line(self._dropped, like=line) if self._dropped else ""
            text = "\n" * self._is_torn + notice + line
            try:
                descriptor: int | None = sys.stderr.fileno()
            except (OSError, ValueError):  # not a file of the system, as in some tests
                descriptor = None
            try:
                # Wait until the pipe, socket or terminal has space. A file always has space.
                space = select.poll()
                if descriptor is not None:
                    space.register(descriptor, select.POLLOUT)
                is_short = len(text) <= _SAFE_PIECE
                size = len(text) or 1 if is_short else _piece_size(text, descriptor)
                for start in range(0, len(text), size):
                    wait = max(0.0, deadline - time.monotonic()) * 1000  # ms
                    if descriptor is not None and not space.poll(wait):
                        self._dropped += 1
                        return
                    sys.stderr.write(text[start : start + size])
                    sys.stderr.flush()
                    self._is_torn = start + size < len(text)
            except OSError:
                return
            self._dropped = 0

    def flush(self) -> None:
        """Do nothing: each line is flushed when it is written."""

    log = debug = info = warn = warning = msg = write
    fatal = failure = err = error = critical = exception = write


# A pipe with space accepts this many bytes without waiting. A character has up to 4 bytes.
_SAFE_PIECE = select.PIPE_BUF // 4


def _piece_size(text: str, descriptor: int | None) -> int:
    """Return how many characters to write in one call.

    A file gets all of them; otherwise, lines of another process could be interleaved.
    """
    if descriptor is None or stat.S_ISREG(os.fstat(descriptor).st_mode):
        return len(text)
    return select.PIPE_BUF if text.isascii() else _SAFE_PIECE


def _dropped_line(lines: int, like: str) -> str:
    """Return a line with the number of dropped lines, in the format of the line `like`."""
    event = _with_timestamp(None, "", {"event": DROPPED, "lines": lines, "level": "warning"})
    return (json.dumps(event) if like[:1] == "{" else f"{event['timestamp']} {event}") + "\n"


def _with_timestamp(_: Any, __: str, event: EventDict) -> EventDict:
    """Add the time in UTC, to the microsecond."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    event["timestamp"] = f"{_second(seconds)}.{rest // 1000:06}Z"
    return event


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


STDERR = LossyLogger()
# Every line contains the values bound to the context: the request, the task, the delivery.
_COMMON: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    _with_timestamp,
]
_PROCESSORS: list[Processor] = []  # changed in place: a logger keeps the list of its first line


def configure(hide: Callable[[str], str] = display.redacted, form: str = AUTO) -> None:
    """Send every log line of this process to standard error, in one of `logger.FORMS`.

    `hide` removes secrets from the rendered line, and so from every value.
    """
    pending.clear()
    _PROCESSORS[:] = [*_COMMON, *_rendering(hide, form, end="\n")]
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: STDERR,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(STDERR)  # for libraries whose log has no other handler
    handler.setLevel(logging.WARNING)
    handler.setFormatter(formatter(hide, form))
    logging.lastResort = handler
    logging.getLogger("requests_hardened").setLevel(logging.ERROR)  # our errors name the address


def formatter(
    hide: Callable[[str], str] = display.redacted, form: str = AUTO
) -> structlog.stdlib.ProcessorFormatter:
    """Return a formatter with which the loggers of the standard library write the same lines."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *_COMMON],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_rendering(hide, form),
        ],
    )


def _rendering(hide: Callable[[str], str], form: str, end: str = "") -> list[Processor]:
    """Return the processors that make a line of an event, without secrets."""
    on_terminal = sys.stderr.isatty()
    if form == CONSOLE or (form == AUTO and on_terminal):
        console = structlog.dev.ConsoleRenderer(
            colors=on_terminal, exception_formatter=_write_traceback
        )
        return [_plain_values, console, lambda _, __, line: hide(cast("str", line)) + end]
    encode = json.JSONEncoder(
        default=repr
    ).encode  # `json.dumps` would create an encoder for each line
    return [TRACEBACK, lambda _, __, event: hide(display.without_lone_escapes(encode(event))) + end]


def _plain_values(_: Any, __: str, event: EventDict) -> EventDict:
    """Replace the characters in the texts of an event that would control a terminal."""
    return {
        display.plain(name): display.plain_lines(value) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _write_traceback(stream: TextIO, error: ExcInfo) -> None:
    shown = StringIO()
    structlog.dev.plain_traceback(shown, error)
    stream.write(display.plain_lines(shown.getvalue()))
