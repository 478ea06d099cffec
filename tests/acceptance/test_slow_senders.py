"""Clients that send slowly delay neither valid callbacks nor a stop.

The web process gives slow clients unlimited time here, so a valid callback that had to wait for
one of them would never receive a response.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPSConnection

import pytest
import requests

from receiver.signing.callback_urls import mint
from receiver.web.server import gunicorn
from tests.support.gunicorn_processes import idle_sockets, sockets, workers
from tests.support.installation import ROOT, Installation
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body
from tests.support.slow_senders import SlowSenders, slow_senders

MANY = 100  # three times as many as all threads of the web processes
FEW_SLOTS = 64  # of each web process, where handshakes would take seconds of CPU time
API_TOKEN = "a-token-for-the-tests"
TLS = ROOT / "tests/data/tls"
CERTIFICATE = ("--certfile", str(TLS / "cert.pem"), "--keyfile", str(TLS / "key.pem"))
JSON = {"Content-Type": "application/json"}


def path(task: str) -> str:
    return f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"


def head(where: str, *more: str) -> bytes:
    lines = [f"POST {where} HTTP/1.1", "Host: receiver", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, "", ""]).encode()


RIGHT, WRONG = path("slow"), path("slow")[:-5] + "AAAAA"
ATTACKS = {
    "nothing at all": b"",
    "half the headers": head(RIGHT)[:-2] + b"X-Slow: ",
    "a wrong token": head(WRONG, "Content-Length: 5000"),
    "a right token": head(RIGHT, "Content-Length: 5000"),
    "a right token, in chunks": head(RIGHT, "Transfer-Encoding: chunked") + b"1000\r\n",
    "endless chunks": head(RIGHT, "Transfer-Encoding: chunked") + b"1;",
    "endless trailers": head(RIGHT, "Transfer-Encoding: chunked") + b"0\r\nX-Slow: ",
    "a body too long": head(RIGHT, "Content-Length: 500000"),
    "a picture, without the API's token": head("/api/tasks", "Content-Length: 5000000"),
    "a welcome": head(RIGHT, "Content-Length: 5000", "Expect: 100-continue"),
    "no method": head("/nowhere", "Content-Length: 5000"),
    "a second request": head("/healthz").replace(b"POST", b"GET") + head(RIGHT)[:-2],
}


def check_valid_callbacks(installation: Installation, senders: SlowSenders) -> None:
    """Each callback has its own connection, and the slow senders send a byte in between."""
    for number in range(5):
        url = installation.url + path(f"valid-{number}")
        answer = requests.post(url, data=body(), headers=JSON, timeout=PATIENCE)
        assert answer.status_code == 200
        senders.send_a_byte()


def start_web(installation: Installation, *more: str) -> None:
    installation.start_web("tests.support.apps.unlimited_arrival:app", *more)
    installation.wait_until_ready()


def test_valid_callbacks_do_not_wait_for_slow_senders(installation: Installation) -> None:
    start_web(installation)
    for start in ATTACKS.values():
        with slow_senders(installation.port, [start], MANY) as senders:
            check_valid_callbacks(installation, senders)


def test_a_stop_does_not_wait_for_slow_senders(installation: Installation) -> None:
    """The time limit of the stop is far longer: the slow senders are closed much earlier."""
    start_web(installation, "--graceful-timeout", "1000000")
    with slow_senders(installation.port, list(ATTACKS.values()), MANY) as senders:
        check_valid_callbacks(installation, senders)
        assert installation.stop("web") == 0


def test_more_senders_than_slots_do_not_block_a_valid_callback(
    installation: Installation,
) -> None:
    """There are twice as many senders as slots, so the longest-waiting ones are closed."""
    start_web(installation, "--graceful-timeout", "1000000")
    places = most_sockets(installation)
    with slow_senders(installation.port, list(ATTACKS.values()), 2_200) as senders:
        check_valid_callbacks(installation, senders)
        installation.wait_until(lambda: sockets(workers(installation)) <= places)
    assert installation.stop("web") == 0


def most_sockets(installation: Installation, slots: int = gunicorn.worker_connections) -> int:
    """Return how many sockets the web processes have when all their slots are in use."""
    return idle_sockets(installation) + 2 * slots


IDLE_AND_HALF_SENT = {
    "idle": [b""],
    "half-sent heads": [ATTACKS["half the headers"]],
    "half-sent bodies": [ATTACKS["a right token"], ATTACKS["a right token, in chunks"]],
}


@pytest.mark.parametrize("half_sent", ["half-sent heads", "half-sent bodies"])
def test_neither_idle_nor_half_sent_connections_delay_a_valid_callback(
    installation: Installation, half_sent: str
) -> None:
    start_web(installation)
    with (
        slow_senders(installation.port, IDLE_AND_HALF_SENT["idle"], 600),
        slow_senders(installation.port, IDLE_AND_HALF_SENT[half_sent], 600) as senders,
    ):
        check_valid_callbacks(installation, senders)


# -- with TLS in the web process

HELLO = bytes.fromhex("1603010200010001fc0303")  # a ClientHello whose other 507 bytes never arrive
TLS_ATTACKS = {
    "half a handshake": [HELLO],
    "nothing before the handshake": [HELLO[:3]],
    "nothing after the handshake": [b""],
    "half the headers": [ATTACKS["half the headers"]],
    "half a body": [ATTACKS["a right token"]],
    "half a chunk": [ATTACKS["a right token, in chunks"]],
}
ALL_TLS_ATTACKS = [start for starts in TLS_ATTACKS.values() for start in starts]


@pytest.fixture
def trusted() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(TLS / "cert.pem"))
    context.check_hostname = False
    return context


def post_by_tls(installation: Installation, trusted: ssl.SSLContext, task: str) -> int:
    connection = HTTPSConnection("127.0.0.1", installation.port, context=trusted, timeout=PATIENCE)
    try:
        connection.request("POST", path(task), body(), JSON)
        return connection.getresponse().status
    finally:
        connection.close()


def start_web_with_tls(installation: Installation, trusted: ssl.SSLContext, *more: str) -> None:
    installation.start_web("tests.support.apps.unlimited_arrival:app", *CERTIFICATE, *more)

    def is_ready() -> bool:
        with suppress(ConnectionError):
            return post_by_tls(installation, trusted, "first") == 200
        return False

    installation.wait_until(is_ready)


def check_valid_callbacks_by_tls(
    installation: Installation, trusted: ssl.SSLContext, senders: SlowSenders
) -> None:
    for number in range(5):
        assert post_by_tls(installation, trusted, f"valid-{number}") == 200
        senders.send_a_byte()


def test_valid_callbacks_by_tls_do_not_wait_for_slow_senders(
    installation: Installation, trusted: ssl.SSLContext
) -> None:
    start_web_with_tls(installation, trusted)
    for starts in TLS_ATTACKS.values():
        with slow_senders(installation.port, starts, MANY, trusted) as senders:
            check_valid_callbacks_by_tls(installation, trusted, senders)


def test_more_senders_than_slots_do_not_block_a_valid_callback_by_tls(
    installation: Installation, trusted: ssl.SSLContext
) -> None:
    """Connections with an incomplete handshake also use a slot."""
    options = ("--graceful-timeout", "1000000", "--worker-connections", str(FEW_SLOTS))
    start_web_with_tls(installation, trusted, *options)
    places = most_sockets(installation, FEW_SLOTS)
    for starts in ([HELLO], ALL_TLS_ATTACKS):
        with slow_senders(installation.port, starts, 5 * FEW_SLOTS, trusted) as senders:
            check_valid_callbacks_by_tls(installation, trusted, senders)
            installation.wait_until(lambda: sockets(workers(installation)) <= places)
    assert installation.stop("web") == 0


def test_a_stop_does_not_wait_for_slow_senders_by_tls(
    installation: Installation, trusted: ssl.SSLContext
) -> None:
    start_web_with_tls(installation, trusted, "--graceful-timeout", "1000000")
    with slow_senders(installation.port, ALL_TLS_ATTACKS, MANY, trusted) as senders:
        check_valid_callbacks_by_tls(installation, trusted, senders)
        assert installation.stop("web") == 0


# -- clients that do not read


@contextmanager
def clients_that_do_not_read(
    installation: Installation, request: bytes, count: int
) -> Iterator[None]:
    """Let each client send requests repeatedly, until the server waits for all of them to read."""
    with ExitStack() as stack:
        # the rest must be sent as well, or the request would be incomplete
        left: dict[socket.socket, bytes] = {}
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", installation.port))
            client.setblocking(False)
            left[client] = b""

        def all_are_stuck() -> bool:
            for client, rest in left.items():
                with suppress(BlockingIOError):
                    left[client] = (rest or request * 20)[client.send(rest or request * 20) :]
            waiting = installation.folder.glob("waiting-*")
            return sum(int(path.read_text() or 0) for path in waiting) >= count

        installation.wait_until(all_are_stuck)
        yield


@pytest.mark.parametrize("where", ["/metrics", "/api/tasks?limit=200"])
def test_valid_callbacks_do_not_wait_for_clients_that_do_not_read(
    installation: Installation, where: str
) -> None:
    """There are more such clients than threads, and they are never disconnected here."""
    installation.environment["API_TOKEN"] = API_TOKEN
    installation.start_web("tests.support.apps.small_buffers:app", "--workers", "1")
    installation.wait_until_ready()
    for number in range(30):
        send(installation, f"listed-{number}")
    head = f"GET {where} HTTP/1.1\r\nHost: receiver\r\nAuthorization: Bearer {API_TOKEN}\r\n\r\n"
    with clients_that_do_not_read(installation, head.encode(), 24):
        for number in range(20):
            assert send(installation, f"valid-{number}") == 200
            by_a_thread = requests.get(f"{installation.url}/readyz", timeout=PATIENCE)
            assert by_a_thread.status_code == 200
            by_a_thread.close()


def send(installation: Installation, task: str) -> int:
    url = installation.url + path(task)
    return requests.post(url, data=body(), headers=JSON, timeout=PATIENCE).status_code
