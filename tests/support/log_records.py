"""What the product and its libraries log with `logging`, for the tests that check it.

pytest's fixture for this is part of a plugin that takes a sixth of the time of a short test.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class LogRecords(logging.Handler):
    """Collects records."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def messages(self, level: int = logging.NOTSET) -> list[str]:
        """Return the messages of this level or above."""
        return [record.getMessage() for record in self._records if record.levelno >= level]

    @property
    def text(self) -> str:
        """All messages with their tracebacks."""
        return "\n".join(map(self.format, self._records))


@contextmanager
def collected() -> Iterator[LogRecords]:
    """Collect what is logged within the block, on every level unless a logger has its own."""
    root = logging.getLogger()
    level, records = root.level, LogRecords()
    loggers = [
        logger
        for logger in (root, *root.manager.loggerDict.values())
        if isinstance(logger, logging.Logger) and (logger is root or not logger.propagate)
    ]
    root.setLevel(logging.NOTSET)
    for logger in loggers:
        logger.addHandler(records)
    try:
        yield records
    finally:
        root.setLevel(level)
        for logger in loggers:
            logger.removeHandler(records)
