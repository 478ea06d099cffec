"""The logger of the modules that commands use: it imports structlog at its first line.

That import takes longer than everything else that a short command does.
"""

# ruff: noqa: PLC0415 - see above
from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any

AUTO, JSON, CONSOLE = "auto", "json", "console"
FORMS = (AUTO, JSON, CONSOLE)  # auto: CONSOLE on a terminal, otherwise JSON


class Logger:
    """A logger of structlog, with its methods."""

    @cached_property
    def _logger(self) -> Any:
        configure_now()
        import structlog

        return structlog.get_logger()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)


class _FirstLine(logging.Handler):
    """Configures the logs when a library logs first, and passes its line on."""

    def emit(self, record: logging.LogRecord) -> None:
        configure_now()
        if logging.lastResort is not self and logging.lastResort is not None:
            logging.lastResort.handle(record)


pending: list[Callable[[], None]] = []  # at most one; `logs.configure` removes it


def configure_at_first_line(configure: Callable[[], None]) -> None:
    """Call `configure` before the first line, or now if structlog is imported already."""
    pending[:] = [configure]
    if "structlog" in sys.modules:
        configure_now()
    else:
        logging.lastResort = _FirstLine(logging.WARNING)


def configure_now() -> None:
    """Configure the logs, unless this was done before.

    Call this before code of another package, which may use structlog itself.
    """
    while pending:
        pending.pop()()
