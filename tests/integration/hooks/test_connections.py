"""Connections that are kept for the next attempt: which ones are used again, and which never."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import DeliveryFailure, PermanentFailure, TemporaryFailure, TimedOut
from receiver.hooks.webhook import Webhook
from receiver.outgoing import connections, http, tls
from receiver.outgoing.deadline import Deadline
from submitter.client import Client
from submitter.errors import OutcomeUnknown
from tests.support.hook_servers import CERT, notice
from tests.support.patience import PATIENCE, wait_until
from tests.support.persistent_site import OK, Answer, Close, Hold, PersistentSite, Twice
from tests.support.ports import free_port

DEADLINE = 0.5
PUBLIC = "93.184.216.34"
SECRET = "whsec_" + "c2hhcGU" * 8


def post(url: str, body: bytes = b"x", **options: Any) -> http.Response:
    return http.post(url, data=body, **{"deadline": PATIENCE, "allow_private": True, **options})


def get(url: str, *, allow_private: bool = True) -> tuple[int, bytes]:
    with http.stream(
        url, deadline=PATIENCE, max_bytes=1_000_000, allow_private=allow_private
    ) as incoming:
        return incoming.status, b"".join(incoming.chunks)


@pytest.fixture(params=["http", "https"])
def site(request: pytest.FixtureRequest) -> Iterator[PersistentSite]:
    with PersistentSite(tls=request.param == "https") as made:
        yield made


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(CERT))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The addresses of names. A connection to PUBLIC reaches this machine."""
    addresses: dict[str, str] = {}
    resolve, connect = socket.getaddrinfo, socket.create_connection

    def getaddrinfo(host: str, port: int, *args: Any, **more: Any) -> Any:
        return resolve(addresses.get(host, host), port, *args, **more)

    def create_connection(address: tuple[str, int], *args: Any, **more: Any) -> Any:
        host, port = address
        return connect(("127.0.0.1" if host == PUBLIC else host, port), *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    return addresses


# -- which connections are used again


def test_attempts_for_one_endpoint_use_one_connection(site: PersistentSite) -> None:
    hook = Webhook("shop", {"url": site.url, "secrets": [SECRET], "allow_private": True})
    for _ in range(3):
        assert hook.send(notice()).answer == f"{http.origin(site.url)} answered 200 ok"
    assert [len(served.requests) for served in site.connections] == [3]


def test_a_connection_in_use_is_not_shared(site: PersistentSite) -> None:
    with http.stream(
        f"{site.url}/a", deadline=PATIENCE, max_bytes=100, allow_private=True
    ) as incoming:
        assert post(site.url).body == b"ok"
        assert b"".join(incoming.chunks) == b"ok"
    assert len(site.connections) == 2
    post(site.url)
    post(site.url)
    assert len(site.connections) == 2


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        pytest.param(OK.replace(b": 2", b": 99999") + b"x" * 99_997, {"max_bytes": 9}, id="long"),
        pytest.param(Close(OK), {}, id="closed"),
        pytest.param(Close(b"HTTP/1.1 200 OK\r\n\r\nok"), {}, id="ended by closing"),
        pytest.param(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), {}, id="asked"),
        pytest.param(OK.replace(b"1.1", b"1.0"), {}, id="HTTP/1.0"),
        pytest.param(
            OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=1, max=9\r\n\r\n"), {}, id="timeout"
        ),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n", {}, id="early hints"),
        pytest.param(OK + OK, {}, id="answered twice"),
        pytest.param(OK + b"\n", {}, id="one byte more"),
    ],
)
def test_a_connection_with_such_a_response_is_not_used_again(
    site: PersistentSite, answer: Answer, options: dict[str, Any]
) -> None:
    site.answers = [answer]
    post(site.url, b"1", **options)
    if isinstance(answer, Close):
        wait_until(lambda: site.connections[0].is_over)
    assert post(site.url, b"2").body == b"ok"
    assert [served.requests for served in site.connections] == [[b"1"], [b"2"]]


def test_a_connection_whose_response_was_not_read_is_not_used_again(site: PersistentSite) -> None:
    """Even if everything that has arrived was read, so that the connection looks idle."""
    site.answers = [Hold(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * http.CHUNK)]
    assert len(post(site.url, b"1", max_bytes=http.CHUNK).body) == http.CHUNK
    assert post(site.url, b"2").body == b"ok"
    assert [served.requests for served in site.connections] == [[b"1"], [b"2"]]


def test_bytes_that_arrive_on_an_idle_connection_answer_no_request(site: PersistentSite) -> None:
    answer = Twice(OK.replace(b"200 OK", b"410 Gone"))
    site.answers = [answer]
    post(site.url, b"1")
    answer.requested.set()
    assert answer.sent.wait(PATIENCE)
    assert post(site.url, b"2").status == 200
    assert [served.requests for served in site.connections] == [[b"1"], [b"2"]]


def test_a_connection_that_exceeded_its_deadline_is_not_used_again(site: PersistentSite) -> None:
    post(site.url, b"1")
    site.answers = [Hold(OK[:-1])]
    with pytest.raises(TimedOut):
        post(site.url, b"2", deadline=DEADLINE)
    assert post(site.url, b"3").body == b"ok"
    assert [served.requests for served in site.connections] == [[b"1", b"2"], [b"3"]]


def test_a_deadline_that_passes_later_leaves_a_kept_connection_alone(site: PersistentSite) -> None:
    """The connection is released before the next attempt can take it."""
    with Deadline(DEADLINE) as clock:
        with connections.exchange("POST", site.url, clock, allow_private=True) as response:
            assert response.read(100) == b"ok"
            assert response.read(100) == b""
        wait_until(lambda: clock.passed)
        assert post(site.url).body == b"ok"
    assert len(site.connections) == 1


def test_an_idle_connection_is_closed(
    site: PersistentSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_IDLE_SECONDS", 0.05)
    post(site.url)
    wait_until(lambda: site.connections[0].is_closed)


def test_a_server_announces_when_it_closes_an_idle_connection(
    site: PersistentSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    site.answers = [OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=3\r\n\r\n")] * 2
    post(site.url)
    monkeypatch.setattr(time, "monotonic", lambda: now + connections.MAX_IDLE_SECONDS - 1)
    post(site.url)
    assert len(site.connections) == 2


def test_a_connection_is_not_used_for_longer_than_a_minute(
    site: PersistentSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(site.url)
    now = time.monotonic()
    for seconds in range(3, 69, 3):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: now + seconds)
        post(site.url)
    assert len(site.connections) == 2


def test_only_so_many_connections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_IDLE", 1)
    with PersistentSite() as first, PersistentSite() as second:
        post(first.url)
        post(second.url)
        wait_until(lambda: first.connections[0].is_closed)
        post(second.url)
        assert len(second.connections) == 1


def test_no_cookie_is_stored(site: PersistentSite) -> None:
    site.answers = [OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=S3CRET; Path=/\r\n\r\n")]
    post(site.url)
    post(site.url)
    (served,) = site.connections
    assert not any(b"cookie" in head.lower() for head in served.heads)


@pytest.mark.parametrize("is_usual", [True, False])
def test_the_usual_port_is_not_part_of_the_host_header(
    site: PersistentSite, monkeypatch: pytest.MonkeyPatch, is_usual: bool
) -> None:
    """As in browsers; the signature of a link may contain the header."""
    scheme, _, place = site.url.partition("://")
    if is_usual:
        monkeypatch.setitem(connections.PORTS, scheme, site.port)
    get(f"{scheme}://user:word@{place}/a")
    (head,) = site.connections[0].heads
    hosts = [line for line in head.split(b"\r\n") if line.lower().startswith(b"host:")]
    host = place.partition(":")[0] if is_usual else place
    assert hosts == [f"Host: {host}".encode()]


# -- the guard


def test_a_name_that_becomes_private_reaches_no_private_address(names: dict[str, str]) -> None:
    with PersistentSite() as site:
        url = f"http://hooks.example:{site.port}/"
        names["hooks.example"] = PUBLIC
        post(url, b"1", allow_private=False)
        names["hooks.example"] = "127.0.0.1"
        post(url, b"2", allow_private=False)  # still connected to the public address
        assert [served.requests for served in site.connections] == [[b"1", b"2"]]
        site.close_all()
        with pytest.raises(PermanentFailure, match="not a public address"):
            post(url, b"3", allow_private=False)
        assert [served.requests for served in site.connections] == [[b"1", b"2"]]


def test_an_attempt_on_a_kept_connection_resolves_no_name(
    names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with PersistentSite() as site:
        names["hooks.example"] = PUBLIC
        url = f"http://hooks.example:{site.port}/"
        post(url, allow_private=False)
        monkeypatch.setattr(socket, "getaddrinfo", None)
        assert post(url, allow_private=False).body == b"ok"


def test_a_connection_of_a_hook_that_may_reach_internal_addresses_is_its_own(
    site: PersistentSite,
) -> None:
    post(site.url, b"1")
    with pytest.raises(PermanentFailure, match="not a public address"):
        post(site.url, b"2", allow_private=False)
    assert site.requests == [b"1"]


def test_each_setting_has_a_connection_of_its_own(
    site: PersistentSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where both could connect."""
    monkeypatch.setattr(connections, "public_address", lambda host, _: host)
    for allow_private in (True, False, True, False):
        post(site.url, str(allow_private).encode(), allow_private=allow_private)
    assert [served.requests for served in site.connections] == [[b"True"] * 2, [b"False"] * 2]


def test_a_redirect_leads_to_no_kept_connection_to_a_private_address(
    names: dict[str, str],
) -> None:
    with PersistentSite() as internal, PersistentSite() as public:
        get(f"{internal.url}/allowed")
        names["cdn.example"] = PUBLIC
        head = f"HTTP/1.1 302 Found\r\nLocation: {internal.url}/secret\r\nContent-Length: 0\r\n\r\n"
        public.answers = [head.encode()]
        with pytest.raises(PermanentFailure, match="not a public address"):
            get(f"http://cdn.example:{public.port}/a", allow_private=False)
        names["cdn.example"], public.answers = "127.0.0.1", [head.encode()]
        with pytest.raises(PermanentFailure, match="not a public address"):
            get(f"http://cdn.example:{public.port}/a")  # allowed for the first host only
        assert internal.requests == [b"/allowed"]


def test_the_environment_chooses_no_proxy_for_kept_and_new_connections(
    site: PersistentSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(site.url, b"1")
    with PersistentSite() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        post(site.url, b"2")
        site.close_all()
        post(site.url, b"3")
        with pytest.raises(PermanentFailure, match="not a public address"):
            post(site.url, b"4", allow_private=False)
        assert proxy.connections == []
    assert [served.requests for served in site.connections] == [[b"1", b"2"], [b"3"]]


# -- an attempt is sent at most once


def test_an_attempt_is_not_repeated_if_a_kept_connection_breaks(site: PersistentSite) -> None:
    post(site.url, b"1")
    site.answers = [Close()]  # after it has read the request
    with pytest.raises(TemporaryFailure) as caught:
        post(site.url, b"2")
    assert not caught.value.timed_out
    assert site.requests == [b"1", b"2"]
    assert len(site.connections) == 1


def test_an_attempt_is_not_repeated_if_a_new_connection_breaks(site: PersistentSite) -> None:
    site.answers = [Close()]
    with pytest.raises(TemporaryFailure):
        post(site.url, b"1")
    assert site.requests == [b"1"]


def test_an_attempt_is_not_repeated_if_its_response_breaks_off(site: PersistentSite) -> None:
    post(site.url, b"1")
    site.answers = [Close(OK[:-1])]
    with pytest.raises(TemporaryFailure):
        post(site.url, b"2")
    assert site.requests == [b"1", b"2"]


def test_a_connection_that_the_server_closed_is_replaced_before_anything_is_sent(
    site: PersistentSite,
) -> None:
    post(site.url, b"1")
    site.close_all()
    assert post(site.url, b"2").body == b"ok"
    assert [served.requests for served in site.connections] == [[b"1"], [b"2"]]


def test_a_response_counts_although_the_server_did_not_read_the_request() -> None:
    """And the connection, on which the rest of the request may be stuck, is not used again."""
    refusal = OK.replace(b"200 OK", b"413 Content Too Large")

    def refuse(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(refusal)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=refuse, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert post(url, b"x" * 5_000_000).status == 413


# -- creates, and processes


def test_a_create_uses_no_kept_connection_and_keeps_none(site: PersistentSite) -> None:
    post(site.url, b"1")
    client = Client(site.url)
    for _ in range(2):
        assert client.create("/v1/images", {"Authorization": "key"}, {}).status == 200
    post(site.url, b"2")
    assert [served.requests for served in site.connections] == [[b"1", b"2"], [b"{}"], [b"{}"]]
    wait_until(lambda: all(served.is_closed for served in site.connections[1:]))


@pytest.mark.parametrize("size", ["-4", "-10000000000000000000000"])
def test_a_create_whose_response_is_malformed_may_have_been_paid(
    site: PersistentSite, size: str
) -> None:
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    site.answers = [f"{head}{size}\r\nabc".encode()]
    with pytest.raises(OutcomeUnknown):
        Client(site.url).create("/v1/images", {"Authorization": "key"}, {})


def test_attempts_downloads_and_creates_share_one_tls_context() -> None:
    tls.context_with.cache_clear()
    with PersistentSite(tls=True) as first, PersistentSite(tls=True) as second:
        for site in (first, second):
            post(site.url)
            get(f"{site.url}/a")
            Client(site.url).create("/", {}, {})
            site.close_all()
            post(site.url)
    assert tls.context_with.cache_info().misses == 1


def test_a_forked_process_uses_no_connection_of_its_parent(site: PersistentSite) -> None:
    post(site.url, b"parent")
    child = os.fork()
    if not child:
        with suppress(BaseException):  # nothing of pytest may continue in the child
            assert post(site.url, b"child").body == b"ok"
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    post(site.url, b"parent")
    assert [served.requests for served in site.connections] == [[b"parent"] * 2, [b"child"]]


def attempts(site: PersistentSite, closed_port: int) -> Iterator[Callable[[], object]]:
    """Attempts that succeed, and attempts with every kind of failure."""
    answers: list[Answer] = [
        OK,
        Close(),
        Close(OK[:-1]),
        OK + OK,
        Close(b"HTTP/1.1 200 OK\r\n\r\nok"),
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n",
        OK,
    ]
    for answer in answers:
        site.answers = [answer]
        yield partial(post, site.url)
    for hold in (Hold(), Hold(OK[:9]), Hold(OK[:-1])):
        site.answers = [hold]
        yield partial(post, site.url, deadline=0.1)
    site.answers = []
    yield partial(get, f"{site.url}/a")
    yield partial(post, site.url, allow_private=False)
    yield partial(post, f"https://other.example:{site.port}/", deadline=0.1)  # no certificate
    yield partial(post, f"http://127.0.0.1:{closed_port}/")
    yield partial(post, "http://invalid.invalid/")
    yield partial(post, "ftp://127.0.0.1/")


def test_no_failure_leaks_a_descriptor_or_a_thread(
    site: PersistentSite, names: dict[str, str]
) -> None:
    names["other.example"] = "127.0.0.1"
    rounds = int(os.environ.get("LEAK_ROUNDS", "3"))  # of 19 attempts each
    closed_port = free_port()  # it holds a file open

    def run() -> None:
        for attempt in attempts(site, closed_port):
            with suppress(DeliveryFailure):
                attempt()
        site.close_all()
        connections.close_idle()
        site.connections.clear()

    def in_use() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    run()
    before = in_use()
    for _ in range(rounds):
        run()
    wait_until(lambda: in_use() <= before, lambda: f"descriptors, threads: {before}, {in_use()}")
