"""The interpretation of versions, clocks and disks by `doctor`, without any real ones."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from receiver.doctor import clocks, directory
from receiver.stores.sqlite.database import Version, has_wal_reset_bug, version_text

AT = 1_765_519_851_000  # Fri, 12 Dec 2025 06:10:51 GMT


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ((3, 40, 1), True),  # Debian 12
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),  # newer than a backport, but without the fix
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_the_wal_reset_bug_is_recognised_by_the_version(version: Version, has_it: bool) -> None:
    assert has_wal_reset_bug(version) is has_it
    assert ("protected by our file lock" in version_text(version)) is has_it


@pytest.mark.parametrize(
    ("ahead", "verdict", "says"),
    [
        (0.4, "ok", "within 30 s"),
        (-31, "warning", "31 s behind"),
        (299, "warning", "299 s ahead of"),
        (301, "failed", "301 s ahead of"),
        (-3600, "failed", "3600 s behind"),
    ],
)
def test_a_clock_may_be_wrong_by_five_minutes(ahead: float, verdict: str, says: str) -> None:
    found = clocks.judged("https://x.example", ahead)
    assert found.verdict == verdict
    assert says in found.said
    assert bool(found.todo) is (verdict != "ok")


def test_a_date_is_compared_with_the_middle_of_the_exchange() -> None:
    date = "Fri, 12 Dec 2025 06:10:51 GMT"
    assert clocks.ahead_of(date, AT + 60_000, AT + 61_000) == 60
    with pytest.raises(ValueError, match="date"):
        clocks.ahead_of(None, AT, AT)


@pytest.mark.parametrize(
    ("free", "verdict"), [(10_000_000, "failed"), (900_000_000, "warning"), (2_000_000_000, "ok")]
)
def test_low_disk_space_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, verdict: str
) -> None:
    usage = SimpleNamespace(total=free, used=0, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert directory.free_space(tmp_path).verdict == verdict


def test_a_failed_sync_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    written = directory.write(tmp_path)
    assert written.verdict == "failed"
    assert "Input/output error" in written.said
    assert list(tmp_path.iterdir()) == []  # no file is left
