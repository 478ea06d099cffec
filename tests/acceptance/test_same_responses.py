"""The default worker and plain gunicorn with Flask give the same responses and the same rows.

The tests do not compare the following, because the two workers differ there on purpose:

- `Date`, `Server`, `Connection`, the reason phrase, and the case of header names. For
  `X-Request-Id`, the tests only compare whether the header exists.
- `/readyz` and `/metrics`, whose bodies change all the time.
- Pipelined requests, `100 Continue`, persistent connections with HTTP/1.0, and requests that are
  rejected while the client is still sending. gthread waits, closes the connection, or loses its
  response in these cases. `test_wire.py` tests them for the default worker.
- For invalid HTTP: the body, which is gunicorn's error page, the log line, and the rejection, which
  only the default worker records. gthread does not respond at all to TLS and other data without
  line breaks. Only one of the two workers accepts several spaces in the request line, empty lines
  before it, unregistered methods, and upgrade requests.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from email.message import Message
from functools import cache
from http.client import parse_headers
from itertools import count
from typing import Any, BinaryIO

import pytest

from receiver.errors import NotFound
from receiver.signing.callback_urls import mint
from receiver.text.limits import MAX_BODY
from tests.support.databases import Databases
from tests.support.generated_requests import (
    MALFORMED,
    SETTINGS,
    Connection,
    Generator,
    Request,
)
from tests.support.gunicorn_fronts import Front, shared_fronts
from tests.support.installation import Installation
from tests.support.samples import SECRET, body

SEED = "2026"
CONNECTIONS = 200
PROBE = Request("GET", b"GET /healthz HTTP/1.1\r\nHost: receiver\r\n\r\n")
VARYING_HEADERS = ("date", "server", "connection", "x-request-id")
VARYING_LOG_FIELDS = ("timestamp", "request_id", "ms")


@dataclass(frozen=True)
class Response:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: Any  # a JSON document, or bytes
    request_id: str | None


@dataclass
class Exchange:
    """The responses on one connection. `is_kept`: one more request was handled afterwards."""

    responses: list[Response]
    is_kept: bool
    rest: bytes  # data after the last response


Shared = tuple[Installation, tuple[Front, Front]]


@pytest.fixture(scope="module")
def of_database(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Shared]]:
    """Return the web processes for a database, which are started at the first call."""
    with ExitStack() as stack:

        @cache
        def of(database: str) -> Shared:
            url = None
            if database == "postgres":
                databases: Databases = request.getfixturevalue("_databases")
                url = databases.take()
                stack.callback(databases.give_back, url)
            folder = tmp_path_factory.mktemp(database)
            return stack.enter_context(shared_fronts(folder, SETTINGS, url))

        yield of


@pytest.fixture
def shared(of_database: Callable[[str], Shared], request: pytest.FixtureRequest) -> Shared:
    return of_database(getattr(request, "param", "sqlite"))


@pytest.fixture
def installation(shared: Shared) -> Installation:
    return shared[0]


_numbers = count()


@pytest.fixture
def fronts(shared: Shared) -> tuple[Front, Front]:
    """The web processes, with task ids and client networks that only this test uses."""
    number = next(_numbers)
    ours, plain = shared[1]
    return (
        replace(ours, prefix=f"a{number}", network=2 * number + 1),
        replace(plain, prefix=f"b{number}", network=2 * number + 2),
    )


on_both = pytest.mark.parametrize("shared", ["sqlite", "postgres"], indirect=True)


@on_both
def test_generated_requests_get_the_same_responses(
    installation: Installation, fronts: tuple[Front, Front]
) -> None:
    numbers = range(CONNECTIONS)
    # one time for both, because requests signed at different times would differ
    now = int(time.time())
    pairs = [
        [Generator(SEED, n, front.prefix, now).well_formed() for front in fronts] for n in numbers
    ]
    found = [
        [exchange(front, n, script) for front, script in zip(fronts, pair, strict=True)]
        for n, pair in zip(numbers, pairs, strict=True)
    ]
    for pair, (ours, plain) in zip(pairs, found, strict=True):
        assert seen(ours) == seen(plain), f"{pair[0]}"
    statuses = {response.status for ours, _ in found for response in ours.responses}
    assert {200, 400, 401, 404, 405, 415, 422} <= statuses

    for pair in pairs:
        for mine, theirs in zip(*(script.tasks for script in pair), strict=True):
            assert recorded(installation, mine) == recorded(installation, theirs), f"{pair[0]}"

    def rejected(front: Front) -> dict[int, Any]:
        return rejections(installation, front, numbers)

    installation.wait_until(lambda: rejected(fronts[0]) == rejected(fronts[1]) != {})
    lines = [
        logged(installation, front, [one for pair in found for one in pair[place].responses])
        for place, front in enumerate(fronts)
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) > CONNECTIONS


def test_malformed_requests_are_refused_in_the_same_way(
    installation: Installation, fronts: tuple[Front, Front]
) -> None:
    before = list(installation.store.lists.tasks())
    for number, name in enumerate(MALFORMED):
        ours, plain = (
            responses_until_end(
                front, number, Generator(SEED, number, front.prefix).malformed(name)
            )
            for front in fronts
        )
        assert [found.status for found in ours] == [found.status for found in plain], name
        assert all(400 <= found.status < 600 for found in [*ours, *plain]), name
        assert ours[0].body["status"] == ours[0].status, name
    assert list(installation.store.lists.tasks()) == before


def test_a_callback_that_requests_an_upgrade_is_accepted_without_it(
    installation: Installation, fronts: tuple[Front, Front]
) -> None:
    """Clients that support HTTP/2 send such requests. Later requests are handled as well."""
    front, _ = fronts
    sent = body()
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    bodies = (
        f"Content-Length: {len(sent)}\r\n\r\n".encode() + sent,
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(sent), sent),
    )
    task = f"{front.prefix}-1"
    target = f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"
    head = f"POST {target} HTTP/1.1\r\nHost: receiver\r\nContent-Type: application/json\r\n"
    requests = [Request("POST", f"{head}{upgrade}".encode() + raw) for raw in bodies]
    found = exchange(front, 0, Connection(requests))
    assert [response.status for response in found.responses] == [200, 200]
    assert found.is_kept
    pipelined = Request("POST", b"".join(request.raw for request in requests))
    assert [one.status for one in responses_until_end(front, 1, Connection([pipelined]))] == [
        200,
        200,
    ]
    (stored,) = installation.store.queries.history(task).callbacks
    assert stored.callback.body == sent
    assert stored.repeats == 3


@on_both
def test_callbacks_of_one_task_have_the_same_responses_rows_and_log_lines(
    installation: Installation, fronts: tuple[Front, Front]
) -> None:
    """The test sends final statuses, repetitions, conflicts and invalid callbacks."""
    statuses_sent = ("submitted", "succeed", "succeed", "processing", "failed")
    sent = [*(body(status) for status in statuses_sent), b'{"not": "the protocol"}', b"no JSON"]
    found = []
    for front in fronts:
        task = f"{front.prefix}-1"
        head = (
            f"POST /callbacks/kling/{task}/{mint(SECRET, 'kling', task)} HTTP/1.1\r\n"
            "Host: receiver\r\nContent-Type: application/json\r\nX-Sent-By: a test\r\n"
        )
        requests = [
            Request("POST", f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
            for raw in sent
        ]
        answered = exchange(front, 0, Connection(requests, [task]))
        statuses = [response.status for response in answered.responses]
        assert statuses == [200] * 5 + [422, 400]
        assert answered.is_kept
        lines = logged(installation, front, answered.responses)
        assert len(lines) == len(sent)
        assert all('"task": "…"' in line for line in lines)
        found.append((seen(answered), recorded(installation, task), lines))
    assert found[0] == found[1]


@on_both
def test_compressed_and_altered_callbacks_have_the_same_responses_rows_and_log_lines(
    installation: Installation, fronts: tuple[Front, Front]
) -> None:
    """The test also sends probes, and compressed bodies that are damaged or too long."""
    packed, long = gzip.compress(body(), mtime=0), b" " * MAX_BODY
    sent = (
        ("POST", "", "gzip", packed),
        ("POST", "", "deflate", zlib.compress(body())),
        ("POST", "", "identity", body()),
        ("POST", "", "br", body()),
        ("POST", "", "gzip, gzip", gzip.compress(packed, mtime=0)),
        ("POST", "", "gzip", packed[:-1]),
        ("POST", "", "gzip", gzip.compress(long + b" ", mtime=0)),
        ("POST", "", "zstd", packed),
        ("POST", "", "gzip", b""),
        ("POST", "//", "gzip", packed),
        ("POST", "%20/%3Fa=b", "gzip", packed),
        ("GET", "", "gzip", packed),
        ("HEAD", "/%20?a=b", "", b""),
        ("GET", "A", "gzip", packed),
        ("HEAD", "A", "", b""),
        ("POST", "A", "gzip", packed),
    )
    found = []
    for front in fronts:
        task = f"{front.prefix}-1"
        target = f"//callbacks/kling//{task}/{mint(SECRET, 'kling', task)}"
        requests = [
            Request(
                method,
                f"{method} {target}{behind} HTTP/1.1\r\nHost: receiver\r\n"
                f"Content-Encoding: {codings}\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
                + raw,
            )
            for method, behind, codings, raw in sent
        ]
        answered = exchange(front, 0, Connection(requests, [task]))
        statuses = [response.status for response in answered.responses]
        assert statuses == [200] * 5 + [400, 413, 400, 400] + [200] * 4 + [404] * 3
        assert answered.is_kept
        lines = logged(installation, front, answered.responses)
        assert len(lines) == len(sent)
        found.append((seen(answered), recorded(installation, task), lines))
    assert found[0] == found[1]


def exchange(front: Front, number: int, script: Connection) -> Exchange:
    """Send the requests one after the other, and then a probe."""
    responses: list[Response] = []
    with front.connected(number) as (connection, file):
        for request in [*script.requests, PROBE]:
            with suppress(ConnectionError):
                connection.sendall(request.raw)
            found = read(file, request.method)
            if found is None:
                return Exchange(responses, is_kept=False, rest=b"")
            responses.append(found)
        connection.shutdown(socket.SHUT_WR)
        return Exchange(responses[:-1], is_kept=True, rest=file.read())


def responses_until_end(front: Front, number: int, script: Connection) -> list[Response]:
    """Return all responses to requests after which the client stops sending."""
    found = []
    with front.connected(number) as (connection, file):
        connection.sendall(b"".join(request.raw for request in script.requests))
        connection.shutdown(socket.SHUT_WR)
        while response := read(file, "POST"):
            found.append(response)
    return found


def read(file: BinaryIO, method: str) -> Response | None:
    """Return the next response, or None if the connection was closed."""
    try:
        line = file.readline()
        if not line:
            return None
        headers = parse_headers(file)
        raw = b"" if method == "HEAD" else _body(file, headers)
    except ConnectionResetError:
        return None
    is_json = raw and headers.get_content_type().endswith("json")
    compared = [(name.lower(), value) for name, value in headers.items()]
    # Flask lists the methods in the order of a set, which differs between processes.
    compared = [
        (name, " ".join(sorted(value.replace(",", "").split())) if name == "allow" else value)
        for name, value in compared
    ]
    return Response(
        status=int(line.split(b" ")[1]),
        headers=tuple(sorted(pair for pair in compared if pair[0] not in VARYING_HEADERS)),
        body=json.loads(raw) if is_json else raw,
        request_id=headers["X-Request-Id"],
    )


def _body(file: BinaryIO, headers: Message) -> bytes:
    if headers["Transfer-Encoding"] != "chunked":
        return file.read(int(headers["Content-Length"] or 0))
    chunks = []
    while size := int(file.readline(), 16):
        chunks.append(file.read(size + 2)[:-2])
    file.readline()
    return b"".join(chunks)


def seen(found: Exchange) -> list[Any]:
    """Return the parts that a client can compare, without values that differ in every response."""
    responses = [
        (one.status, one.headers, one.body, one.request_id is not None) for one in found.responses
    ]
    return [*responses, found.is_kept, found.rest]


def recorded(installation: Installation, task: str) -> Any:
    """Return the task's history without values that differ between tasks, or None without one."""
    try:
        history = installation.store.queries.history(task)
    except NotFound:
        return None
    own = [task.encode(coding) for coding in ("ascii", "utf-16-le")]
    return (
        [
            (
                stored.callback.body.replace(own[0], b"").replace(own[1], b""),
                dict(stored.callback.headers),
                stored.callback.trust,
                stored.outcome,
                stored.repeats,
                stored.problem,
            )
            for stored in history.callbacks
        ],
        [(move.status, move.corrected, move.trust) for move in history.transitions],
        [(delivery.hook, delivery.state) for delivery in history.deliveries],
        (history.task.status, history.task.conflict, history.task.reason),
    )


def rejections(installation: Installation, front: Front, connections: range) -> dict[int, Any]:
    """Return the rejections of each connection, counted by kind."""
    numbers = {front.address(number): number for number in connections}
    found: dict[int, Counter[Any]] = {}
    for one in installation.store.activity.rejections(limit=1_000):
        if one.address in numbers:
            path = _without_task(front, one.path)
            kind = (one.reason, one.method, path)
            found.setdefault(numbers[one.address], Counter())[kind] += one.count
    return found


def logged(installation: Installation, front: Front, responses: list[Response]) -> list[str]:
    """Return the log lines of the requests with these responses.

    Values that differ in every line are removed. A 2xx from a health route has no log line.
    """
    last = responses[-1].request_id or ""
    log = installation.folder / f"{front.name}.log"
    installation.wait_until(lambda: last in log.read_text())
    found: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        if line.startswith("{"):
            entry = json.loads(line)
            compared = {
                name: value for name, value in entry.items() if name not in VARYING_LOG_FIELDS
            }
            shown = _without_task(front, json.dumps(compared, ensure_ascii=False))
            found.setdefault(entry.get("request_id", ""), []).append(shown)
    return [line for one in responses for line in found.get(one.request_id or "", [])]


def _without_task(front: Front, text: str) -> str:
    return re.sub(rf"\b{front.prefix}(-\d+)+", "…", text)
