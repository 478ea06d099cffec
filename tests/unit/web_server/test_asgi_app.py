"""Callbacks are handled in the event loop, and Flask on threads that do not wait for any client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, cast

import pytest
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Request

from receiver.text import limits
from receiver.text.limits import MAX_BODY
from receiver.web.callbacks import CallbackRequest
from receiver.web.server.callback_app import (
    DISCONNECTED,
    CallbackApp,
    CallbackHandler,
    CallbackResponse,
)
from receiver.web.server.connection_slots import Note
from receiver.web.server.flask_bridge import LONGEST_PART, FlaskBridge
from tests.support.patience import PATIENCE

CALLBACK = "/callbacks/kling/task-1/token"
LONG = MAX_BODY + 1
ANSWER = CallbackResponse(200, b'{"outcome":"recorded"}\n', {"x-request-id": "an-id"})


@dataclass
class Connection:
    """The part of a connection that the application uses."""

    has_ended: bool = False
    was_aborted: bool = False
    is_gone: bool = False
    may_be_long: bool = False

    def allow_long_body(self) -> None:
        self.may_be_long = True


@dataclass
class Taking:
    """Responds to callbacks in place of `Callbacks`, and remembers them."""

    answer: CallbackResponse | None = None
    seen: list[tuple[CallbackRequest, bytes]] = field(default_factory=list)

    async def receive(self, sent: CallbackRequest, body: bytes) -> CallbackResponse | None:
        self.seen.append((sent, body))
        return self.answer


class Wsgi:
    """A WSGI application that remembers its requests, and runs `work` on the thread."""

    def __init__(self, work: Callable[[dict[str, Any]], Iterable[bytes]] | None = None) -> None:
        self.work = work or (lambda environ: [environ["wsgi.input"].read()])
        self.environs: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.environs.append(environ)
        parts = self.work(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return parts


class Exchange:
    """One request, whose body arrives as the test specifies, and the response to it."""

    def __init__(self, path: str = "/", method: str = "POST", **more: Any) -> None:
        self.connection = Connection()
        self.state: dict[str, Any] = {"connection": self.connection}
        headers = more.pop("headers", [(b"host", b"receiver")])
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "root_path": "",
            "server": ("192.0.2.9", 8000),
            "client": ("192.0.2.1", 5000),
            "headers": headers,
            "state": self.state,
            **more,
        }
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.asked = 0  # how often the application requested more of the body
        self.sent: list[dict[str, Any]] = []
        self.may_send = asyncio.Event()
        self.may_send.set()

    def arrive(self, body: bytes, *, more: bool = False) -> Exchange:
        self.messages.put_nowait({"type": "http.request", "body": body, "more_body": more})
        return self

    def leave(self) -> Exchange:
        self.messages.put_nowait({"type": "http.disconnect"})
        return self

    def of_length(self, length: int) -> Exchange:
        self.scope["headers"] = [(b"content-length", str(length).encode())]
        return self

    async def receive(self) -> Any:
        self.asked += 1
        return await self.messages.get()

    async def send(self, message: Any) -> None:
        await self.may_send.wait()
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def headers(self) -> list[Any]:
        return list(self.sent[0]["headers"])

    def is_over(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", False) and len(self.sent) > 1


def run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await scenario()

    return asyncio.run(limited())


async def turns() -> None:
    """Run everything that does not have to wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - another thread may make it true
        await asyncio.sleep(0)


def made(
    wsgi: Any, callbacks: Taking | None = None, threads: int = 4, note: Note | None = None
) -> CallbackApp:
    handler = cast("CallbackHandler | None", callbacks)
    return CallbackApp(handler, FlaskBridge(wsgi, threads), note)


def serve(app: CallbackApp, make: Callable[[], Exchange]) -> Exchange:
    """Handle one request to its end."""

    async def scenario() -> Exchange:
        exchange = make()
        await app(exchange.scope, exchange.receive, exchange.send)
        return exchange

    return cast("Exchange", run(scenario))


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list with one entry for each submission of work to a thread."""
    found: list[object] = []
    submit = ThreadPoolExecutor.submit

    def spy(pool: Any, function: Any, /, *args: Any, **more: Any) -> Future[Any]:
        found.append(function)
        return submit(pool, function, *args, **more)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", spy)
    return found


# -- the part that handles a request


def test_a_callback_is_handled_without_a_thread(submitted: list[object]) -> None:
    taking, wsgi = Taking(ANSWER), Wsgi()
    exchange = serve(made(wsgi, taking), lambda: Exchange(CALLBACK).arrive(b"{}"))
    ((sent, body),) = taking.seen
    assert (sent.provider, sent.task_id, sent.token, body) == ("kling", "task-1", "token", b"{}")
    assert (exchange.status, exchange.body) == (200, ANSWER.body)
    assert exchange.headers == [(b"x-request-id", b"an-id")]
    assert exchange.is_over()
    assert (submitted, wsgi.environs) == ([], [])


def test_a_callback_that_is_not_handled_is_passed_to_flask_with_its_body() -> None:
    taking, wsgi = Taking(None), Wsgi()
    exchange = serve(
        made(wsgi, taking), lambda: Exchange(CALLBACK).arrive(b"{", more=True).arrive(b"}")
    )
    assert taking.seen[0][1] == b"{}"
    assert (exchange.status, exchange.body) == (200, b"{}")
    assert wsgi.environs[0]["PATH_INFO"] == CALLBACK


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", CALLBACK),
        ("GET", CALLBACK),
        ("POST", "/"),
        ("POST", "/callbacks/kling"),
        ("POST", "/callbacks/kling/task-1"),
        ("POST", CALLBACK + "/"),
        ("POST", CALLBACK + "/more"),
        ("POST", "/" + CALLBACK),
        ("POST", "/api/callbacks/kling/task-1/token"),
        ("POST", "/CALLBACKS/kling/task-1/token"),
    ],
)
def test_all_other_requests_are_passed_to_flask(method: str, path: str) -> None:
    taking, wsgi = Taking(ANSWER), Wsgi()
    exchange = serve(made(wsgi, taking), lambda: Exchange(path, method).arrive(b"x"))
    assert exchange.body == b"x"
    assert (taking.seen, len(wsgi.environs)) == ([], 1)


def test_another_application_receives_every_request() -> None:
    exchange = serve(made(Wsgi()), lambda: Exchange(CALLBACK).arrive(b"x"))
    assert exchange.body == b"x"


def test_flask_runs_on_a_limited_number_of_threads(submitted: list[object]) -> None:
    may_go_on = threading.Event()

    def work(_: Any) -> Iterable[bytes]:
        may_go_on.wait(PATIENCE)
        return [b""]

    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("WSGI")}

    async def scenario() -> None:
        app, before = made(Wsgi(work), threads=2), threads()
        exchanges = [Exchange().arrive(b"") for _ in range(6)]
        tasks = [asyncio.ensure_future(app(one.scope, one.receive, one.send)) for one in exchanges]
        await until(lambda: len(submitted) == 6)  # a thread is started when work is submitted
        assert len(threads() - before) == 2
        may_go_on.set()
        await asyncio.gather(*tasks)
        assert all(exchange.is_over() for exchange in exchanges)

    run(scenario)


# -- a thread starts once the body has arrived


@pytest.mark.parametrize("length", [None, 3, MAX_BODY])
def test_a_thread_starts_once_the_body_has_arrived(
    submitted: list[object], length: int | None
) -> None:
    async def scenario() -> None:
        exchange = Exchange()
        if length is not None:
            exchange.of_length(length)
        task = asyncio.ensure_future(made(Wsgi())(exchange.scope, exchange.receive, exchange.send))
        for piece in (b"1", b"2"):
            exchange.arrive(piece, more=True)
            await until(exchange.messages.empty)
            await turns()
            assert submitted == []
        exchange.arrive(b"3")
        await task
        assert len(submitted) == 1
        assert exchange.body == b"123"
        assert not exchange.connection.may_be_long

    run(scenario)


def test_a_client_that_disconnects_earlier_uses_no_thread(submitted: list[object]) -> None:
    taking = Taking(ANSWER)
    exchange = serve(
        made(Wsgi(), taking), lambda: Exchange(CALLBACK).arrive(b"{}", more=True).leave()
    )
    assert (exchange.sent, submitted, taking.seen) == ([], [], [])


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    ("path", "was_aborted", "is_noted"),
    [
        (CALLBACK, False, True),
        ("/callbacks/kling", False, True),
        ("/" + CALLBACK, False, True),
        (CALLBACK, True, False),  # the protocol has recorded the reason
        ("/api/tasks", False, False),
    ],
)
def test_a_truncated_callback_is_recorded_as_a_rejection(
    path: str, method: str, was_aborted: bool, is_noted: bool
) -> None:
    notes: list[tuple[str, ...]] = []

    def make() -> Exchange:
        exchange = Exchange(path, method).arrive(b"{}", more=True).leave()
        exchange.connection.was_aborted = was_aborted
        return exchange

    serve(made(Wsgi(), Taking(ANSWER), note=lambda *rejection: notes.append(rejection)), make)
    assert notes == [("192.0.2.1", DISCONNECTED, method, path)] * is_noted


@pytest.mark.parametrize("client", [None, ("192.0.2.1", 5000)])
def test_a_complete_callback_is_not_recorded_as_a_rejection(client: tuple[str, int] | None) -> None:
    notes: list[tuple[str, ...]] = []
    app = made(Wsgi(), Taking(ANSWER), note=lambda *rejection: notes.append(rejection))
    serve(app, lambda: Exchange(CALLBACK, client=client).arrive(b"{}").leave())
    assert notes == []
    serve(app, lambda: Exchange(CALLBACK, client=client).leave())
    assert [address for address, *_ in notes] == [client[0] if client else "a Unix socket"]


def test_a_client_that_disconnects_later_does_not_affect_the_application() -> None:
    finished = threading.Event()

    def work(_: Any) -> Iterable[bytes]:
        yield b"1"
        yield b"2"
        finished.set()

    async def scenario() -> None:
        exchange = Exchange().arrive(b"")

        async def nothing(_: Any) -> None:
            """uvicorn sends nothing to a client that has disconnected."""

        await made(Wsgi(work))(exchange.scope, exchange.receive, nothing)

    run(scenario)
    assert finished.is_set()


def test_a_long_body_is_read_while_it_arrives() -> None:
    """The body may have 30 MB, which must not be collected for a client without the API's token."""
    first, second = threading.Event(), threading.Event()
    read: list[bytes] = []

    def work(environ: dict[str, Any]) -> Iterable[bytes]:
        read.append(environ["wsgi.input"].read(3))
        first.set()
        read.append(environ["wsgi.input"].read(LONG - 3))
        second.set()
        return [b"ok"]

    async def scenario() -> None:
        exchange = Exchange().of_length(LONG)
        task = asyncio.ensure_future(
            made(Wsgi(work), Taking(ANSWER))(exchange.scope, exchange.receive, exchange.send)
        )
        exchange.arrive(b"123", more=True)
        await until(first.is_set)
        assert (read, exchange.connection.may_be_long) == ([b"123"], True)
        exchange.arrive(b"x" * (LONG - 3))
        await task
        assert second.is_set()
        assert (exchange.status, exchange.body, exchange.is_over()) == (200, b"ok", True)
        assert (b"connection", b"close") not in exchange.headers

    run(scenario)
    assert len(read[1]) == LONG - 3


def test_a_long_body_ends_early_if_its_client_disconnects() -> None:
    read: list[bytes] = []

    def work(environ: dict[str, Any]) -> Iterable[bytes]:
        read.append(environ["wsgi.input"].read())
        return []

    serve(made(Wsgi(work)), lambda: Exchange().of_length(LONG).arrive(b"123", more=True).leave())
    assert read == [b"123"]


def test_a_long_callback_is_passed_to_flask_before_its_body_has_arrived() -> None:
    """The view refuses it because of its length or its token."""
    taking = Taking(ANSWER)

    async def scenario() -> None:
        exchange = Exchange(CALLBACK).of_length(LONG)
        wsgi = Wsgi(lambda _: [b"no"])
        app = made(wsgi, taking)
        task = asyncio.ensure_future(app(exchange.scope, exchange.receive, exchange.send))
        await until(lambda: exchange.body == b"no")  # nothing of the body has arrived
        exchange.arrive(b"")
        await task

    run(scenario)
    assert taking.seen == []


# -- refusals before the body has arrived


def test_a_refusal_is_sent_first_and_the_rest_of_the_body_read_for_a_moment() -> None:
    """Closing the connection while the client sends could destroy the response in transit."""

    async def scenario() -> None:
        exchange = Exchange().of_length(LONG)
        app = made(Wsgi(lambda _: [b"no"]))
        task = asyncio.ensure_future(app(exchange.scope, exchange.receive, exchange.send))
        await until(lambda: exchange.body == b"no" and exchange.asked)
        assert (b"connection", b"close") in exchange.headers
        assert not exchange.is_over()
        for _ in range(3):
            exchange.arrive(b"x" * 1000, more=True)
            await until(exchange.messages.empty)
            await turns()
            assert not exchange.is_over()
        exchange.arrive(b"x")
        await task
        assert exchange.is_over()
        assert exchange.body == b"no"

    run(scenario)


@pytest.mark.parametrize("leaves", [True, False])
def test_the_rest_of_the_body_is_read_for_a_limited_time(
    monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    monkeypatch.setattr(limits, "CLOSE_TIMEOUT", PATIENCE if leaves else 0)

    async def scenario() -> None:
        exchange = Exchange().of_length(LONG).arrive(b"1", more=True)
        app = made(Wsgi(lambda _: [b"no"]))
        task = asyncio.ensure_future(app(exchange.scope, exchange.receive, exchange.send))
        if leaves:
            exchange.leave()
        await task
        assert exchange.is_over()

    run(scenario)


def raised_by_reading(exchange: Callable[[], Exchange]) -> tuple[Exception, Exchange]:
    """Return the error that the application receives when it reads the body."""
    errors: list[Exception] = []

    def work(environ: dict[str, Any]) -> Iterable[bytes]:
        with pytest.raises(HTTPException) as found:
            Request(environ).get_data()
        errors.append(found.value)
        return [b"no"]

    served = serve(made(Wsgi(work), Taking(ANSWER)), exchange)
    assert served.body == b"no"
    return errors[0], served


def test_a_body_without_a_length_is_collected_up_to_a_limit() -> None:
    def exchange() -> Exchange:
        made = Exchange(CALLBACK)
        for _ in range(3):
            made.arrive(b"x" * (LONG // 2), more=True)
        return made.arrive(b"never read before the response").arrive(b"nor this")

    error, served = raised_by_reading(exchange)
    assert isinstance(error, RequestEntityTooLarge)
    assert (b"connection", b"close") in served.headers
    assert served.is_over()


def test_a_body_without_a_length_that_has_arrived_is_read_without_waiting() -> None:
    error, served = raised_by_reading(lambda: Exchange(CALLBACK).arrive(b"x" * LONG))
    assert isinstance(error, RequestEntityTooLarge)
    assert (served.asked, served.is_over()) == (1, True)


def broken_off(**state: bool) -> Exchange:
    exchange = Exchange(CALLBACK).arrive(b"{}")
    exchange.state["is_incomplete"] = True
    exchange.state.update(state)
    return exchange


def test_a_body_that_consists_mostly_of_chunk_sizes_is_too_long() -> None:
    error, served = raised_by_reading(lambda: broken_off(is_too_long=True).leave())
    assert isinstance(error, RequestEntityTooLarge)
    assert served.is_over()


def test_a_body_in_malformed_chunks_is_refused_and_the_rest_is_read() -> None:
    error, served = raised_by_reading(lambda: broken_off().leave())
    assert isinstance(error, BadRequest)
    assert (served.asked, served.is_over()) == (2, True)
    assert (b"connection", b"close") in served.headers


def test_a_truncated_chunked_body_is_refused_immediately() -> None:
    def exchange() -> Exchange:
        made = broken_off()
        made.connection.has_ended = True
        return made

    error, served = raised_by_reading(exchange)
    assert isinstance(error, BadRequest)
    assert (served.asked, served.is_over()) == (1, True)


def test_a_body_shorter_than_its_length_is_passed_to_the_view() -> None:
    def exchange() -> Exchange:
        made = broken_off().of_length(5)
        made.connection.has_ended = True
        return made

    taking, wsgi = Taking(ANSWER), Wsgi()
    served = serve(made(wsgi, taking), exchange)
    assert (served.body, taking.seen) == (b"{}", [])
    assert wsgi.environs[0]["CONTENT_LENGTH"] == "5"


# -- a client that does not read


class Long:
    """A response of 10 MB in parts, which counts the produced parts and the calls of `close`."""

    def __init__(self, pieces: int = 1000) -> None:
        self.pieces, self.produced, self.closed = pieces, 0, 0

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self.pieces):
            self.produced += 1
            yield b"x" * 10_000

    def close(self) -> None:
        self.closed += 1


def is_long(environ: dict[str, Any]) -> bool:
    return str(environ["PATH_INFO"]) == "/long"


def test_no_thread_waits_for_a_client_that_does_not_read() -> None:
    """All these clients share one thread, which serves others meanwhile, and little memory each."""
    found = [Long() for _ in range(8)]
    unread = iter(found)

    async def scenario() -> None:
        app = made(Wsgi(lambda environ: next(unread) if is_long(environ) else [b"ok"]), threads=1)
        deaf = [Exchange("/long").arrive(b"") for _ in found]
        for exchange in deaf:
            exchange.may_send.clear()
        tasks = [asyncio.ensure_future(app(one.scope, one.receive, one.send)) for one in deaf]
        for _ in range(5):
            other = Exchange("/other").arrive(b"")
            await app(other.scope, other.receive, other.send)
            assert other.body == b"ok"
        assert [exchange.sent for exchange in deaf] == [[]] * len(deaf)
        assert all(0 < one.produced * 10_000 < 2 * LONGEST_PART for one in found)
        for exchange in deaf:
            exchange.may_send.set()
        await asyncio.gather(*tasks)
        assert {len(exchange.body) for exchange in deaf} == {10_000_000}
        assert [one.closed for one in found] == [1] * len(found)

    run(scenario)


def test_no_more_parts_are_produced_for_a_disconnected_client() -> None:
    response = Long()

    def make() -> Exchange:
        exchange = Exchange().arrive(b"")
        exchange.connection.is_gone = True
        return exchange

    serve(made(Wsgi(lambda _: response)), make)
    assert response.produced * 10_000 < 2 * LONGEST_PART
    assert response.closed == 1


def test_a_cancelled_response_is_closed_after_the_current_part() -> None:
    is_producing, may_go_on = threading.Event(), threading.Event()
    ends: list[str] = []

    class Held(Long):
        def __iter__(self) -> Iterator[bytes]:
            yield b"x" * LONGEST_PART
            is_producing.set()
            may_go_on.wait(PATIENCE)
            ends.append("produced")
            yield b"x" * LONGEST_PART

        def close(self) -> None:
            ends.append("closed")

    async def scenario() -> None:
        exchange = Exchange().arrive(b"")
        app = made(Wsgi(lambda _: Held()))
        task = asyncio.ensure_future(app(exchange.scope, exchange.receive, exchange.send))
        await until(is_producing.is_set)
        task.cancel()
        await turns()
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: len(ends) == 2)

    run(scenario)
    assert ends == ["produced", "closed"]


def test_a_long_page_is_sent_in_slices() -> None:
    """This way, the protocol notices a client that stops reading within the page."""
    exchange = serve(made(Wsgi(lambda _: [b"x" * 300_000])), lambda: Exchange().arrive(b""))
    assert max(len(message["body"]) for message in exchange.sent[1:]) <= LONGEST_PART
    assert len(exchange.body) == 300_000


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b"ok", b""], [b"x" * 300_000, b"y"]])
def test_a_response_is_complete_however_it_is_divided(pieces: list[bytes]) -> None:
    exchange = serve(made(Wsgi(lambda _: pieces)), lambda: Exchange().arrive(b""))
    assert (exchange.status, exchange.body, exchange.is_over()) == (200, b"".join(pieces), True)


def test_an_application_may_start_late_write_and_replace_the_status() -> None:
    def wsgi(_: Any, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", [("X-A", "first")])
        write(b"written, ")
        start_response("503 Service Unavailable", [("X-B", " second ")], (None, None, None))
        yield b"and yielded"

    exchange = serve(made(wsgi), lambda: Exchange().arrive(b""))
    assert (exchange.status, exchange.body) == (503, b"written, and yielded")
    assert exchange.headers == [(b"x-b", b"second")]


def test_all_parts_are_produced_in_one_context() -> None:
    variable: ContextVar[int] = ContextVar("variable", default=0)

    def count(_: Any) -> Iterator[bytes]:
        for _ in range(5):
            variable.set(variable.get() + 1)
            yield str(variable.get()).encode() + b" " * LONGEST_PART

    exchange = serve(made(Wsgi(count), threads=3), lambda: Exchange().arrive(b""))
    assert exchange.body.split() == [b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize("fails_at", ["the call", "the first piece", "a later piece", "no start"])
def test_a_failing_application_is_closed_and_its_error_raised(fails_at: str) -> None:
    closed: list[bool] = []

    class Failing:
        def __iter__(self) -> Iterator[bytes]:
            if fails_at == "the first piece":
                raise ZeroDivisionError
            yield b"x" * 200_000
            raise ZeroDivisionError

        def close(self) -> None:
            closed.append(True)

    def wsgi(_: Any, start_response: Any) -> Iterable[bytes]:
        if fails_at == "the call":
            raise ZeroDivisionError
        if fails_at == "no start":
            return []
        start_response("200 OK", [])
        return Failing()

    exchanges: list[Exchange] = []

    async def scenario() -> None:
        exchange = Exchange().arrive(b"")
        exchanges.append(exchange)
        await made(wsgi)(exchange.scope, exchange.receive, exchange.send)

    with pytest.raises(RuntimeError if fails_at == "no start" else ZeroDivisionError):
        run(scenario)
    assert bool(exchanges[0].sent) is (fails_at == "a later piece")
    assert bool(closed) is (fails_at.endswith("piece"))


# -- the requests that the application receives

HEADERS: dict[str, list[tuple[bytes, bytes]]] = {
    "as Kling sends it": [
        (b"host", b"receiver:8000"),
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"user-agent", b"Go-http-client/1.1"),
        (b"accept-encoding", b"gzip"),
    ],
    "twice": [(b"host", b"a"), (b"x-a", b"b"), (b"x-other", b""), (b"x-a", b"c"), (b"x-a", b"")],
    "two types": [(b"content-type", b"text/plain"), (b"content-type", b"application/json")],
    "two hosts": [(b"host", b"a"), (b"host", b"b")],
    "not ASCII": [(b"host", b"a"), (b"x-a", b"\xe9\xff")],
    "underscores": [
        (b"host", b"a"),
        (b"x_forwarded_for", b"192.0.2.7"),
        (b"x-forwarded-for", b"b"),
    ],
    "odd names": [(b"host", b"a"), (b"x-", b"b"), (b"9", b"c"), (b"x!-a~b", b"d")],
    "by a proxy": [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-for", b"10.0.0.1")],
    "cookies": [(b"cookie", b"a=b"), (b"cookie", b"c=d")],
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_a_callback_has_the_headers_that_flask_would_pass(
    headers: list[tuple[bytes, bytes]],
) -> None:
    taking, wsgi = Taking(None), Wsgi()
    serve(made(wsgi, taking), lambda: Exchange(CALLBACK, headers=headers).arrive(b"{}"))
    seen = dict(Request(wsgi.environs[0]).headers)
    assert taking.seen[0][0].headers == seen
    assert not any("_" in name for name in seen)


def test_a_header_with_an_underscore_is_dropped() -> None:
    """A proxy that sets or removes `X-Forwarded-For` overlooks `X_Forwarded_For`."""
    wsgi = Wsgi()
    headers = [(b"host", b"a"), (b"x_forwarded_for", b"192.0.2.7"), (b"content_length", b"9")]
    serve(made(wsgi), lambda: Exchange(headers=headers).arrive(b""))
    names = {name for name in wsgi.environs[0] if name.startswith(("HTTP_", "CONTENT_"))}
    assert names == {"HTTP_HOST"}


def test_a_query_that_is_not_ascii_is_passed_on() -> None:
    wsgi = Wsgi()
    serve(made(wsgi), lambda: Exchange(query_string=b"q=\xc3\xa9 \x00&r=%C3%A9").arrive(b""))
    assert wsgi.environs[0]["QUERY_STRING"] == "q=%C3%A9%20%00&r=%C3%A9"
    assert Request(wsgi.environs[0]).args["q"] == "é \x00"


@pytest.mark.parametrize(
    ("raw", "decoded"),
    [
        (b"/caf%C3%A9", "/café"),
        (b"/caf%E9", "/caf\N{REPLACEMENT CHARACTER}"),
        (b"/%F0%9F%98%80", "/\N{GRINNING FACE}"),
        (b"/a%2Fb%20c%00", "/a/b c\x00"),
        (b"/%25C3", "/%C3"),
        (b"/%zz%", "/%zz%"),
    ],
)
def test_a_path_that_is_not_ascii_is_passed_on(raw: bytes, decoded: str) -> None:
    wsgi = Wsgi()
    exchange = lambda: Exchange(decoded, raw_path=raw).arrive(b"")  # noqa: E731
    serve(made(wsgi), exchange)
    assert Request(wsgi.environs[0]).path == decoded


def test_the_environment_is_that_of_a_wsgi_server(capsys: pytest.CaptureFixture[str]) -> None:
    wsgi = Wsgi(lambda environ: [str(environ["wsgi.errors"].write("to the log")).encode()])
    exchange = lambda: Exchange("/x", scheme="https", http_version="1.0").arrive(b"")  # noqa: E731
    serve(made(wsgi), exchange)
    (environ,) = wsgi.environs
    assert capsys.readouterr() == ("", "to the log")
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("192.0.2.9", "8000")
    assert environ["wsgi.input_terminated"]
    assert isinstance(environ["wsgi.input"], BytesIO)
