"""Where downloads come to lie: a folder, or anything that fsspec can write to.

A file appears under its name whole or not at all. In a folder it has also reached the disk, its
name too, before `put` returns.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from receiver.hooks import object_storage
from receiver.hooks.file_names import NamePattern
from receiver.tasks import Task

PARTIAL_SUFFIX = ".part"
_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{32}\.part")
VALUE_LIMIT = 64  # characters of one value in a path
STALE_AFTER = 3600  # seconds after which a half file is left over from an attempt that was killed


@dataclass(frozen=True, slots=True)
class TaskPaths:
    """Which paths below a place can hold files of one task.

    `parts` are the parts of the path: their names, and whether directories of these names belong to
    the task or its customer.
    """

    parts: tuple[tuple[NamePattern, bool], ...]


class FileStorage(Protocol):
    """A place for files. Every verb may raise OSError."""

    def draft(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A new empty local file for what is to become `name`; gone after the block."""
        ...

    def put(self, draft: Path, name: str) -> str:
        """Give the file its name, in place of an older one; where it lies then.

        Raises PermanentFailure if the place will never take this one.
        """
        ...

    def remove(self, paths: TaskPaths) -> int:
        """Remove the files of one task, also partial ones, and its empty directories.

        Returns how many files were removed; only a folder finds files that are not on record.
        """
        ...

    def tidy(self, paths: TaskPaths) -> None:
        """Remove the partial files of one task that are left over, and its empty directories."""
        ...


def open_storage(to: str, *, endpoint_url: str | None = None, within: float = 300) -> FileStorage:
    """The place with this path or URL; a bucket takes a file `within` so many seconds.

    Raises ValueError or ImportError for unknown kinds.
    """
    if object_storage.is_bucket_url(to):
        if object_storage.ENDPOINT_MARK in to:
            raise ValueError("its endpoint_url is an option of its own")
        return S3Bucket(
            replace(object_storage.FileLocation.parse(to), endpoint_url=endpoint_url), within
        )
    if endpoint_url:
        raise ValueError('only "s3://bucket/prefix" goes with endpoint_url')
    system, root = _file_system(to)
    if _is_local(system):
        return LocalFolder(Path(root).absolute())
    return RemoteStorage(system, root.rstrip("/"))


def file_name(value: str) -> str:
    """The value as a part of a path that leads nowhere else: others choose it."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", value[:VALUE_LIMIT]).lstrip(".") or "_"


def folder_names(task: Task) -> frozenset[str]:
    """Return the names of directories that belong to this task or its customer."""
    return frozenset(file_name(value) for value in (task.id, task.reference) if value)


def remove(url: str, names: Collection[str] = ()) -> None:
    """Delete what `put` said lies there, and what killed attempts left of it in a folder.

    Directories above it that have one of these names are removed as well, once they are empty.
    Nothing happens if it is gone. Raises OSError.
    """
    try:
        if object_storage.is_bucket_url(url):
            object_storage.remove(object_storage.FileLocation.parse(url))
            return
        system, path = _file_system(url)
    except (ImportError, ValueError) as error:
        raise OSError(f"its kind of store cannot be used here: {error}") from error
    with contextlib.suppress(FileNotFoundError):
        system.rm_file(path)
    if _is_local(system):
        final, number = Path(path), "[0-9a-f]" * 32
        for left in final.parent.glob(f".{glob.escape(final.stem)}.{number}.part"):
            left.unlink(missing_ok=True)
        _remove_empty(final.parent, lambda folder: folder.name in names)


def read(url: str, limit: int) -> bytes:
    """The first bytes of what lies there. Raises OSError, ValueError or ImportError."""
    if object_storage.is_bucket_url(url):
        return object_storage.read(object_storage.FileLocation.parse(url), limit)
    system, path = _file_system(url)
    with system.open(path, "rb") as opened:
        return bytes(opened.read(limit))


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a path or URL, and the path within it.

    Raises ValueError or ImportError for unknown kinds.
    """
    from fsspec.core import url_to_fs  # noqa: PLC0415 - a slow import that most processes never need

    system, path = url_to_fs(url)
    return system, path


def _is_local(system: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415 - as above

    return isinstance(system, LocalFileSystem)


class LocalFolder:
    """A folder of this machine."""

    def remove(self, paths: TaskPaths) -> int:
        """Remove the files, partial files and empty directories; return how many files."""
        removed = 0
        levels = self._levels(paths)
        for folder in levels[-1]:
            for file in _files(folder, paths, of_attempts_only=False):
                with contextlib.suppress(FileNotFoundError):
                    file.unlink()
                    removed += not file.name.endswith(PARTIAL_SUFFIX)
        self._remove_empty(levels, paths)
        return removed

    def tidy(self, paths: TaskPaths) -> None:
        """Remove partial files that no attempt writes any more, and empty directories."""
        levels = self._levels(paths)
        for folder in levels[-1]:
            for file in _files(folder, paths, of_attempts_only=True):
                _remove_if_stale(file)
        self._remove_empty(levels, paths)

    def _levels(self, paths: TaskPaths) -> list[list[Path]]:
        """Return the directories on the way to files of the task, level by level from the root."""
        levels = [[self._root] if self._root.is_dir() else []]
        for name, _ in paths.parts[:-1]:
            below = (found for folder in levels[-1] for found in folder.glob(name.pattern))
            levels.append([one for one in below if name.matches(one.name) and one.is_dir()])
        return levels

    def _remove_empty(self, levels: list[list[Path]], paths: TaskPaths) -> None:
        """Remove empty directories, up to the topmost that belongs to the task or its customer."""
        own = [is_own for _, is_own in paths.parts[:-1]]
        top = own.index(True) if True in own else len(own)
        for folders in reversed(levels[top + 1 :]):
            for folder in folders:
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        final = self._root / name
        made = self._make(final.parent)
        self._clear(final)
        # Beside its final place, as a rename works within one file system only.
        path = final.with_name(f".{final.stem}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
        try:
            self._touch(path)
            yield path
        finally:
            path.unlink(missing_ok=True)
            _remove_empty(final.parent, made.__contains__)  # after a failure nothing is left

    def put(self, draft: Path, name: str) -> str:
        final = self._root / name
        self._make(final.parent)
        _sync(draft)
        draft.replace(final)
        for folder in (final.parent, *final.parent.parents):
            _sync(folder)
            if folder == self._root:
                break
        return str(final)

    def _touch(self, path: Path) -> None:
        """Create the file, although another attempt may just have removed its empty directory."""
        for tries_left in (2, 1, 0):
            try:
                path.touch(exist_ok=False)
            except FileNotFoundError:
                if not tries_left:
                    raise
                self._make(path.parent)
            else:
                return

    def _make(self, folder: Path) -> list[Path]:
        """Create the directory; return those that were missing, below the root of the place."""
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for part in missing:
            _sync(part.parent)
        return [part for part in missing if self._root in part.parents]

    def _clear(self, final: Path) -> None:
        """Remove what a killed attempt at this file left behind."""
        for left in final.parent.glob(f".{glob.escape(final.stem)}.*{PARTIAL_SUFFIX}"):
            _remove_if_stale(left)


class RemoteStorage:
    """A place that is not a folder. Files are drafted on this machine.

    Only files on record are found again, because listing may need a permission that storing does
    not.
    """

    def remove(self, paths: TaskPaths) -> int:  # noqa: ARG002
        return 0

    def tidy(self, paths: TaskPaths) -> None:
        """Nothing to do: drafts are removed with their directory on this machine."""

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root

    @contextlib.contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="callback-receiver-") as folder:
            path = Path(folder) / PurePosixPath(name).name
            path.touch()
            yield path

    def put(self, draft: Path, name: str) -> str:
        final = f"{self._root}/{name}"
        parent, _, last = final.rpartition("/")
        part = f"{parent}/.{last}.{uuid.uuid4().hex}.part"
        try:
            self._system.makedirs(parent, exist_ok=True)
            self._system.put_file(str(draft), part)
            self._system.mv(part, final)
        except Exception as error:  # each of fsspec's backends may raise its own exceptions
            with contextlib.suppress(Exception):
                self._system.rm_file(part)
            if isinstance(error, OSError):
                raise
            raise OSError(f"{type(error).__name__}: {error}") from error
        return str(self._system.unstrip_protocol(final))


class S3Bucket(RemoteStorage):
    """A bucket of S3, which shows nothing that is not whole."""

    def __init__(self, root: object_storage.FileLocation, within: float) -> None:
        super().__init__(object_storage.file_system(root.endpoint_url), root.key)
        self._place, self._within = root, within

    def put(self, draft: Path, name: str) -> str:
        final = self._place.below(name)
        object_storage.put(draft, final, self._within)
        return str(final)


def _files(folder: Path, paths: TaskPaths, *, of_attempts_only: bool) -> Iterator[Path]:
    """The files of the task in this directory: partial ones, and unless excluded whole ones."""
    name, _ = paths.parts[-1]
    for file in folder.iterdir():
        partial = _PARTIAL.fullmatch(file.name)
        whole = f"{partial[1]}.part" if partial else file.name
        stems = (whole, partial[1]) if partial else (whole,)
        is_wanted = partial is not None or not of_attempts_only
        if is_wanted and any(map(name.matches, stems)) and (partial or file.is_file()):
            yield file


def _remove_if_stale(file: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if time.time() - file.stat().st_mtime > STALE_AFTER:
            file.unlink()


def _remove_empty(folder: Path, may_go: Callable[[Path], bool]) -> None:
    """Remove the directory and those above it, as long as they are empty and may go."""
    for one in (folder, *folder.parents):
        if not may_go(one):
            return
        try:
            one.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # not empty, or not ours to remove
            return


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
