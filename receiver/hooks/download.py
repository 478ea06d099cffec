"""Downloads all outputs of a task: each is complete, verified and on disk before it counts.

Each output has its own outcome. A downloaded output is recorded even if another one fails, and the
next attempt fetches only the missing outputs. The hook's endpoints are the servers of the results
and the place where the files are stored: their failures count for the circuit breaker. A URL that
is refused, or returns anything other than the result, is a failure of this one result.
"""

from __future__ import annotations

import errno
import hashlib
import re
import string
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import structlog
from marshmallow import ValidationError, fields, validate

from receiver.deliveries import File, Notice
from receiver.errors import (
    ContentFailure,
    DeliveryFailure,
    PermanentFailure,
    ResultGone,
    SettingsError,
    TemporaryFailure,
    TimedOut,
)
from receiver.events import Media
from receiver.hooks import content
from receiver.hooks.base import Done
from receiver.hooks.file_names import Characters, Literal, NamePattern, OptionalNumber, Part
from receiver.hooks.file_storage import (
    FileStorage,
    TaskPaths,
    file_name,
    folder_names,
    open_storage,
    remove,
)
from receiver.hooks.options import Options, checked, http_url, placeholders, seconds
from receiver.outgoing import http
from receiver.tasks import Task

NAMES = ("provider", "account", "task", "reference", "kind", "index", "extension")
EXTENSION = "{extension}"  # known once the content is there
# What values in a path that only an attempt knows consist of; task ids contain no full stop.
ALPHANUMERIC = frozenset(string.ascii_letters + string.digits)
VALUES = {
    "extension": Characters(ALPHANUMERIC),
    "reference": Characters(ALPHANUMERIC | set("._-")),
}
ID = Characters(ALPHANUMERIC | set("_-"))
COMPLETE = frozenset({200, 203})  # 203: changed by a proxy, such as one that compresses pictures
PARTIAL = 206
# File system errors that concern one file, not the place where files are stored.
FILE_ERROR_NUMBERS = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.EFBIG})

__all__ = ["Download", "file_name"]

log = structlog.get_logger()


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
    """Fetches the outputs that earlier attempts have not fetched."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(DownloadOptions(), options)
        try:
            self._shelf: FileStorage = open_storage(
                self._options["to"],
                endpoint_url=self._options["endpoint_url"],
                within=self._options["deadline"],
            )
        except (ValueError, ImportError) as error:
            raise SettingsError([f"to: cannot be used: {error}"]) from error

    def send(self, notice: Notice) -> Done:
        if not notice.media:
            return Done("nothing to download")
        recorded = {file.media_index for file in notice.made}
        outputs = enumerate(zip(notice.media, self.names(notice), strict=True), 1)
        missing = [output for output in outputs if output[1][0].index not in recorded]
        ends_at = time.monotonic() + self._options["deadline"]
        files: list[File] = []
        failures: dict[int, DeliveryFailure] = {}
        for tried, (number, (media, name)) in enumerate(missing, 1):
            try:
                within = self._time_for(ends_at, is_last=tried == len(missing))
                files.append(self._fetch(media, name, within))
            except DeliveryFailure as failure:
                failures[number] = failure
            except OSError as error:  # network errors are DeliveryFailures
                failures[number] = self._not_written(error)
            except Exception as error:  # a bug that only this result triggers
                log.exception("an output cannot be handled")
                failures[number] = ContentFailure(f"{type(error).__name__}: {error}")
        if failures:
            raise _combined(failures, files, len(notice.media))
        size = sum(file.size for file in files)
        return Done(f"downloaded {len(files)} file(s), {size} bytes", tuple(files))

    def _time_for(self, ends_at: float, *, is_last: bool) -> float:
        """Return the time limit of the next output, in seconds.

        Each output except the last may use half of the remaining time.
        """
        left = ends_at - time.monotonic()
        if left <= 0:
            raise TimedOut(
                f"not begun, because the deadline of {self._options['deadline']:g} s passed"
            )
        return left if is_last else left / 2

    def rehearse(self, notice: Notice, picture: Path) -> Done:
        """Store the picture where a result would be, and remove it. Raises DeliveryFailure."""
        (name, *_) = self.names(notice)
        try:
            with self._shelf.draft(name.replace(EXTENSION, "part")) as draft:
                draft.write_bytes(picture.read_bytes())
                found, _ = content.inspect(draft, "image")
                url = self._shelf.put(draft, name.replace(EXTENSION, found.extension))
            remove(url, folder_names(notice.task))
        except OSError as error:
            raise self._not_written(error) from error
        return Done(f"{url} was written, and removed again")

    def remove_files(self, task: Task) -> int:
        """See `hooks.base.KeepsFiles`."""
        paths = _paths(self._options["path"], task)
        return 0 if paths is None else self._shelf.remove(paths)

    def tidy(self, task: Task) -> None:
        """See `hooks.base.KeepsFiles`."""
        if (paths := _paths(self._options["path"], task)) is not None:
            self._shelf.tidy(paths)

    def _not_written(self, error: OSError) -> TemporaryFailure | ContentFailure:
        text = f"{self._options['to']}: cannot be written: {error.strerror or error}"
        if isinstance(error, TimeoutError):
            return TimedOut(text)
        return (ContentFailure if error.errno in FILE_ERROR_NUMBERS else TemporaryFailure)(text)

    def _fetch(self, media: Media, name: str, within: float) -> File:
        """Download one output. Raises DeliveryFailure, or OSError if it cannot be written."""
        with self._shelf.draft(name.replace(EXTENSION, "part")) as draft:
            try:
                sha256, size, is_whole = self._stream(media.url, draft, within)
                found, thumbnail = content.inspect(draft, media.kind)
            except (ContentFailure, http.UrlRefused, http.TooManyRedirects) as failure:
                raise ResultGone(str(failure), getattr(failure, "retry_after", None)) from failure
            if not is_whole and thumbnail is None:  # an incomplete picture has none
                raise ResultGone(
                    f"the result URL answered {PARTIAL}, and the file may be incomplete"
                )
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

    def _stream(self, url: str, draft: Path, within: float) -> tuple[str, int, bool]:
        """Write the content of the URL to `draft`; return its SHA-256, its size, and whether the
        response guarantees that it is complete.
        """
        digest, size = hashlib.sha256(), 0
        with (
            http.stream(
                url,
                deadline=within,
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
            is_whole = incoming.status in COMPLETE or _range_size(incoming) == size
        return digest.hexdigest(), size, is_whole


def _paths(template: str, task: Task) -> TaskPaths | None:
    """Return where files of this task can be; None if files of another task could be there, too.

    `{task}-{index}`, for example, gives the same name to two tasks, `a` with the index `1-2` and
    `a-1` with the index `2`. Then only the files on record are known.
    """
    if re.search(r"[\w}-]\{task\}|\{task\}[\w{-]", template):
        return None
    known = {"provider": task.provider, "account": task.account, "task": task.id}
    if task.reference:  # a task that was forgotten already has none any more
        known["reference"] = task.reference
    levels: list[tuple[NamePattern, bool]] = []
    for level in template.split("/"):
        parts: list[Part] = []
        names = []
        for literal, name, _, _ in Formatter().parse(level):
            parts.append(Literal(literal))
            if name in known:
                parts.append(Literal(file_name(known[name])))
            elif name is not None:
                parts.append(VALUES.get(name, ID))
            names.append(name)
        levels.append((NamePattern(tuple(parts)), not {"task", "reference"}.isdisjoint(names)))
    *folders, (last, is_own) = levels
    return TaskPaths((*folders, (_also_numbered(last, task), is_own)))


def _also_numbered(name: NamePattern, task: Task) -> NamePattern:
    """A name that another output has already gets a number before the extension.

    After the id of the task, a number could be a part of the id.
    """
    for at in reversed(range(len(name.parts))):
        part = name.parts[at]
        if isinstance(part, Literal) and "." in part.text:
            stem, _, extension = part.text.rpartition(".")
            before = "".join(one.text for one in name.parts[:at] if isinstance(one, Literal)) + stem
            if before.endswith(file_name(task.id)):
                return name
            middle = (Literal(stem), OptionalNumber(), Literal(f".{extension}"))
            return NamePattern((*name.parts[:at], *middle, *name.parts[at + 1 :]))
    return name


def _numbered(name: str, number: int) -> str:
    stem, dot, extension = name.rpartition(".")
    if dot and "/" not in extension:
        return f"{stem}-{number}.{extension}"
    return f"{name}-{number}"


def _combined(
    failures: Mapping[int, DeliveryFailure], files: Sequence[File], outputs: int
) -> DeliveryFailure:
    """Combine the failures of outputs, by their numbers, into one that carries `files`.

    The failure is permanent only if all failures are. It is temporary only if none is a content
    failure: a server that returned something other than the result works.
    """
    if len(failures) == outputs == 1:
        return failures[1]
    found = failures.values()
    waits = [getattr(failure, "retry_after", None) or 0 for failure in found]
    text = f"{outputs - len(failures)} of {outputs} downloaded"
    text = "; ".join([text, *(f"output {number}: {said}" for number, said in failures.items())])
    combined: DeliveryFailure
    if any(isinstance(failure, ResultGone) for failure in found):
        combined = ResultGone(text, max(waits))
    elif all(isinstance(failure, PermanentFailure) for failure in found):
        combined = PermanentFailure(text)
    elif any(isinstance(failure, ContentFailure) for failure in found):
        combined = ContentFailure(text, max(waits))
    else:
        combined = TemporaryFailure(text, max(waits))
    combined.files = tuple(files)
    combined.timed_out = any(failure.timed_out for failure in found)
    return combined


def _check(incoming: http.StreamedResponse) -> None:
    """Raise DeliveryFailure for a response that does not have the status of a result."""
    status, headers = incoming.status, incoming.headers
    if status in COMPLETE or status == PARTIAL:
        return
    text = f"the result URL answered {status}"
    if http.is_unavailable(status):
        raise http.failure(status, headers, text)
    hint = ": it may have expired" if 400 <= status < 500 else ""
    raise ResultGone(text + hint, http.retry_after(headers.get("Retry-After"), time.time()))


def _range_size(incoming: http.StreamedResponse) -> int | None:
    """Return the size of the file, if the 206 response contains all of it; None if unknown.

    Raises ResultGone if the response contains only a part of the file.
    """
    given = incoming.headers.get("Content-Range", "")
    found = re.fullmatch(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18})\s*", given, re.IGNORECASE)
    if found is None:
        return None
    first, last, size = map(int, found.groups())
    if first or last + 1 != size:
        raise ResultGone(f"the result URL answered {PARTIAL} with only a part of the result")
    return size
