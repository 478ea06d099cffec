"""The web process of `wsgi.py` on a `Disk`, for gunicorn: `tests.support.apps.watched_disk:app`.

Before an answer leaves, it is written down what the disk would hold if the power went then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from receiver.settings import load, sqlite_path
from receiver.stores.sqlite import writer
from receiver.stores.sqlite.session import SqliteSession
from receiver.tasks import Outcome
from receiver.web.direct import Direct
from receiver.web.ordinary import Ordinary
from tests.support.disk import Disk

database = sqlite_path(load().database_url)
disk = Disk(database)
disk.install()
connect = writer.connect


def careless(path: Path, *, read_only: bool) -> SqliteSession:
    """A connection as the writer's, but for what TEST_SYNCHRONOUS says."""
    connection = connect(path, read_only=read_only)
    connection.execute(f"pragma synchronous = {os.environ['TEST_SYNCHRONOUS']}")
    return connection


if "TEST_SYNCHRONOUS" in os.environ:
    writer.connect = careless

from tests.support.apps.unhurried import app  # noqa: E402 - the disk has to be there first

as_flask_answers, take_directly = app.wsgi_app, Direct.take


def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    def before_it_leaves(status: str, *more: Any) -> Any:
        if status.startswith("200") and environ["REQUEST_METHOD"] == "POST":
            note(environ["PATH_INFO"].split("/")[3])
        return start_response(status, *more)

    return as_flask_answers(environ, before_it_leaves)


def take(direct: Direct, request: Ordinary) -> tuple[Outcome, str] | None:
    taken = take_directly(direct, request)
    if taken is not None:
        note(request.task_id)
    return taken


def note(task: str) -> None:
    """Write down what a power cut would leave now."""
    disk.after_a_power_cut(database.with_name("cuts") / task)


app.wsgi_app = answer  # type: ignore[method-assign]
Direct.take = take  # type: ignore[method-assign,assignment]
