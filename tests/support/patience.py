"""The limit for every wait of a test, the same for the whole suite.

The limit only decides when a failure is reported: a test that passes never waits that long. It is
therefore generous, and TEST_PATIENCE (seconds, default 120) raises it on very busy machines. Tests
that need a timeout for something else (an HTTP client, a child process, a thread) use PATIENCE as
well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

PATIENCE = float(os.environ.get("TEST_PATIENCE", "120"))
if not 0 < PATIENCE <= 86_400:  # 0 would switch pytest-timeout off
    raise ValueError("TEST_PATIENCE is a number of seconds, above 0 and at most 86400")
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.05  # seconds between two checks of a condition


def wait_until(
    condition: Callable[[], object], details: Callable[[], str] = str, *, limit: float = PATIENCE
) -> None:
    """Return when the condition is true. Fail with the details after `limit` seconds."""
    ends_at = time.monotonic() + limit
    pause = FIRST_PAUSE
    while not condition():
        if time.monotonic() > ends_at:
            raise AssertionError(f"condition not met within {limit:g} s\n{details()}".rstrip())
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
