"""How the processes log: one structured line an occurrence, JSON unless a person is reading."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from threading import Lock
from typing import Any, cast

import structlog
from structlog.typing import EventDict, Processor

from receiver.redaction import redacted

# Local variables hold tokens and secrets: a traceback in the log shows none.
TRACEBACK = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


AUTO, JSON, CONSOLE = "auto", "json", "console"
FORMS = (AUTO, JSON, CONSOLE)  # auto: for people on a terminal, else JSON


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
_ENCODER = json.JSONEncoder(default=repr)


class LossyLogger:
    """Drops a line that cannot be written: a full disk or a closed pipe must not stop the work."""

    def __init__(self) -> None:
        self._lock = Lock()

    def msg(self, line: str) -> None:
        try:
            with self._lock:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()
        except OSError:
            return

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


_STDERR = LossyLogger()


def configure(hide: Callable[[str], str] = redacted, form: str = "auto") -> None:
    """Send every log line of this process to standard error, in one of FORMS.

    `hide` takes the rendered line: whatever its parts were, a secret in them is hidden.
    """
    _PROCESSORS[:] = [*_BEFORE, *_rendering(form), _hiding(hide)]
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _STDERR,
        cache_logger_on_first_use=True,
    )
    if logging.lastResort is not None:  # what libraries say that nobody else listens to
        logging.lastResort.setFormatter(formatter(hide, form))


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
        traceback = structlog.dev.plain_traceback
        return [
            structlog.dev.ConsoleRenderer(colors=on_terminal, exception_formatter=traceback),
        ]
    return [TRACEBACK, lambda _, __, event: _ENCODER.encode(event)]


def _hiding(hide: Callable[[str], str]) -> Processor:
    return lambda _, __, line: hide(cast("str", line))


def _with_logger(_: Any, __: str, event: EventDict) -> EventDict:
    return {**event, "logger": event["_record"].name}


def _without_record(_: Any, __: str, event: EventDict) -> EventDict:
    return {name: value for name, value in event.items() if not name.startswith("_")}
