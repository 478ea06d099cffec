"""The web process of `tests.support.apps.unhurried`, with small send buffers in the kernel.

Served by `gunicorn tests.support.apps.small_buffers:app`. A client that does not read is noticed
after a few kB instead of megabytes. The file `waiting-` with the process id, beside the database,
contains the number of connections whose clients do not read.
"""

from __future__ import annotations

import os
import socket

from receiver.config.settings import load, sqlite_path
from receiver.web.server.protocol import HttpConnection
from receiver.web.server.worker import Server
from tests.support.apps.unhurried import app

__all__ = ["app"]

database = sqlite_path(load().database_url)
waiting: set[HttpConnection] = set()
serve, pause, resume = (
    Server.serve_connection,
    HttpConnection.pause_writing,
    HttpConnection.resume_writing,
)


def serve_with_small_buffer(server: Server, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    serve(server, sock)


def pause_visibly(connection: HttpConnection) -> None:
    pause(connection)
    waiting.add(connection)
    report()


def resume_visibly(connection: HttpConnection) -> None:
    resume(connection)
    waiting.discard(connection)
    report()


def report() -> None:
    database.with_name(f"waiting-{os.getpid()}").write_text(str(len(waiting)))


Server.serve_connection = serve_with_small_buffer  # type: ignore[method-assign,assignment]
HttpConnection.pause_writing = pause_visibly  # type: ignore[method-assign,assignment]
HttpConnection.resume_writing = resume_visibly  # type: ignore[method-assign,assignment]
