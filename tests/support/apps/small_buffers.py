"""The web process of `tests.support.apps.unhurried`, whose kernel takes few bytes of a response.

Served by `gunicorn tests.support.apps.small_buffers:app`. A client that does not read is noticed
after some kB, not after the megabytes that the kernel takes otherwise.
"""

from __future__ import annotations

import socket

from receiver.web.server.worker import Server
from tests.support.apps.unhurried import app

__all__ = ["app"]

welcome = Server.welcome


def welcome_with_small_buffer(server: Server, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    welcome(server, sock)


Server.welcome = welcome_with_small_buffer  # type: ignore[method-assign,assignment]
