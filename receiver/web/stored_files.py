"""Serves files that download hooks stored in a folder of this machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from flask import request, send_file
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wrappers import Response

from receiver.deliveries import File
from receiver.errors import NotFound

# Types of files in which browsers run no scripts.
SHOWABLE = frozenset(
    {
        "image/jpeg",
        "image/png",
        "image/webp",
        "image/gif",
        "video/mp4",
        "video/webm",
        "video/quicktime",
        "audio/mpeg",
        "audio/wav",
    }
)
# A browser displays a picture in a page that it generates, with styles of its own.
FILE_POLICY = (
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
)
CACHE_CONTROL = "private, max-age=3600"


def serve(file: File) -> Response:
    """Return the content of a file on record, or the requested part of it.

    Raises NotFound if the file is not on this machine, and RequestedRangeNotSatisfiable.
    """
    content = _open(file)
    if content is None:
        raise NotFound(f"this file is not on this machine: it is at {file.url}")
    is_showable = file.content_type in SHOWABLE
    response = send_file(
        content,
        mimetype=file.content_type if is_showable else "application/octet-stream",
        as_attachment=not is_showable,
        download_name=Path(file.url).name,
        etag=file.sha256,
    )
    response.content_length = file.size
    try:
        response.make_conditional(request, accept_ranges=True, complete_length=file.size)
    except RequestedRangeNotSatisfiable:
        content.close()
        raise
    response.headers.pop("Date", None)  # `make_conditional` adds one, as does the server
    response.headers["Cache-Control"] = CACHE_CONTROL
    response.headers["Content-Security-Policy"] = FILE_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def is_here(file: File) -> bool:
    """Return whether the file can be opened on this machine."""
    content = _open(file)
    if content is not None:
        content.close()
    return content is not None


def _open(file: File) -> BinaryIO | None:
    """Open the file if it is a regular file of the recorded size, and not a symbolic link."""
    if not file.url.startswith("/"):
        return None
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        descriptor = os.open(file.url, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")
