"""Where downloads come to lie: a folder, or anything that fsspec can write to.

A file appears under its name whole or not at all. In a folder it has also reached the disk, its
name too, before `put` returns.
"""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from receiver.hooks import bucket

STALE = 3600  # seconds after which a half file is left over from an attempt that was killed


class Shelf(Protocol):
    """A place for files. Every verb may raise OSError."""

    def draft(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A new empty local file for what is to become `name`; gone after the block."""
        ...

    def put(self, draft: Path, name: str) -> str:
        """Give the file its name, in place of an older one; where it lies then.

        Raises PermanentFailure if the place will never take this one.
        """
        ...


def shelf(to: str, *, endpoint_url: str | None = None, within: float = 300) -> Shelf:
    """The place with this path or URL; a bucket takes a file `within` so many seconds.

    Raises ValueError or ImportError for unknown kinds.
    """
    if bucket.is_in_a_bucket(to):
        if bucket.AT in to:
            raise ValueError("its endpoint_url is an option of its own")
        return Bucket(replace(bucket.Place.parse(to), endpoint_url=endpoint_url), within)
    if endpoint_url:
        raise ValueError('only "s3://bucket/prefix" goes with endpoint_url')
    system, root = _file_system(to)
    if _is_local(system):
        return Folder(Path(root).absolute())
    return Remote(system, root.rstrip("/"))


def remove(url: str) -> None:
    """Delete what `put` said lies there, and what killed attempts left of it in a folder.

    Nothing happens if it is gone. Raises OSError.
    """
    try:
        if bucket.is_in_a_bucket(url):
            bucket.remove(bucket.Place.parse(url))
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


def read(url: str, limit: int) -> bytes:
    """The first bytes of what lies there. Raises OSError, ValueError or ImportError."""
    if bucket.is_in_a_bucket(url):
        return bucket.read(bucket.Place.parse(url), limit)
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


class Folder:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        final = self._root / name
        self._make(final.parent)
        self._clear(final)
        # Beside its final place, as a rename works within one file system only.
        path = final.with_name(f".{final.stem}.{uuid.uuid4().hex}.part")
        try:
            path.touch(exist_ok=False)
            yield path
        finally:
            path.unlink(missing_ok=True)

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

    def _make(self, folder: Path) -> None:
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for part in missing:
            _sync(part.parent)

    def _clear(self, final: Path) -> None:
        """Remove what a killed attempt at this file left behind."""
        for left in final.parent.glob(f".{glob.escape(final.stem)}.*.part"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > STALE:
                    left.unlink()


class Remote:
    """Whatever is not a folder; files are drafted on this machine."""

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


class Bucket(Remote):
    """A bucket of S3, which shows nothing that is not whole."""

    def __init__(self, root: bucket.Place, within: float) -> None:
        super().__init__(bucket.system(root.endpoint_url), root.key)
        self._place, self._within = root, within

    def put(self, draft: Path, name: str) -> str:
        final = self._place.below(name)
        bucket.put(draft, final, self._within)
        return str(final)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
