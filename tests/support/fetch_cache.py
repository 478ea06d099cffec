"""A cache beside the tests' interpreter for what tests fetch and do not install.

A folder in it is complete once it exists. A failure is remembered for the rest of the test run.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_VENV = sys.prefix != sys.base_prefix
CACHE = Path(sys.prefix) if IN_VENV else Path.home() / ".cache/callback-receiver-tests"
# Seconds for everything that one call does: less than `timeout` of pytest, which ends the test.
WITHIN = 100.0


class UnavailableError(Exception):
    """Something cannot be fetched; the message gives the reason."""


@contextmanager
def locked(cache: Path, ends_at: float) -> Iterator[None]:
    """Hold the lock of the cache, which the kernel releases when the process ends."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > ends_at:
                    raise UnavailableError("another process is still downloading") from None
                time.sleep(0.1)
        yield


def remember_failure(cache: Path, name: str, reason: str) -> None:
    (cache / f".failed-{name}").write_text(f"{_test_run()}\n{reason}")


def failure(cache: Path, name: str) -> str:
    """Return why something failed earlier in this test run, or an empty string."""
    try:
        test_run, reason = (cache / f".failed-{name}").read_text().split("\n", 1)
    except (FileNotFoundError, ValueError):  # ValueError: another process is writing it
        return ""
    return reason if test_run == _test_run() else ""


def raise_if_failed(cache: Path, name: str) -> None:
    if reason := failure(cache, name):
        raise UnavailableError(reason)


def _test_run() -> str:
    """Return an id that all processes of one test run share."""
    return os.environ.get("TEST_RUN") or f"process {os.getpid()}"
