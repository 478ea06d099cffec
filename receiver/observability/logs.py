"""How the processes log: one structured line an occurrence, JSON unless a person is reading."""

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

from receiver.text import display
from receiver.text.redaction import redacted

# Local variables hold tokens and secrets: a traceback in the log shows none.
TRACEBACK = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


AUTO, JSON, CONSOLE = "auto", "json", "console"
FORMS = (AUTO, JSON, CONSOLE)  # auto: for people on a terminal, else JSON
PATIENCE = 0.2  # seconds that a line waits for the reader of a full pipe, before it is dropped


def _with_timestamp(_: Any, __: str, event: EventDict) -> EventDict:
    event["timestamp"] = instant(time.time_ns())
    return event


def instant(nanoseconds: int) -> str:
    """An instant as a line shows it: UTC, to the microsecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


# What is bound to the context (the request, the task, the delivery) stands in every line.
_BEFORE: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    _with_timestamp,
]
_PROCESSORS: list[Processor] = []  # changed in place: a logger keeps the list of its first line


class LossyLogger:
    """Drops a line that cannot be written: that must not stop the work.

    The disk may be full, the pipe closed, or full and read by nobody. The next line that is written
    comes behind one that says how many were dropped.
    """

    def __init__(self) -> None:
        self._lock = RLock()  # a signal may come while its thread writes
        self._dropped = 0
        self._is_torn = False  # the line before: its end was dropped

    def msg(self, line: str) -> None:
        self.write(line + "\n")

    def write(self, lines: str) -> None:
        """As a stream, for loggers of the standard library."""
        with self._lock:
            until = time.monotonic() + (0 if self._dropped else PATIENCE)
            text = "\n" * self._is_torn + _of_dropped(self._dropped, like=lines) + lines
            try:
                size = _at_once(text)
                for start in range(0, len(text), size):
                    if not _has_room(until - time.monotonic()):
                        self._dropped += 1
                        return
                    sys.stderr.write(text[start : start + size])
                    sys.stderr.flush()
                    self._is_torn = start + size < len(text)
            except OSError:
                return
            self._dropped = 0

    def flush(self) -> None:
        """Each line has been."""

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _of_dropped(lines: int, like: str) -> str:
    """A line in the form of that one, if there is something to say."""
    if not lines:
        return ""
    told = {"event": "nobody read the log, lines were dropped", "lines": lines, "level": "warning"}
    told["timestamp"] = now = instant(time.time_ns())
    return f"{json.dumps(told) if like[:1] == '{' else f'{now} {told}'}\n"


def _at_once(text: str) -> int:
    """So many characters of it go into a pipe that has room without waiting, as a whole.

    A file takes all of it: in pieces, those of another process could come between.
    """
    size = select.PIPE_BUF if text.isascii() else select.PIPE_BUF // 4
    if len(text) <= size:
        return size
    descriptor = _descriptor()
    is_file = descriptor is None or stat.S_ISREG(os.fstat(descriptor).st_mode)
    return len(text) if is_file else size


def _descriptor() -> int | None:
    """Of standard error; None, if that is not one of the system's."""
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError):
        return None


def _has_room(seconds: float) -> bool:
    """Would a pipe, a socket or a terminal take more, within so many seconds? A file does."""
    descriptor = _descriptor()
    if descriptor is None:
        return True
    polled = select.poll()
    polled.register(descriptor, select.POLLOUT)
    return bool(polled.poll(max(0.0, seconds) * 1000))


STDERR = LossyLogger()


def configure(hide: Callable[[str], str] = redacted, form: str = "auto") -> None:
    """Send every log line of this process to standard error, in one of FORMS.

    `hide` takes the rendered line: whatever its parts were, a secret in them is hidden.
    """
    _PROCESSORS[:] = [*_BEFORE, *_rendering(form), _hiding(hide)]
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: STDERR,
        cache_logger_on_first_use=True,
    )
    rest = logging.StreamHandler(STDERR)  # what libraries say that nobody else listens to
    rest.setLevel(logging.WARNING)
    rest.setFormatter(formatter(hide, form))
    logging.lastResort = rest


def formatter(
    hide: Callable[[str], str] = redacted, form: str = "auto"
) -> structlog.stdlib.ProcessorFormatter:
    """Makes the same lines of what the standard library's loggers are told."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_with_logger, *_BEFORE],
        processors=[_without_record, *_rendering(form), _hiding(hide)],
    )


def _rendering(form: str) -> list[Processor]:
    on_terminal = sys.stderr.isatty()
    if form == CONSOLE or (form == AUTO and on_terminal):
        return [
            _plain_values,
            structlog.dev.ConsoleRenderer(colors=on_terminal, exception_formatter=_traceback),
        ]
    return [TRACEBACK, lambda _, __, event: display.json_ascii(event, default=repr)]


def _plain_values(_: Any, __: str, event: EventDict) -> EventDict:
    """Take the characters that would steer a terminal out of the text of an event."""
    return {
        display.plain(name): display.plain_lines(value) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _traceback(stream: TextIO, error: ExcInfo) -> None:
    shown = StringIO()
    structlog.dev.plain_traceback(shown, error)
    stream.write(display.plain_lines(shown.getvalue()))


def _hiding(hide: Callable[[str], str]) -> Processor:
    return lambda _, __, line: hide(cast("str", line))


def _with_logger(_: Any, __: str, event: EventDict) -> EventDict:
    return {**event, "logger": event["_record"].name}


def _without_record(_: Any, __: str, event: EventDict) -> EventDict:
    return {name: value for name, value in event.items() if not name.startswith("_")}
