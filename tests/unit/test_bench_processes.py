"""The benchmark counts the processes of a server while some of them start and end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import processes


def test_a_process_that_ends_while_it_is_counted_causes_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that runs a command for each request has many such processes."""

    def gone(self: Path, pattern: str) -> Iterator[Path]:
        assert pattern == "*/children"
        raise FileNotFoundError(2, "No such file or directory", str(self))

    monkeypatch.setattr(Path, "glob", gone)
    assert processes.tree(os.getpid()) == [os.getpid()]
    assert processes.cpu_seconds([os.getpid()]) > 0
