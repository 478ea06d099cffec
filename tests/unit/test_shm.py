"""The tests keep their files in memory only where this is possible."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import shm


@pytest.mark.parametrize(
    ("bytes_free", "flags", "is_used"),
    [
        (shm.ENOUGH, 0, True),
        (64 * 2**20, 0, False),  # the size in a container
        (shm.ENOUGH, os.ST_NOEXEC, False),
    ],
)
def test_the_folder_is_used_if_it_has_space_and_programs_can_be_executed_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bytes_free: int,
    flags: int,
    is_used: bool,
) -> None:
    found = SimpleNamespace(f_bavail=bytes_free // 4096, f_frsize=4096, f_flag=flags)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert shm.folder(tmp_path) == (str(tmp_path) if is_used else None)


def test_a_folder_that_does_not_exist_is_not_used(tmp_path: Path) -> None:
    assert shm.folder(tmp_path / "missing") is None
