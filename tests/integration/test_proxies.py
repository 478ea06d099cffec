"""nginx and Caddy accept the files of deploy/, and forward callbacks unchanged.

The files are used unchanged, except for the parts that name another machine.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler

import pytest

from receiver.signing.callback_urls import mint
from receiver.text.limits import MAX_BODY
from submitter.api import LONGEST_BODY
from tests.support.clean_venv import ROOT
from tests.support.http_server import LoopbackServer
from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from tests.support.proxies import (
    NAME,
    adapted_caddyfile,
    adapted_nginx,
    certificate,
    connect_by_tls,
)
from tests.support.real_servers import caddy, nginx, nginx_arguments, place
from tests.support.samples import SECRET, body

TOKEN = mint(SECRET, "kling", "task-1")
# A path with all kinds of parts that a proxy might normalise.
TARGET = f"/callbacks/kling//task%2D1/%2e./{TOKEN}%20//?a=%2F&b=1;c"


@dataclass
class Received:
    """A request as the upstream server received it."""

    line: str
    headers: Message[str, str]
    body: bytes


@dataclass
class Proxy:
    """A running proxy, and the requests that it has forwarded."""

    port: int
    plain_port: int
    received: list[Received]
    output: Callable[[], str]

    def post(self, target: str, sent: bytes, **headers: str) -> int:
        """Send a request over TLS, as a provider would; return the status."""
        connection = HTTPConnection(NAME)
        connection.sock = connect_by_tls(self.port)
        try:
            connection.request("POST", target, sent, headers)
            return connection.getresponse().status
        finally:
            connection.close()


@dataclass
class Upstream:
    """A server that records each request and answers 200."""

    received: list[Received] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[int]:
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                sent = self.rfile.read(length)
                if len(sent) < length:  # truncated: no web server forwards such a request
                    self.close_connection = True
                    return
                received.append(Received(self.requestline, self.headers, sent))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        server = LoopbackServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(PATIENCE)
            server.server_close()


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def running(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    upstream = Upstream()
    with place(request.param) as server, upstream.serving() as upstream_port:
        certificate(server)
        ports = (free_port(), free_port())
        adapted, run = {
            "nginx": (adapted_nginx, nginx),
            "caddy": (adapted_caddyfile, caddy),
        }[request.param]
        with run(server, adapted(server.folder, *ports, upstream_port), ports[0]):
            yield Proxy(*ports, upstream.received, server.output)


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    running.received.clear()
    return running


def test_nginx_accepts_our_file() -> None:
    with place("nginx") as server:
        certificate(server)
        site = adapted_nginx(server.folder, free_port(), free_port(), 8000)
        done = server.run(*nginx_arguments(server, site), "-t")
        assert "test is successful" in done.stderr
        assert "[warn]" not in done.stderr


@pytest.mark.parametrize(
    "variables",
    [{}, {"PUBLIC_URL": "https://shop.example", "RECEIVER": "web-processes:8000"}],
    ids=["as it is", "in compose.yaml"],
)
def test_caddy_accepts_our_file(variables: dict[str, str]) -> None:
    """The file is unchanged, because Caddy requests no certificate to read it."""
    with place("caddy") as server:
        file = server.write("Caddyfile", (ROOT / "deploy/Caddyfile").read_text())
        arguments = ("--adapter", "caddyfile", "--config", file)
        done = server.run("validate", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        adapted = server.run("adapt", *arguments, **variables).stdout
        for value in variables.values():
            assert value.removeprefix("https://") in adapted
        assert "Valid configuration" in done.stdout + done.stderr


def test_a_callback_is_forwarded_unchanged(proxy: Proxy) -> None:
    sent = {
        "Content-Type": "application/json; charset=utf-8",
        "Content-Encoding": "gzip",
        "Webhook-Id": "msg_1",
        "Webhook-Signature": "v1,SGVsbG8= v1,d29ybGQ=",
        "User-Agent": "Kling/1.0",
    }
    raw = body(padding="ü" * 40_000)
    assert proxy.post(TARGET, raw, **sent) == 200
    (received,) = proxy.received
    assert received.line == f"POST {TARGET} HTTP/1.1"
    assert received.body == raw
    assert {name: received.headers.get_all(name) for name in sent} == {
        name: [value] for name, value in sent.items()
    }
    assert TOKEN not in proxy.output()


def test_the_receiver_learns_the_address_of_the_client(proxy: Proxy) -> None:
    """With TRUSTED_PROXIES=1: what a client claims precedes the client's address."""
    assert proxy.post(TARGET, body(), **{"X-Forwarded-For": "192.0.2.1"}) == 200
    headers = proxy.received[0].headers
    assert headers["X-Forwarded-For"].rsplit(", ", 1)[-1] == "127.0.0.1"
    assert headers.get_all("X-Forwarded-Proto") == ["https"]
    assert re.fullmatch(r"[0-9a-f-]{32,36}", headers["X-Request-Id"])
    assert headers["Host"] == headers["X-Forwarded-Host"] == NAME


def test_the_proxies_accept_bodies_up_to_the_receivers_limit(proxy: Proxy) -> None:
    assert proxy.post(TARGET, b"x" * MAX_BODY) == 200
    assert proxy.post(TARGET, b"x" * (MAX_BODY + 1)) == 413
    assert proxy.post("/api/tasks", b"x" * LONGEST_BODY) == 200
    assert [len(received.body) for received in proxy.received] == [MAX_BODY, LONGEST_BODY]


def plain(port: int, target: str) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", target, body(), {"Host": NAME})
        return connection.getresponse()
    finally:
        connection.close()


def test_no_callback_without_tls_reaches_the_receiver(proxy: Proxy) -> None:
    assert plain(proxy.plain_port, TARGET).status in (404, 308)
    assert proxy.received == []
