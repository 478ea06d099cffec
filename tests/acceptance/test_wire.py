"""Tests that need a real web server: bodies without a length, truncated or sent many times."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPSConnection

import pytest
import requests

from receiver.errors import NotFound
from receiver.signing.callback_urls import mint
from receiver.text.limits import MAX_BODY as LIMIT
from receiver.web.server.callback_app import DISCONNECTED
from sandbox.server import Sandbox
from tests.support import processes
from tests.support.gunicorn_processes import has_unread_bytes, launch
from tests.support.installation import ROOT, Installation, both_stores
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body

UNHURRIED = "tests.support.apps.unhurried:app"


@pytest.fixture(scope="module")
def unhurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A web process without time limits, for all tests that need no settings of their own."""
    with Sandbox() as sandbox:
        installation = Installation(tmp_path_factory.mktemp("unhurried"), sandbox)
        try:
            installation.migrate()
            installation.start_web(UNHURRIED)
            installation.wait_until_ready()
            yield installation
        finally:
            installation.close()


def path(task: str) -> str:
    return f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"


def raw_request(installation: Installation, head: str, chunks: list[bytes]) -> bytes:
    """Return the first line of the response to these bytes."""
    with socket.create_connection(("127.0.0.1", installation.port), PATIENCE) as connection:
        connection.sendall(head.encode())
        # the response arrived before everything was sent
        with suppress(BrokenPipeError, ConnectionResetError):
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


def test_bodies_in_all_http_encodings_are_read(unhurried: Installation) -> None:
    installation = unhurried
    before = {task.id for task in installation.store.lists.tasks()}
    store = installation.store

    assert b" 200 " in chunked(installation, "chunked", body())
    for number, size in enumerate((LIMIT + 1, LIMIT + 2, LIMIT + 30_000)):
        raw = body(padding="x" * size)[:size]
        assert b" 413 " in chunked(installation, f"long-{number}", raw), size
    assert {task.id for task in store.lists.tasks()} - before == {
        "chunked"
    }  # nothing truncated was stored

    head = (
        f"POST {path('cut')} HTTP/1.1\r\nHost: receiver\r\nContent-Type: application/json\r\n"
        "{how}\r\nConnection: close\r\n\r\n"
    )
    for how, chunks in (
        ("Content-Length: 5000", [body()]),  # a valid beginning
        ("Transfer-Encoding: chunked", [b"zz\r\n", body()]),
        ("Transfer-Encoding: chunked", [f"{len(body()) + 9:x}\r\n".encode(), body()]),
    ):
        assert b" 400 " in raw_request(installation, head.format(how=how), chunks), how
    how = "Content-Length: 5000\r\nExpect: 100-continue"
    with socket.create_connection(("127.0.0.1", installation.port), PATIENCE) as connection:
        connection.sendall(head.format(how=how).encode())
        assert b" 100 " in connection.makefile("rb").readline()  # the server requests the body
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with pytest.raises(NotFound):
        store.queries.task("cut")

    def reasons() -> str:
        return " ".join(rejection.reason for rejection in store.activity.rejections())

    for expected in ("Send a shorter body", "body is incomplete", "shorter than its", DISCONNECTED):
        installation.wait_until(lambda expected=expected: expected in reasons())  # type: ignore[misc]
    log = installation.logs()
    assert "Traceback" not in log
    assert path("cut").rsplit("/", 1)[1] not in log


@both_stores
def test_fifty_simultaneous_copies_on_two_processes_are_one_transition(
    installation: Installation,
) -> None:
    installation.start_web(UNHURRIED)
    installation.wait_until_ready()
    url = installation.url + path("task-1")
    headers = {"Content-Type": "application/json"}

    def send(_: int) -> str:
        answer = requests.post(url, data=body(), headers=headers, timeout=PATIENCE)
        assert answer.status_code == 200
        return str(answer.json()["outcome"])

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(send, range(50)))
    assert outcomes == ["duplicate"] * 49 + ["recorded"]
    history = installation.store.queries.history("task-1")
    assert [move.status for move in history.transitions] == ["succeeded"]
    assert sorted(delivery.hook for delivery in history.deliveries) == ["mail", "pictures", "slack"]


def exchange(installation: Installation, *pieces: bytes) -> list[bytes]:
    """Return the status lines of the responses; the server reads each piece separately."""
    with socket.create_connection(("127.0.0.1", installation.port), PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
                installation.wait_until(lambda: not has_unread_bytes(installation.port))
            connection.shutdown(socket.SHUT_WR)
        return re.findall(rb"HTTP/1\.1 \d+ [A-Za-z ]+", connection.makefile("rb").read())


def head(task: str, *more: str) -> bytes:
    lines = [f"POST {path(task)} HTTP/1.1", "Host: receiver", "Content-Type: application/json"]
    return "\r\n".join([*lines, *more, "", ""]).encode()


def test_requests_are_handled_however_their_bytes_arrive(unhurried: Installation) -> None:
    installation = unhurried
    before = {task.id for task in installation.store.lists.tasks()}
    raw = body()
    length = f"Content-Length: {len(raw)}"
    ok = [b"HTTP/1.1 200 OK"]

    whole = head("a", length) + raw
    assert exchange(installation, *(whole[at : at + 40] for at in range(0, len(whole), 40))) == ok
    assert exchange(installation, whole * 3) == ok * 3  # one after the other, in one piece
    assert exchange(installation, whole * 60) == ok * 60
    assert exchange(installation, whole + whole[:50], whole[50:]) == ok * 2
    assert exchange(installation, *[whole] * 3) == ok * 3  # on a persistent connection

    welcomed = exchange(installation, head("b", length, "Expect: 100-continue"), raw)
    assert welcomed == [b"HTTP/1.1 100 Continue", *ok]
    assert exchange(installation, head("b", length, "Expect: 100-continue") + raw) == ok

    single = b"".join(b"1\r\n%c\r\n" % letter for letter in raw)
    in_chunks = head("c", "Transfer-Encoding: chunked")
    assert exchange(installation, in_chunks, single[:99], single[99:], b"0\r\n\r\n") == ok
    assert exchange(installation, in_chunks, single, b"0\r\nX-Sum: 1\r\n\r\n", whole) == ok * 2

    too_long = [f"HTTP/1.1 413 {HTTPStatus(413).phrase}".encode()]  # it differs in Python 3.13
    assert exchange(installation, in_chunks, b"1\r\nx\r\n" * 300_000 + b"0\r\n\r\n") == too_long
    assert (
        exchange(installation, head("d", "Content-Length: 9000000"), b"x" * 9_000_000) == too_long
    )
    assert exchange(installation, head("d", "Content-Length: 262145"), b"x" * 262_145) == too_long
    # A client that is refused before the end of its body can read the response before the
    # connection closes.
    assert exchange(installation, head("d", "Content-Length: 9000000"), b"x" * 400_000) == too_long
    fits = body(padding="x" * 250_000)
    assert exchange(installation, head("e", f"Content-Length: {len(fits)}"), fits) == ok

    many = [f"X-{number}: v" for number in range(80)]
    refused = [b"HTTP/1.1 431 Request Header Fields Too Large"]
    assert exchange(installation, head("f", length, *many) + raw) == refused
    assert exchange(installation, head("f", length, "X-Long: " + "x" * 40_000) + raw) == refused
    assert {task.id for task in installation.store.lists.tasks()} - before == set("abce")


def test_gunicorn_alone_reads_the_same_settings(installation: Installation) -> None:
    """`gunicorn wsgi:app`, as hosts start it, finds the settings in gunicorn.conf.py."""
    printed = installation.run("gunicorn", "--print-config", "wsgi:app").stdout
    ours = installation.run(
        "gunicorn", "--config", "python:receiver.web.gunicorn", "--print-config", "wsgi:app"
    ).stdout
    assert "receiver.web.server.worker.Worker" in printed
    assert [line for line in printed.splitlines() if not line.startswith("config ")] == [
        line for line in ours.splitlines() if not line.startswith("config ")
    ]


def test_no_garbage_collection_scans_all_imported_objects(
    installation: Installation,
) -> None:
    """It would stop every callback for tens of milliseconds."""
    installation.environment |= processes.EXECUTED  # a forked process has frozen objects
    launch(installation, "tests.support.apps.frozen:app")
    frozen, threshold = map(int, requests.get(installation.url, timeout=PATIENCE).text.split())
    assert frozen > 50_000
    assert threshold == 5_000


def test_gunicorn_serves_with_its_own_certificate(
    installation: Installation,
) -> None:
    tls = ROOT / "tests/data/tls"
    installation.start_web(
        "wsgi:app", "--certfile", str(tls / "cert.pem"), "--keyfile", str(tls / "key.pem")
    )
    trusted = ssl.create_default_context(cafile=str(tls / "cert.pem"))
    trusted.check_hostname = False

    def is_answered() -> bool:
        with suppress(ConnectionError):
            connection = HTTPSConnection(
                "127.0.0.1", installation.port, context=trusted, timeout=PATIENCE
            )
            for task in ("a", "a"):  # on one connection
                connection.request("POST", path(task), body(), {"Content-Type": "application/json"})
                assert connection.getresponse().read().startswith(b'{"outcome"')
            connection.close()
            return True
        return False

    installation.wait_until(is_answered)


def test_a_client_that_is_still_sending_can_read_why_its_body_is_refused(
    unhurried: Installation,  # the time limits of such clients are disabled there
) -> None:
    """Closing a connection immediately can destroy the response in transit."""
    installation = unhurried
    with (
        socket.create_connection(("127.0.0.1", installation.port), PATIENCE) as connection,
        connection.makefile("rb") as file,
    ):
        connection.sendall(head("g", "Transfer-Encoding: chunked") + b"zz\r\n")
        assert b" 400 " in file.readline()
        for _ in range(20):
            connection.sendall(b"x" * 100_000)
            installation.wait_until(lambda: not has_unread_bytes(installation.port))
        connection.shutdown(socket.SHUT_WR)
        assert file.read().endswith(b"}")


def test_data_after_the_last_request_is_refused_also_after_a_half_close(
    unhurried: Installation,
) -> None:
    installation = unhurried
    raw = body()
    with socket.create_connection(("127.0.0.1", installation.port), PATIENCE) as connection:
        connection.sendall(head("h", f"Content-Length: {len(raw)}") + raw + b"garbage\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        found = re.findall(rb"HTTP/1\.1 (\d+)", connection.makefile("rb").read())
    assert found == [b"200", b"400"]
