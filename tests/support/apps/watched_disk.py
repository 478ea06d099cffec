"""The web process of `wsgi.py` on a `Disk`, for gunicorn: `tests.support.apps.watched_disk:app`.

Before each response is sent, it records what the disk would contain after a power cut.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from receiver.config.settings import load, sqlite_path
from receiver.stores.sqlite import writer
from receiver.stores.sqlite.session import SqliteSession
from receiver.web.callbacks import CallbackRequest
from receiver.web.server.callback_app import CallbackHandler, CallbackResponse
from tests.support.disk import Disk

database = sqlite_path(load().database_url)
disk = Disk(database)
disk.install()
connect = writer.connect


def careless(path: Path, *, read_only: bool) -> SqliteSession:
    """Return the writer's connection, with `synchronous` set to TEST_SYNCHRONOUS."""
    connection = connect(path, read_only=read_only)
    connection.execute(f"pragma synchronous = {os.environ['TEST_SYNCHRONOUS']}")
    return connection


if "TEST_SYNCHRONOUS" in os.environ:
    writer.connect = careless

from tests.support.apps.unhurried import app  # noqa: E402 - the disk has to be there first

as_flask_answers, take_without_flask = app.wsgi_app, CallbackHandler.receive


def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    def before_it_leaves(status: str, *more: Any) -> Any:
        if status.startswith("200") and environ["REQUEST_METHOD"] == "POST":
            note(environ["PATH_INFO"].split("/")[3])
        return start_response(status, *more)

    return as_flask_answers(environ, before_it_leaves)


async def take(
    self: CallbackHandler, sent: CallbackRequest, body: bytes
) -> CallbackResponse | None:
    answer = await take_without_flask(self, sent, body)
    if answer is not None and answer.status == 200:
        note(str(sent.task_id))
    return answer


def note(task: str) -> None:
    """Record the data that a power cut at this moment would leave."""
    disk.after_a_power_cut(database.with_name("cuts") / task)


app.wsgi_app = answer  # type: ignore[method-assign]
CallbackHandler.receive = take  # type: ignore[method-assign]
