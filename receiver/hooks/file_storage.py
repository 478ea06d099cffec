"""Stores downloaded files in a folder, in an S3 bucket, or in any other place fsspec supports.

A file appears under its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from receiver.hooks import local_folder, object_storage
from receiver.hooks.file_names import TaskPaths
from receiver.hooks.local_folder import LocalFolder


class FileStorage(Protocol):
    """A place for files. Every method may raise OSError."""

    def draft(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Create an empty local file, whose content `put` will store as `name`.

        The file is removed at the end of the block.
        """
        ...

    def put(self, draft: Path, name: str) -> str:
        """Store the draft as `name`, replacing an older file; return its path or URL.

        Raises PermanentFailure if this file can never be stored here.
        """
        ...

    def remove(self, paths: TaskPaths) -> int:
        """Remove the files of a task, their drafts, and its empty directories.

        Returns the number of files. Only a folder finds files that are not on record.
        """
        ...

    def tidy(self, paths: TaskPaths) -> None:
        """Remove stale drafts of a task, and its empty directories."""
        ...


def open_storage(to: str, *, endpoint_url: str | None = None, within: float = 300) -> FileStorage:
    """Return the storage with this path or URL. An upload to S3 may take `within` seconds.

    Raises ValueError or ImportError for an unknown kind of storage.
    """
    if object_storage.is_bucket_url(to):
        if object_storage.ENDPOINT_MARK in to:
            raise ValueError("its endpoint_url is an option of its own")
        root = object_storage.FileLocation.parse(to)
        return S3Bucket(replace(root, endpoint_url=endpoint_url), within)
    if endpoint_url:
        raise ValueError('endpoint_url is only for "s3://bucket/prefix"')
    if "://" not in to and "::" not in to:  # like fsspec, which is a slow import
        return LocalFolder(Path(os.path.expanduser(to)).absolute())  # noqa: PTH111 - it never raises
    system, path = _file_system(to)
    if _is_local(system):
        return LocalFolder(Path(path).absolute())
    return RemoteStorage(system, path.rstrip("/"))


def remove(url: str, names: Collection[str] = ()) -> None:
    """Remove the file with the URL that `put` returned; in a folder, also its drafts.

    Directories above it that have one of these names are removed as well if they are empty. A
    missing file is ignored. Raises OSError.
    """
    try:
        if object_storage.is_bucket_url(url):
            object_storage.remove(object_storage.FileLocation.parse(url))
            return
        system, path = _file_system(url)
    except (ImportError, ValueError) as error:
        raise OSError(f"its kind of storage cannot be used here: {error}") from error
    if _is_local(system):
        local_folder.remove_file(Path(path), names)
    else:
        with contextlib.suppress(FileNotFoundError):
            system.rm_file(path)


def read(url: str, limit: int) -> bytes:
    """Return the first `limit` bytes of a file. Raises OSError, ValueError or ImportError."""
    if object_storage.is_bucket_url(url):
        return object_storage.read(object_storage.FileLocation.parse(url), limit)
    system, path = _file_system(url)
    with system.open(path, "rb") as file:
        return bytes(file.read(limit))


def _file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a path or URL, and the path within it.

    Raises ValueError or ImportError for an unknown kind of storage.
    """
    from fsspec.core import url_to_fs  # noqa: PLC0415 - a slow import that few processes need

    system, path = url_to_fs(url)
    return system, path


def _is_local(system: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415 - as above

    return isinstance(system, LocalFileSystem)


class RemoteStorage:
    """A storage on another machine; drafts are on this one.

    Only files on record can be found again, because listing may need a permission that storing
    does not.
    """

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
        except Exception as error:  # fsspec's backends raise exceptions of their own
            with contextlib.suppress(Exception):
                self._system.rm_file(part)
            if isinstance(error, OSError):
                raise
            raise OSError(f"{type(error).__name__}: {error}") from error
        return str(self._system.unstrip_protocol(final))

    def remove(self, paths: TaskPaths) -> int:  # noqa: ARG002
        return 0

    def tidy(self, paths: TaskPaths) -> None:
        """Do nothing: drafts are removed together with their directory on this machine."""


class S3Bucket(RemoteStorage):
    """A bucket of S3, which shows only complete objects."""

    def __init__(self, root: object_storage.FileLocation, within: float) -> None:
        super().__init__(object_storage.file_system(root.endpoint_url), root.key)
        self._location, self._within = root, within

    def put(self, draft: Path, name: str) -> str:
        final = self._location.below(name)
        object_storage.put(draft, final, self._within)
        return str(final)
