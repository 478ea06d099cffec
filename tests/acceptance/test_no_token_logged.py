"""Our log contains no token of a callback URL, whatever happens to the request."""

from __future__ import annotations

import socket

import pytest

from tests.support.broken_requests import ABORTED, ORDINARY, TOKEN, reset, response
from tests.support.installation import Installation
from tests.support.patience import PATIENCE


@pytest.mark.parametrize("options", [(), ("--worker-class", "gthread")], ids=["uvicorn", "gthread"])
def test_no_log_line_of_the_web_process_contains_a_token(
    installation: Installation, options: tuple[str, ...]
) -> None:
    installation.start_web("wsgi:app", *options)
    installation.wait_until_ready()

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", installation.port), PATIENCE)

    for sent in ORDINARY.values():
        assert response(connect(), sent).startswith(b"HTTP/1.1 4")
    for sent in ABORTED.values():
        reset(connect(), sent)
    installation.stop("web")
    log = (installation.folder / "web.log").read_text()
    assert "request" in log
    assert TOKEN not in log
