"""Files are stored completely and durably, or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import fsspec
import pytest

from receiver.hooks import file_storage, local_folder
from receiver.hooks.file_storage import FileStorage, open_storage
from receiver.hooks.local_folder import STALE_AFTER


def put(storage: FileStorage, name: str, content: bytes) -> str:
    with storage.draft(name) as draft:
        draft.write_bytes(content)
        return storage.put(draft, name)


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_stored_under_its_name(tmp_path: Path) -> None:
    url = put(open_storage(str(tmp_path / "new" / "files")), "a/b/0.png", b"x")
    assert url == str(tmp_path / "new" / "files" / "a" / "b" / "0.png")
    assert Path(url).read_bytes() == b"x"
    assert below(tmp_path) == {"new/files/a/b/0.png"}


def test_a_relative_folder_results_in_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert put(open_storage("files"), "0.png", b"x") == str(tmp_path / "files" / "0.png")


def test_an_older_file_is_replaced_atomically(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    url = put(storage, "0.png", b"older and longer")
    assert put(storage, "0.png", b"new") == url
    assert Path(url).read_bytes() == b"new"


def test_an_interrupted_attempt_leaves_nothing(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    seen: list[set[str]] = []

    def interrupted() -> None:
        with storage.draft("a/0.part") as draft:
            draft.write_bytes(b"half")
            seen.append(below(tmp_path))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(seen[0]) == 1
    assert "a/0.part" not in seen[0]
    assert below(tmp_path) == set()


def test_old_temporary_files_of_killed_attempts_are_removed(tmp_path: Path) -> None:
    old, young = tmp_path / ".0.aaaa.part", tmp_path / ".0.bbbb.part"
    for left in (old, young, tmp_path / ".1.cccc.part"):
        left.write_bytes(b"half")
    for left in (old, tmp_path / ".1.cccc.part"):
        os.utime(left, (time.time() - STALE_AFTER - 60,) * 2)
    put(open_storage(str(tmp_path)), "0.part", b"x")
    assert below(tmp_path) == {".0.bbbb.part", ".1.cccc.part", "0.part"}


def test_temporary_files_of_killed_attempts_are_removed_with_the_file(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    with storage.draft("0.part") as killed, storage.draft("0.x.part") as other:
        url = put(storage, "0.part", b"x")
        file_storage.remove(url)
        assert not killed.exists()
        assert other.exists()
    assert below(tmp_path) == set()


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "a" / "0.png"
    steps: list[tuple[str, bool]] = []

    def sync(path: Path) -> None:
        steps.append((str(path.relative_to(tmp_path)), final.exists()))

    monkeypatch.setattr(local_folder, "_sync", sync)
    with open_storage(str(tmp_path)).draft("a/0.png") as draft:
        steps.clear()
        open_storage(str(tmp_path)).put(draft, "a/0.png")
        assert steps == [(f"a/{draft.name}", False), ("a", True), (".", True)]


def test_a_new_folder_is_synced_into_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    monkeypatch.setattr(local_folder, "_sync", synced.add)
    put(open_storage(str(tmp_path / "a" / "b")), "c/0.png", b"x")
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"} <= synced


def test_a_file_is_stored_in_a_bucket() -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    storage = open_storage("memory://bucket/files")
    put(storage, "a/0.png", b"old")
    url = put(storage, "a/0.png", b"new")
    assert url == "memory:///bucket/files/a/0.png"
    with fsspec.open(url, "rb") as opened:
        assert opened.read() == b"new"
    assert list(memory.store) == ["/bucket/files/a/0.png"]


def test_a_failed_rename_in_a_bucket_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()

    def fail(*_: object, **__: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(type(memory), "mv", fail)
    with pytest.raises(OSError, match="no"):
        put(open_storage("memory://bucket"), "0.png", b"x")
    assert list(memory.store) == []
