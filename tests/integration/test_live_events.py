"""`GET /api/events` and requests that wait, served by the default worker and by gthread."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import requests

from receiver.ingest import Ingest
from receiver.tasks import Status, Task
from receiver.text import limits
from sandbox.server import Sandbox
from tests.support.gunicorn_fronts import Front, shared_fronts
from tests.support.installation import Installation
from tests.support.live_events import AUTH, EVENTS, TOKEN, EventStream
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback

NOW = 1_765_519_851_000


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Installation, tuple[Front, Front]]]:
    folder = tmp_path_factory.mktemp("live")
    with shared_fronts(folder, {"API_TOKEN": TOKEN, "CORS_ORIGINS": "https://shop.example"}) as one:
        yield one


@pytest.fixture
def installation(shared: tuple[Installation, tuple[Front, Front]]) -> Installation:
    return shared[0]


@pytest.fixture(params=["web", "gthread"])
def front(
    request: pytest.FixtureRequest, shared: tuple[Installation, tuple[Front, Front]]
) -> Front:
    return next(one for one in shared[1] if one.name == request.param)


@contextmanager
def own_installation(folder: Path) -> Iterator[Installation]:
    """An installation without running processes."""
    with Sandbox(pace=0.2) as sandbox:
        installation = Installation(folder, sandbox)
        installation.environment["API_TOKEN"] = TOKEN
        try:
            installation.migrate()
            yield installation
        finally:
            installation.close()


def record(installation: Installation, task: str, status: str = "succeed") -> None:
    """Record a callback in this process, as another process of the installation would."""
    Ingest(installation.store, []).accept(callback(body(status, task_id=f"at-{task}"), task))


def here(front: Front) -> str:
    """Return an id from which a stream resumes with all later events."""
    with EventStream.opened(front.port) as stream:
        return stream.last_id


def test_an_event_is_sent_when_another_process_records_it(
    installation: Installation, front: Front
) -> None:
    task = f"{front.prefix}-live"
    with EventStream.opened(front.port) as stream:
        assert stream.status == HTTPStatus.OK
        assert stream.response.headers["Content-Type"].startswith("text/event-stream")
        assert stream.opening.id
        assert stream.opening.retry
        record(installation, task)
        event = stream.event()
        assert (event["id"], event["type"]) == (f"{task}:succeeded", "task.succeeded")
        assert event["task"]["id"] == task
        assert event["media"]


def test_a_client_that_reconnects_gets_what_it_missed(
    installation: Installation, front: Front
) -> None:
    first, *missed = (f"{front.prefix}-missed-{number}" for number in range(4))
    with EventStream.opened(front.port) as stream:
        record(installation, first)
        assert stream.ids(1) == [f"{first}:succeeded"]
    for task in missed:
        record(installation, task)
    expected = [f"{task}:succeeded" for task in missed]
    with EventStream.opened(front.port, after=stream.last_id) as resumed:
        assert resumed.ids(3) == expected
    with EventStream.opened(front.port, f"{EVENTS}?last_event_id={stream.last_id}") as resumed:
        assert resumed.ids(3) == expected


def test_the_header_takes_precedence_over_the_parameter(
    installation: Installation, front: Front
) -> None:
    """A browser sends the header when it reconnects, to a URL that still has the parameter."""
    with EventStream.opened(front.port) as stream:
        for number in range(2):
            record(installation, f"{front.prefix}-header-{number}")
        before, _ = stream.opening.id, stream.ids(1)
        after_the_first = stream.last_id
    with EventStream.opened(
        front.port, f"{EVENTS}?last_event_id={before}", after=after_the_first
    ) as one:
        assert one.ids(1) == [f"{front.prefix}-header-1:succeeded"]


def test_filters_select_events(installation: Installation, front: Front) -> None:
    mine, other = f"{front.prefix}-mine", f"{front.prefix}-other"
    task = Task(mine, "kling", Status.CREATED, NOW, NOW, reference=mine, account="shop")
    queries = {
        f"task={mine}": ["created", "processing", "succeeded"],
        f"reference={mine}": ["created", "processing", "succeeded"],
        "account=shop": ["created", "processing", "succeeded"],
        f"provider_task_id=at-{mine}&status=succeed": ["succeeded"],
    }
    start = here(front)
    installation.store.inbox.create_task(task)
    for one, status in ((mine, "processing"), (other, "processing"), (mine, "succeed")):
        record(installation, one, status)
    record(installation, f"{front.prefix}-last")
    for query, statuses in queries.items():
        with EventStream.opened(front.port, f"{EVENTS}?{query}", after=start) as stream:
            assert stream.ids(len(statuses)) == [f"{mine}:{status}" for status in statuses], query
    with EventStream.opened(front.port, f"{EVENTS}?provider=modellix", after=start) as stream:
        installation.store.inbox.create_task(
            Task(f"{front.prefix}-modellix", "modellix", Status.CREATED, NOW, NOW)
        )
        assert stream.ids(1) == [f"{front.prefix}-modellix:created"]


@pytest.mark.parametrize(
    ("query", "header", "field"),
    [
        ("last_event_id=1", "", "last_event_id"),
        ("", "yesterday", "Last-Event-ID"),
        ("", "events-" + "9" * 19, "Last-Event-ID"),
        ("status=done", "", "status"),
        ("colour=red", "", "colour"),
        ("task=a&task=b", "", "task"),
    ],
)
def test_a_wrong_parameter_is_named(front: Front, query: str, header: str, field: str) -> None:
    with EventStream(front.port, f"{EVENTS}?{query}", after=header) as stream:
        assert stream.status == HTTPStatus.UNPROCESSABLE_ENTITY
        errors = json.loads(stream.response.read())["errors"]
    assert [one["field"] for one in errors] == [field]


def test_a_stream_with_an_id_later_than_the_newest_event_begins_with_new_events(
    installation: Installation, front: Front
) -> None:
    """The database was restored from a backup, so the same ids are assigned again."""
    with EventStream.opened(front.port, after="events-999999999.1-5") as stream:
        record(installation, f"{front.prefix}-restored")
        assert stream.ids(1) == [f"{front.prefix}-restored:succeeded"]
        assert stream.last_id < "events-999999999"


def test_the_stream_requires_the_token(front: Front) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        with EventStream.opened(front.port, headers=headers) as stream:
            assert stream.status == HTTPStatus.UNAUTHORIZED


def test_events_of_a_forgotten_task_are_not_sent_again(
    installation: Installation, front: Front
) -> None:
    forgotten, kept = f"{front.prefix}-forgotten", f"{front.prefix}-kept"
    start = here(front)
    record(installation, forgotten)
    record(installation, kept)
    installation.store.erasures.close_task(forgotten, NOW)
    with EventStream.opened(front.port, after=start) as stream:
        assert stream.ids(1) == [f"{kept}:succeeded"]


def test_secrets_are_not_shown(installation: Installation, front: Front) -> None:
    """As in the API, because another service may have repeated a secret."""
    with EventStream.opened(front.port) as stream:
        task = Task(f"{front.prefix}-secret", "kling", Status.CREATED, NOW, NOW, reference=TOKEN)
        installation.store.inbox.create_task(task)
        event = stream.event()
    assert event["task"]["id"] == task.id
    assert TOKEN not in json.dumps(event)


def test_a_head_request_does_not_count_towards_the_limit(front: Front) -> None:
    for _ in range(limits.MAX_LISTENERS + 1):
        response = requests.head(url(front, EVENTS), headers=AUTH, timeout=PATIENCE)
        assert response.status_code == HTTPStatus.OK


def threads(installation: Installation, front: Front) -> int:
    """Return the number of threads of the worker process."""
    gunicorn = installation.running[front.name].pid
    (worker,) = Path(f"/proc/{gunicorn}/task/{gunicorn}/children").read_text().split()
    return len(list(Path(f"/proc/{worker}/task").iterdir()))


def test_a_hundred_listeners_occupy_no_threads(
    installation: Installation, shared: tuple[Installation, tuple[Front, Front]]
) -> None:
    """The threads for requests start when they are needed, so a few may be added."""
    front, _ = shared[1]
    with ExitStack() as stack:
        stack.enter_context(EventStream.opened(front.port))
        before = threads(installation, front)
        for _ in range(limits.MAX_LISTENERS - 1):
            stack.enter_context(EventStream.opened(front.port))
        assert threads(installation, front) < before + limits.MAX_LISTENERS / 2


def test_too_many_listeners_get_a_503_with_retry_after(front: Front) -> None:
    most = limits.MAX_LISTENERS if front.name == "web" else limits.MAX_THREAD_LISTENERS
    streams = [EventStream.opened(front.port) for _ in range(most)]
    try:
        assert {stream.status for stream in streams} == {HTTPStatus.OK}
        with EventStream(front.port) as refused:
            assert refused.status == HTTPStatus.SERVICE_UNAVAILABLE
            assert int(refused.response.headers["Retry-After"]) > 0
            assert str(most) in json.loads(refused.response.read())["detail"]
        waiting = requests.get(
            f"http://127.0.0.1:{front.port}/readyz", headers=AUTH, timeout=PATIENCE
        )
        assert waiting.ok  # listeners leave threads and connections for others
    finally:
        for stream in streams:
            stream.close()

    def is_accepted() -> bool:
        with EventStream(front.port) as stream:
            return stream.status == HTTPStatus.OK

    wait_until(is_accepted)


def test_a_listener_that_reads_nothing_is_disconnected(
    installation: Installation, shared: tuple[Installation, tuple[Front, Front]]
) -> None:
    """Other listeners still receive every event. With gthread, it only occupies its thread."""
    front, _ = shared[1]
    metadata = {"text": "x" * 3_900}
    log = installation.folder / f"{front.name}.log"
    sent = 0
    request = f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    with socket.socket() as idle, EventStream.opened(front.port) as stream:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.settimeout(PATIENCE)
        idle.connect(("127.0.0.1", front.port))
        idle.sendall(request.encode())
        assert idle.recv(12) == b"HTTP/1.1 200"
        # The system's buffers may hold several MB, so the number of events is not known before.
        while "a listener read too slowly" not in log.read_text():
            assert sent < 10_000
            part = [f"{front.prefix}-bulk-{sent + number}" for number in range(40)]
            sent += len(part)  # in each turn, less than a listener may be behind
            for task in part:
                installation.store.inbox.create_task(
                    Task(task, "kling", Status.CREATED, NOW, NOW, metadata=metadata)
                )
            assert stream.ids(len(part)) == [f"{task}:created" for task in part]
        received = b""
        with suppress(ConnectionError):
            while data := idle.recv(65536):
                received += data
        assert received.count(b"\nid:") < sent


def test_many_clients_that_connect_and_leave_do_not_count_towards_the_limit(front: Front) -> None:
    request = f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    for number in range(400):
        with socket.create_connection(("127.0.0.1", front.port), PATIENCE) as client:
            client.sendall(request.encode())
            if number % 2:
                client.recv(64)
    with EventStream.opened(front.port) as stream:
        assert stream.status == HTTPStatus.OK


def test_a_create_waits_until_the_task_ends(tmp_path: Path) -> None:
    with own_installation(tmp_path) as installation:
        installation.start_web("wsgi:app", "--workers", "1")
        installation.wait_until_ready()
        images = f"{installation.sandbox.url}/_sandbox/images"
        sent = {
            "provider": "kling",
            "human": f"{images}/person.jpg",
            "cloth": f"{images}/garment.png",
        }
        found = {}
        for prefer in ("wait=1000000", "respond-async", 'foo; a, WAIT="55"'):
            headers = {**AUTH, "Prefer": prefer, "Idempotency-Key": prefer}
            response = requests.post(
                f"{installation.url}/api/tasks", json=sent, headers=headers, timeout=PATIENCE
            )
            assert response.status_code == HTTPStatus.CREATED
            assert response.headers["Location"] == f"/api/tasks/{response.json()['id']}"
            assert response.headers["X-Request-Id"]
            found[prefer] = response
        for prefer in ("wait=1000000", 'foo; a, WAIT="55"'):
            document = found[prefer].json()
            assert (document["status"], len(document["media"])) == ("succeeded", 1)
            assert found[prefer].headers["Preference-Applied"] == f"wait={limits.MAX_WAIT}"
        assert found["respond-async"].json()["status"] == "submitted"
        assert "Preference-Applied" not in found["respond-async"].headers
        assert len(installation.store.lists.tasks()) == 3  # no task was created twice


def url(front: Front, path: str) -> str:
    return f"http://127.0.0.1:{front.port}{path}"


def get_accepted(address: str, headers: dict[str, str]) -> requests.Response:
    """Return the response; repeat the request while listeners of earlier tests have not ended."""
    responses: list[requests.Response] = []

    def is_accepted() -> bool:
        responses.append(requests.get(address, headers=headers, timeout=PATIENCE))
        return responses[-1].status_code != HTTPStatus.SERVICE_UNAVAILABLE

    wait_until(is_accepted)
    return responses[-1]


def test_a_request_waits_until_the_task_ends(installation: Installation, front: Front) -> None:
    task = f"{front.prefix}-waited"
    record(installation, task, "processing")
    found: list[requests.Response] = []

    def ask() -> None:
        path = f"/api/tasks/{task}?wait={limits.MAX_WAIT}"
        found.append(get_accepted(url(front, path), AUTH))

    thread = threading.Thread(target=ask)
    thread.start()
    with EventStream.opened(front.port) as stream:  # by then, the request may have begun to wait
        record(installation, task)
        stream.ids(1)
    thread.join(PATIENCE)
    (response,) = found
    assert response.json()["status"] == "succeeded"
    assert "Preference-Applied" not in response.headers


def test_a_wait_ends_after_its_time_and_a_preference_is_confirmed(
    installation: Installation, front: Front
) -> None:
    task = f"{front.prefix}-slow"
    record(installation, task, "processing")
    path = url(front, f"/api/tasks/{task}")
    response = get_accepted(path, {**AUTH, "Prefer": "wait=1"})
    assert response.json()["status"] == "processing"
    assert response.headers["Preference-Applied"] == "wait=1"
    assert requests.get(f"{path}?wait=1", headers=AUTH, timeout=PATIENCE).ok
    for wrong in ("-1", str(limits.MAX_WAIT + 1), "soon"):
        refused = requests.get(f"{path}?wait={wrong}", headers=AUTH, timeout=PATIENCE)
        assert refused.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    unknown = requests.get(url(front, "/api/tasks/no?wait=1"), headers=AUTH, timeout=PATIENCE)
    assert unknown.status_code == HTTPStatus.NOT_FOUND


def test_only_the_given_origins_may_use_the_api(front: Front) -> None:
    preflight = {"Access-Control-Request-Method": "GET"}
    for origin, is_allowed in (("https://shop.example", True), ("https://evil.example", False)):
        allowed = origin if is_allowed else None
        given = {"Origin": origin}
        asked = requests.options(
            url(front, EVENTS), headers={**given, **preflight}, timeout=PATIENCE
        )
        assert asked.ok is is_allowed
        with EventStream.opened(front.port, headers={**AUTH, **given}) as stream:
            refused = requests.get(url(front, "/api/x"), headers=given, timeout=PATIENCE)
            found: list[Any] = [asked.headers, stream.response.headers, refused.headers]
        for sent in found:
            assert sent.get("Access-Control-Allow-Origin") == allowed
            assert "Origin" in sent["Vary"]
            assert "Access-Control-Allow-Credentials" not in sent


@pytest.mark.parametrize(
    ("worker", "number"),
    [("receiver.web.server.worker.Worker", signal.SIGHUP), ("gthread", signal.SIGTERM)],
)
def test_a_stop_or_a_restart_ends_streams_and_waits(
    tmp_path: Path, worker: str, number: signal.Signals
) -> None:
    """Otherwise the old process would never end, because its shutdown has no time limit here."""
    with own_installation(tmp_path) as installation:
        options = ("--workers", "1", "--graceful-timeout", "1000000", "--worker-class", worker)
        installation.start_web("wsgi:app", *options)
        installation.wait_until_ready()
        record(installation, "open", "processing")
        path = f"/api/tasks/open?wait={limits.MAX_WAIT}"
        with EventStream(installation.port) as stream:
            found: list[requests.Response] = []
            thread = threading.Thread(
                target=lambda: found.append(
                    requests.get(installation.url + path, headers=AUTH, timeout=PATIENCE)
                )
            )
            thread.start()
            record(installation, "other")
            assert stream.ids(1) == ["other:succeeded"]
            installation.running["web"].send_signal(number)
            assert stream.rest() == []
            thread.join(PATIENCE)
            assert [one.json()["status"] for one in found] == ["processing"]
        if number is signal.SIGHUP:
            with EventStream.opened(installation.port, after=stream.last_id) as resumed:
                record(installation, "later")
                assert resumed.ids(1) == ["later:succeeded"]
        assert installation.stop("web") == 0
