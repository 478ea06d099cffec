"""`make demo` ends by itself, prints the events, and leaves no process.

tests/acceptance/test_wheel.py runs it with new interpreters, as a user does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.support.demo_run import Played, check_success, play


def test_the_demo_succeeds(demo: Played) -> None:
    check_success(demo)


def test_the_demo_succeeds_on_postgresql(tmp_path: Path, fresh: Callable[[], str]) -> None:
    check_success(play(tmp_path, "--database-url", fresh()))


def test_no_line_of_the_demo_is_wider_than_80_columns(demo: Played) -> None:
    """The timeline is excluded, which `receiver tasks show` prints."""
    printed = demo.printed.replace(str(demo.folder), "/tmp")  # noqa: S108 - the usual folder
    lines = [line for line in printed.splitlines() if not re.match(r" *\+\d+\.\d{3} s ", line)]
    assert len(lines) > 30
    assert [line for line in lines if len(line) > 80] == []
