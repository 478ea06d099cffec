"""gunicorn's own log lines, without secrets."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger

from receiver.redaction import redacted


class Formatter(logging.Formatter):
    """Lines and tracebacks without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


class RedactedLogger(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's logger; who sets `--log-config` has a formatter of their own."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            if isinstance(handler.formatter, logging.Formatter):
                handler.setFormatter(Formatter(handler.formatter._fmt, handler.formatter.datefmt))  # noqa: SLF001
