"""Serves thumbnails from the record and downloaded files from this machine."""

from __future__ import annotations

from flask import Blueprint, make_response
from werkzeug.wrappers import Response

from receiver.errors import NotFound
from receiver.stores.sql.queries import Picture
from receiver.web import stored_files
from receiver.web.api import ROW
from receiver.web.dashboard.page_context import PageContext
from receiver.web.stored_files import CACHE_CONTROL, SHOWABLE

MAX_SHOWN = 20_000_000  # bytes; pages show the thumbnail of a larger picture


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
        return stored_files.serve(picture)


def is_shown(picture: Picture) -> bool:
    """Return whether a page may show the whole picture instead of its thumbnail."""
    file = picture.file
    is_picture = file.content_type in SHOWABLE and file.content_type.startswith("image/")
    return is_picture and file.size <= MAX_SHOWN and is_here(picture)


def is_here(picture: Picture) -> bool:
    """Return whether the file can be opened on this machine."""
    return stored_files.is_here(picture.file)


def _jpeg(image: bytes | None, problem: str) -> Response:
    """Return the response with the image. Raises NotFound with the problem if there is none."""
    if image is None:
        raise NotFound(problem)
    return make_response(image, {"Content-Type": "image/jpeg", "Cache-Control": CACHE_CONTROL})
