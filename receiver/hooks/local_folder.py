"""Stores downloaded files in a folder of this machine."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from receiver.hooks.file_names import TaskPaths

PARTIAL_SUFFIX = ".part"
# A draft: the stem of the final name, and a UUID.
_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{32}\.part")
STALE_AFTER = 3600  # seconds; older drafts were left by attempts that were killed


class LocalFolder:
    """A folder. When `put` returns, the file and its name have reached the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        final = self._root / name
        created = self._create(final.parent)
        for left in final.parent.glob(f".{glob.escape(final.stem)}.*{PARTIAL_SUFFIX}"):
            _remove_if_stale(left)
        # In the same directory, because a rename works only within one file system.
        path = final.with_name(f".{final.stem}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
        try:
            self._touch(path)
            yield path
        finally:
            path.unlink(missing_ok=True)
            _remove_empty_parents(final, created.__contains__)  # none is empty after success

    def put(self, draft: Path, name: str) -> str:
        final = self._root / name
        self._create(final.parent)
        _sync(draft)
        draft.replace(final)
        for folder in (final.parent, *final.parent.parents):
            _sync(folder)
            if folder == self._root:
                break
        return str(final)

    def remove(self, paths: TaskPaths) -> int:
        removed = 0
        levels = self._levels(paths)
        for folder in levels[-1]:
            for file in _files(folder, paths, only_drafts=False):
                with contextlib.suppress(FileNotFoundError):
                    file.unlink()
                    removed += not file.name.endswith(PARTIAL_SUFFIX)
        self._remove_empty(levels, paths)
        return removed

    def tidy(self, paths: TaskPaths) -> None:
        levels = self._levels(paths)
        for folder in levels[-1]:
            for file in _files(folder, paths, only_drafts=True):
                _remove_if_stale(file)
        self._remove_empty(levels, paths)

    def _levels(self, paths: TaskPaths) -> list[list[Path]]:
        """Return the directories that lead to files of the task, level by level from the root."""
        levels = [[self._root] if self._root.is_dir() else []]
        for name, _ in paths.levels[:-1]:
            below = (path for folder in levels[-1] for path in folder.glob(name.pattern))
            levels.append([path for path in below if name.matches(path.name) and path.is_dir()])
        return levels

    def _remove_empty(self, levels: list[list[Path]], paths: TaskPaths) -> None:
        """Remove empty directories, up to the topmost that belongs to the task or its customer."""
        own = [is_own for _, is_own in paths.levels[:-1]]
        top = own.index(True) if True in own else len(own)
        for folders in reversed(levels[top + 1 :]):
            for folder in folders:
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()

    def _touch(self, path: Path) -> None:
        """Create the file, although another attempt may just have removed its empty directory."""
        for tries_left in (2, 1, 0):
            try:
                path.touch(exist_ok=False)
            except FileNotFoundError:
                if not tries_left:
                    raise
                self._create(path.parent)
            else:
                return

    def _create(self, folder: Path) -> list[Path]:
        """Create the directory; return those that were missing, below the root."""
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for part in missing:
            _sync(part.parent)
        return [part for part in missing if self._root in part.parents]


def remove_file(path: Path, names: Collection[str]) -> None:
    """Remove a file and its drafts, then the directories above it that have one of these names.

    Directories are removed only if they are empty. A missing file is ignored. Raises OSError.
    """
    path.unlink(missing_ok=True)
    for draft in path.parent.glob(f".{glob.escape(path.stem)}.{'[0-9a-f]' * 32}{PARTIAL_SUFFIX}"):
        draft.unlink(missing_ok=True)
    _remove_empty_parents(path, lambda folder: folder.name in names)


def _files(folder: Path, paths: TaskPaths, *, only_drafts: bool) -> Iterator[Path]:
    """Yield the files of the task in this directory: drafts, and other files unless excluded."""
    name, _ = paths.levels[-1]
    for file in folder.iterdir():
        draft = _PARTIAL.fullmatch(file.name)
        possible = (f"{draft[1]}{PARTIAL_SUFFIX}", draft[1]) if draft else (file.name,)
        is_wanted = draft is not None or not only_drafts
        if is_wanted and any(map(name.matches, possible)) and (draft or file.is_file()):
            yield file


def _remove_if_stale(file: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if time.time() - file.stat().st_mtime > STALE_AFTER:
            file.unlink()


def _remove_empty_parents(path: Path, may_remove: Callable[[Path], bool]) -> None:
    """Remove the directories above the path, up to the first that is not empty or must stay."""
    for folder in path.parents:
        if not may_remove(folder):
            return
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # not empty, or this user may not remove it
            return


def _sync(path: Path) -> None:
    """Write the file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
