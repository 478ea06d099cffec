"""Serves thumbnails from the record and downloaded files from this machine."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, make_response, send_file
from werkzeug.wrappers import Response

from receiver.deliveries import File
from receiver.errors import NotFound
from receiver.web.api import ROW
from receiver.web.dashboard.page_context import PageContext

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
CACHE_CONTROL = "private, max-age=3600"
# A browser displays a picture in a page that it generates, with styles of its own.
FILE_POLICY = (
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
)


def install(routes: Blueprint, context: PageContext) -> None:
    """Serve thumbnails of results and inputs, and the files."""

    @routes.get(f"/thumbnails/<{ROW}:delivery>/<index>")
    def thumbnail(delivery: int, index: str) -> Response:
        picture = context.store.queries.picture(delivery, index)
        return _jpeg(picture.thumbnail, "this file has no thumbnail")

    @routes.get("/tasks/<task_id>/inputs/<name>")
    def sent(task_id: str, name: str) -> Response:
        """Serve the thumbnail of an input, which is stored with KEEP_INPUTS."""
        return _jpeg(context.store.queries.inputs(task_id).get(name), "this input was not stored")

    @routes.get(f"/files/<{ROW}:delivery>/<index>")
    def file(delivery: int, index: str) -> Response:
        picture = context.store.queries.picture(delivery, index)
        path = _local_path(picture)
        if path is None:
            raise NotFound(f"this file is not on this machine: it is at {picture.url}")
        is_showable = picture.content_type in SHOWABLE
        response = send_file(
            path,
            mimetype=picture.content_type if is_showable else "application/octet-stream",
            as_attachment=not is_showable,
            download_name=path.name,
            conditional=True,
            etag=picture.sha256,
        )
        response.headers["Cache-Control"] = CACHE_CONTROL
        response.headers["Content-Security-Policy"] = FILE_POLICY
        return response


def _jpeg(image: bytes | None, problem: str) -> Response:
    """Return the response with the image. Raises NotFound with the problem if there is none."""
    if image is None:
        raise NotFound(problem)
    return make_response(image, {"Content-Type": "image/jpeg", "Cache-Control": CACHE_CONTROL})


def _local_path(file: File) -> Path | None:
    """Return the path of a downloaded file if it is on this machine and has the recorded size."""
    path = Path(file.url)
    try:
        is_complete = path.is_absolute() and path.is_file() and path.stat().st_size == file.size
    except (OSError, ValueError):
        return None
    return path if is_complete else None
