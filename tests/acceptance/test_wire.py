"""What only a real web server shows: bodies without a length, cut short, and repeated at once."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import requests

from installation import Installation
from receiver.errors import NotFound
from receiver.signing import mint
from samples import SECRET, body

LIMIT = 256 * 1024


def path(task: str) -> str:
    return f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"


def raw_request(installation: Installation, head: str, chunks: list[bytes]) -> bytes:
    """The first line that comes back for these bytes on the wire."""
    with socket.create_connection(("127.0.0.1", installation.port), timeout=20) as connection:
        connection.sendall(head.encode())
        with suppress(BrokenPipeError, ConnectionResetError):  # answered before it was all sent
            for chunk in chunks:
                connection.sendall(chunk)
            connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").readline()


def chunked(installation: Installation, task: str, raw: bytes) -> bytes:
    head = (
        f"POST {path(task)} HTTP/1.1\r\nHost: receiver\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    size = 8_000
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    chunks = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces]
    return raw_request(installation, head, [*chunks, b"0\r\n\r\n"])


def test_bodies_on_the_wire(installation: Installation) -> None:
    installation.start_web()
    installation.wait_until_ready()
    store = installation.store

    assert b" 200 " in chunked(installation, "chunked", body())
    for number, size in enumerate((LIMIT, LIMIT + 1, LIMIT + 30_000)):
        raw = body(padding="x" * size)[:size]
        assert b" 413 " in chunked(installation, f"long-{number}", raw), size
    assert [task.id for task in store.tasks()] == ["chunked"]  # nothing truncated was kept

    head = (
        f"POST {path('cut')} HTTP/1.1\r\nHost: receiver\r\nContent-Type: application/json\r\n"
        "{how}\r\nConnection: close\r\n\r\n"
    )
    for how, chunks in (
        ("Content-Length: 5000", [body()]),  # valid as far as it goes
        ("Transfer-Encoding: chunked", [b"zz\r\n", body()]),
        ("Transfer-Encoding: chunked", [f"{len(body()) + 9:x}\r\n".encode(), body()]),
    ):
        assert b" 400 " in raw_request(installation, head.format(how=how), chunks), how
    with pytest.raises(NotFound):
        store.task("cut")
    log = installation.logs()
    assert "Traceback" not in log
    assert path("cut").rsplit("/", 1)[1] not in log


def test_fifty_at_once_on_two_processes_is_one_transition(installation: Installation) -> None:
    installation.start_web()
    installation.wait_until_ready()
    url = installation.url + path("task-1")
    headers = {"Content-Type": "application/json"}

    def send(_: int) -> str:
        answer = requests.post(url, data=body(), headers=headers, timeout=20)
        assert answer.status_code == 200
        return str(answer.json()["outcome"])

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(send, range(50)))
    assert outcomes == ["duplicate"] * 49 + ["recorded"]
    history = installation.store.history("task-1")
    assert [move.status for move in history.transitions] == ["succeeded"]
    assert sorted(delivery.hook for delivery in history.deliveries) == ["mail", "pictures", "slack"]
