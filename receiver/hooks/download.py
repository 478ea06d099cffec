"""Download: every output of a task, whole, verified and on disk before it counts as delivered."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marshmallow import ValidationError, fields, validate

from receiver import outgoing
from receiver.deliveries import File, Notice
from receiver.errors import ResultGone, SettingsError, TemporaryFailure
from receiver.events import Media
from receiver.hooks import content
from receiver.hooks.base import Done
from receiver.hooks.options import Options, checked, http_url, placeholders, seconds
from receiver.hooks.shelf import Shelf, remove, shelf

NAMES = ("provider", "account", "task", "reference", "kind", "index", "extension")
EXTENSION = "{extension}"  # known once the content is there
VALUE_LIMIT = 64  # characters of one value in a path
OK = 200
GONE = frozenset({403, 404, 410})


def _path(template: str) -> None:
    found = placeholders(template, NAMES)
    parts = template.split("/")
    if "\\" in template or any(part.strip() in ("", ".", "..") for part in parts):
        raise ValidationError('is not a path below "to"; leave out "..", "\\" and a leading "/"')
    if "task" not in found:
        raise ValidationError("has no {task}: two tasks would overwrite each other's files")


def _store(value: str) -> None:
    http_url(value)
    if re.search(r"[\s@?#]", value):
        raise ValidationError("is a store's address alone; its credentials are AWS_… variables")


class DownloadOptions(Options):
    """The keys of a hook of type download."""

    to = fields.String(required=True, validate=validate.Length(min=1, error="is empty"))
    path = fields.String(load_default="{provider}/{task}/{index}.{extension}", validate=_path)
    endpoint_url = fields.String(load_default=None, validate=_store)
    deadline = seconds(300)
    max_bytes = fields.Integer(
        load_default=500_000_000, validate=validate.Range(1, error="use 1 or more")
    )
    allow_private = fields.Boolean(load_default=False)


class Download:
    """Fetches all outputs or fails; a second attempt overwrites what a first one has fetched."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(DownloadOptions(), options)
        try:
            self._shelf: Shelf = shelf(
                self._options["to"],
                endpoint_url=self._options["endpoint_url"],
                within=self._options["deadline"],
            )
        except (ValueError, ImportError) as error:
            raise SettingsError([f"to: cannot be used: {error}"]) from error

    def send(self, notice: Notice) -> Done:
        if not notice.media:
            return Done("nothing to download")
        ends_at = time.monotonic() + self._options["deadline"]
        try:
            files = tuple(
                self._fetch(media, name, ends_at)
                for media, name in zip(notice.media, self.names(notice), strict=True)
            )
        except OSError as error:  # those of the network come as DeliveryFailures
            raise self._not_written(error) from error
        size = sum(file.size for file in files)
        return Done(f"downloaded {len(files)} file(s), {size} bytes", files)

    def rehearse(self, notice: Notice, picture: Path) -> Done:
        """Put the picture where a result would lie, and remove it. Raises TemporaryFailure."""
        (name, *_) = self.names(notice)
        try:
            with self._shelf.draft(name.replace(EXTENSION, "part")) as draft:
                draft.write_bytes(picture.read_bytes())
                found, _ = content.inspect(draft, "image")
                url = self._shelf.put(draft, name.replace(EXTENSION, found.extension))
            remove(url)
            _remove_folder(Path(url).parent, notice)
        except OSError as error:
            raise self._not_written(error) from error
        return Done(f"{url} was written, and removed again")

    def _not_written(self, error: OSError) -> TemporaryFailure:
        to = self._options["to"]
        return TemporaryFailure(f"{to}: cannot be written: {error.strerror or error}")

    def _fetch(self, media: Media, name: str, ends_at: float) -> File:
        with self._shelf.draft(name.replace(EXTENSION, "part")) as draft:
            sha256, size = self._stream(media.url, draft, ends_at)
            found, thumbnail = content.inspect(draft, media.kind)
            url = self._shelf.put(draft, name.replace(EXTENSION, found.extension))
        return File(media.index, url, sha256, size, found.content_type, thumbnail)

    def names(self, notice: Notice) -> list[str]:
        """A name of its own for each output, with the extension still to come."""
        names: dict[str, None] = {}
        tried: Counter[str] = Counter()
        for media in notice.media:
            name = wanted = self._name(notice, media)
            while name in names:
                tried[wanted] += 1
                name = _numbered(wanted, tried[wanted] + 1)
            names[name] = None
        return list(names)

    def _name(self, notice: Notice, media: Media) -> str:
        task = notice.task
        values = {
            "provider": task.provider,
            "account": task.account,
            "task": task.id,
            "reference": task.reference or "",
            "kind": media.kind,
            "index": media.index,
        }
        safe = {key: file_name(value) for key, value in values.items()}
        return str(self._options["path"].format(**safe, extension=EXTENSION))

    def _stream(self, url: str, draft: Path, ends_at: float) -> tuple[str, int]:
        """The URL's content into the file; its sha256 and size."""
        digest, size = hashlib.sha256(), 0
        left = ends_at - time.monotonic()
        if left <= 0:
            raise TemporaryFailure(f"no time left of the {self._options['deadline']:g} s")
        with (
            outgoing.stream(
                url,
                deadline=left,
                max_bytes=self._options["max_bytes"],
                allow_private=self._options["allow_private"],
            ) as incoming,
            draft.open("wb") as file,
        ):
            _check(incoming)
            for chunk in incoming.chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
        return digest.hexdigest(), size


def _remove_folder(folder: Path, notice: Notice) -> None:
    """Remove a folder of this task's own; in a store there are none."""
    if folder.name == file_name(notice.task.id) and folder.is_dir():
        folder.rmdir()


def file_name(value: str) -> str:
    """The value as a part of a path that leads nowhere else: others choose it."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", value[:VALUE_LIMIT]).lstrip(".") or "_"


def _numbered(name: str, number: int) -> str:
    stem, dot, extension = name.rpartition(".")
    if dot and "/" not in extension:
        return f"{stem}-{number}.{extension}"
    return f"{name}-{number}"


def _check(incoming: outgoing.Incoming) -> None:
    if incoming.status == OK:
        return
    text = f"the result URL answered {incoming.status}"
    if incoming.status in GONE:
        raise ResultGone(f"{text}: it may have expired")
    raise outgoing.failure(incoming.status, incoming.headers, text)
