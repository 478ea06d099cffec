"""Downloads the outputs of a task. A file counts when it is complete, checked and on disk.

Each output has its own outcome. A downloaded output is recorded even if another one fails, and the
next attempt fetches only the missing outputs. The hook's endpoints are the servers of the results
and the place where the files are stored: their failures count for the circuit breaker. A URL that
is refused, or returns anything other than the result, is a failure of this one result.
"""

from __future__ import annotations

import errno
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marshmallow import ValidationError, fields, validate

from receiver import outgoing as http  # its functions are imported when they are used
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
from receiver.hooks import content, file_names, file_storage
from receiver.hooks.base import Done
from receiver.hooks.file_names import EXTENSION
from receiver.hooks.options import NOT_EMPTY, Options, checked, http_url, placeholders, seconds
from receiver.observability.logger import Logger
from receiver.tasks import Task
from receiver.text.display import counted

COMPLETE = frozenset({200, 203})  # 203: changed by a proxy, such as one that compresses pictures
PARTIAL = 206
# File system errors that concern one file, not the place where files are stored.
FILE_ERROR_NUMBERS = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.EFBIG})

log = Logger()


def _check_path(template: str) -> None:
    found = placeholders(template, file_names.PLACEHOLDERS)
    parts = template.split("/")
    if "\\" in template or any(part.strip() in ("", ".", "..") for part in parts):
        raise ValidationError('is not a path below "to"; leave out "..", "\\" and a leading "/"')
    if "task" not in found:
        raise ValidationError("lacks {task}, so two tasks could overwrite each other's files")


def _check_endpoint(value: str) -> None:
    http_url(value)
    if re.search(r"[\s@?#]", value):
        raise ValidationError("has more than an address; put the credentials into AWS_… variables")


class DownloadOptions(Options):
    """The keys of a hook of type download."""

    to = fields.String(required=True, validate=NOT_EMPTY)
    path = fields.String(load_default="{provider}/{task}/{index}.{extension}", validate=_check_path)
    endpoint_url = fields.String(load_default=None, validate=_check_endpoint)
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
        self._path = self._options["path"]
        try:
            self._storage = file_storage.open_storage(
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
        names = file_names.output_names(self._path, notice)
        outputs = enumerate(zip(notice.media, names, strict=True), 1)
        missing = [output for output in outputs if output[1][0].index not in recorded]
        ends_at = time.monotonic() + self._options["deadline"]
        files: list[File] = []
        failures: dict[int, DeliveryFailure] = {}
        for begun, (number, (media, name)) in enumerate(missing, 1):
            try:
                within = self._time_limit(ends_at, is_last=begun == len(missing))
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
        return Done(f"downloaded {counted(len(files), 'file')}, {size} bytes", tuple(files))

    def send_test(self, notice: Notice, picture: Path) -> Done:
        """Store the picture where a result would be, and remove it. Raises DeliveryFailure."""
        (name, *_) = file_names.output_names(self._path, notice)
        try:
            with self._storage.draft(name.replace(EXTENSION, "part")) as draft:
                draft.write_bytes(picture.read_bytes())
                type_, _ = content.inspect(draft, "image")
                url = self._storage.put(draft, name.replace(EXTENSION, type_.extension))
            file_storage.remove(url, file_names.folder_names(notice.task))
        except OSError as error:
            raise self._not_written(error) from error
        return Done(f"{url} was written, and removed again")

    def remove_files(self, task: Task) -> int:
        paths = file_names.task_paths(self._path, task)
        return 0 if paths is None else self._storage.remove(paths)

    def tidy(self, task: Task) -> None:
        if (paths := file_names.task_paths(self._path, task)) is not None:
            self._storage.tidy(paths)

    def _time_limit(self, ends_at: float, *, is_last: bool) -> float:
        """Return the time limit of the next output, in seconds. Raises TimedOut.

        Each output except the last may use half of the remaining time.
        """
        left = ends_at - time.monotonic()
        if left <= 0:
            limit = self._options["deadline"]
            raise TimedOut(f"not begun, because the deadline of {limit:g} s passed")
        return left if is_last else left / 2

    def _fetch(self, media: Media, name: str, within: float) -> File:
        """Download one output. Raises DeliveryFailure, or OSError if it cannot be written."""
        with self._storage.draft(name.replace(EXTENSION, "part")) as draft:
            try:
                sha256, size, is_complete = self._stream(media.url, draft, within)
                type_, thumbnail = content.inspect(draft, media.kind)
            except (ContentFailure, http.UrlRefused, http.TooManyRedirects) as failure:
                raise ResultGone(str(failure), getattr(failure, "retry_after", None)) from failure
            if not is_complete and thumbnail is None:  # an incomplete picture has no thumbnail
                raise ResultGone(
                    f"the result URL answered {PARTIAL}, and the file may be incomplete"
                )
            url = self._storage.put(draft, name.replace(EXTENSION, type_.extension))
        return File(media.index, url, sha256, size, type_.content_type, thumbnail)

    def _stream(self, url: str, draft: Path, within: float) -> tuple[str, int, bool]:
        """Write the content of the URL to `draft`.

        Returns its SHA-256, its size, and whether the response guarantees that it is complete.
        """
        digest, size = hashlib.sha256(), 0
        with (
            http.stream(
                url,
                deadline=within,
                max_bytes=self._options["max_bytes"],
                allow_private=self._options["allow_private"],
            ) as response,
            draft.open("wb") as file,
        ):
            _check_status(response)
            for chunk in response.chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            is_complete = response.status in COMPLETE or _range_size(response) == size
        return digest.hexdigest(), size, is_complete

    def _not_written(self, error: OSError) -> TemporaryFailure | ContentFailure:
        text = f"{self._options['to']}: cannot be written: {error.strerror or error}"
        if isinstance(error, TimeoutError):
            return TimedOut(text)
        return (ContentFailure if error.errno in FILE_ERROR_NUMBERS else TemporaryFailure)(text)


def _combined(
    failures: Mapping[int, DeliveryFailure], files: Sequence[File], outputs: int
) -> DeliveryFailure:
    """Combine the failures of outputs, by their numbers, into one that carries `files`.

    The failure is permanent only if all failures are. It is temporary only if none is a content
    failure: a server that returned something other than the result works.
    """
    if len(failures) == outputs == 1:
        return failures[1]
    all_failures = failures.values()
    waits = [getattr(failure, "retry_after", None) or 0 for failure in all_failures]
    text = f"{outputs - len(failures)} of {outputs} downloaded"
    text = "; ".join([text, *(f"output {number}: {why}" for number, why in failures.items())])
    combined: DeliveryFailure
    if any(isinstance(failure, ResultGone) for failure in all_failures):
        combined = ResultGone(text, max(waits))
    elif all(isinstance(failure, PermanentFailure) for failure in all_failures):
        combined = PermanentFailure(text)
    elif any(isinstance(failure, ContentFailure) for failure in all_failures):
        combined = ContentFailure(text, max(waits))
    else:
        combined = TemporaryFailure(text, max(waits))
    combined.files = tuple(files)
    combined.timed_out = any(failure.timed_out for failure in all_failures)
    return combined


def _check_status(response: http.StreamedResponse) -> None:
    """Raise DeliveryFailure for a response that does not have the status of a result."""
    status, headers = response.status, response.headers
    if status in COMPLETE or status == PARTIAL:
        return
    text = f"the result URL answered {status}"
    if http.is_unavailable(status):
        raise http.failure(status, headers, text)
    hint = ": it may have expired" if 400 <= status < 500 else ""
    raise ResultGone(text + hint, http.retry_after(headers.get("Retry-After"), time.time()))


def _range_size(response: http.StreamedResponse) -> int | None:
    """Return the size of the file, if the 206 response contains all of it; None if unknown.

    Raises ResultGone if the response contains only a part of the file.
    """
    value = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"\s*bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18})\s*", value, re.IGNORECASE)
    if match is None:
        return None
    first, last, size = map(int, match.groups())
    if first or last + 1 != size:
        raise ResultGone(f"the result URL answered {PARTIAL} with only a part of the result")
    return size
