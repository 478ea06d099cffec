"""`make demo` ends by itself, prints the events, and leaves no process.

On SQLite, new interpreters run it from an installed wheel, as a user does. On PostgreSQL, forked
processes run it in the checkout.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.support.demo_run import Played, check_success, play
from tests.support.docs_pages import ROOT, blocks, missing


def test_the_demo_succeeds(demo: Played) -> None:
    check_success(demo)


def test_the_demo_succeeds_on_postgresql(tmp_path: Path, fresh: Callable[[], str]) -> None:
    check_success(play(tmp_path, "--database-url", fresh()))


def test_the_readme_shows_lines_that_it_prints(demo: Played) -> None:
    commands = [found for block in blocks(ROOT / "README.md") for found in block.commands()]
    (shown,) = [shown for command, shown in commands if command == "make demo"]
    assert len(shown) > 10
    assert missing(shown, demo.printed) == []


def test_no_line_of_the_demo_is_wider_than_80_columns(demo: Played) -> None:
    """The timeline is excluded, which `receiver tasks show` prints."""
    printed = demo.printed.replace(str(demo.folder), "/tmp")  # noqa: S108 - the usual folder
    lines = [line for line in printed.splitlines() if not re.match(r" *\+\d+\.\d{3} s ", line)]
    assert len(lines) > 30
    assert [line for line in lines if len(line) > 80] == []
