"""An endless response of a mail server does not fill the memory of the worker."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest

from receiver.errors import TemporaryFailure
from receiver.hooks.email import Email
from receiver.hooks.smtp import MAX_REPLY
from tests.support.hook_servers import notice
from tests.support.patience import PATIENCE

LINE = b"220-" + b"x" * 1_000 + b"\r\n"


def test_a_response_that_does_not_end_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):  # the hook disconnects
                connection.sendall(LINE * (2 * MAX_REPLY // len(LINE)))

        thread = threading.Thread(target=serve)
        thread.start()
        options = {
            "host": "127.0.0.1",
            "port": server.getsockname()[1],
            "from": "a@shop.example",
            "to": "b@shop.example",
            "deadline": PATIENCE,
        }
        with pytest.raises(TemporaryFailure, match="the server's reply does not end"):
            Email("mail", options).send(notice())
        thread.join(PATIENCE)
