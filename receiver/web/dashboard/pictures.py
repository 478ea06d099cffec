"""Thumbnails from the record, and whole files from this machine: nothing comes from elsewhere."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, send_file
from werkzeug.wrappers import Response as AnyResponse

from receiver.deliveries import File
from receiver.errors import NotFound
from receiver.web.api import ROW
from receiver.web.dashboard.page_context import PageContext

# What a browser shows without running anything in it.
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
KEEP = "private, max-age=3600"
# A browser shows a bare picture on a page of its own making, which it styles itself.
ALONE = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"


def install(routes: Blueprint, desk: PageContext) -> None:
    @routes.get(f"/thumbnails/<{ROW}:delivery>/<index>")
    def thumbnail(delivery: int, index: str) -> Response:
        found = desk.store.queries.picture(delivery, index)
        if found.thumbnail is None:
            raise NotFound("this file has no thumbnail")
        response = Response(found.thumbnail, mimetype="image/jpeg")
        response.headers["Cache-Control"] = KEEP
        return response

    @routes.get("/tasks/<task_id>/inputs/<name>")
    def sent(task_id: str, name: str) -> Response:
        """What was sent, where KEEP_INPUTS kept it."""
        thumbnail = desk.store.queries.inputs(task_id).get(name)
        if thumbnail is None:
            raise NotFound("this input was not kept")
        response = Response(thumbnail, mimetype="image/jpeg")
        response.headers["Cache-Control"] = KEEP
        return response

    @routes.get(f"/files/<{ROW}:delivery>/<index>")
    def file(delivery: int, index: str) -> AnyResponse:
        found = desk.store.queries.picture(delivery, index)
        path = on_this_machine(found)
        if path is None:
            raise NotFound(f"this file does not lie on this machine: it is at {found.url}")
        is_showable = found.content_type in SHOWABLE
        response = send_file(
            path,
            mimetype=found.content_type if is_showable else "application/octet-stream",
            as_attachment=not is_showable,
            download_name=path.name,
            conditional=True,
            etag=found.sha256,
        )
        response.headers["Cache-Control"] = KEEP
        response.headers["Content-Security-Policy"] = ALONE
        return response


def on_this_machine(found: File) -> Path | None:
    """Where a download put it, if that is a folder here, and it is still the same size."""
    path = Path(found.url)
    try:
        is_there = path.is_absolute() and path.is_file() and path.stat().st_size == found.size
    except (OSError, ValueError):
        return None
    return path if is_there else None
