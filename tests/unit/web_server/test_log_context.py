"""Values bound to the log for one request, delivery or task are in no line of another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from threading import Event
from typing import Any

import pytest
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from receiver.deliveries import Notice
from receiver.delivery.attempt import DeliveryWorker
from receiver.delivery.chores import Chore, run_chores
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from receiver.web.server.callback_app import CommitNotifier
from tests.support.attempts import make_attempt
from tests.support.patience import wait_until
from tests.support.samples import callback, subscription
from tests.support.scripted_connection import Client, ScriptedServer
from tests.support.scripted_writer import ScriptedWriter, adding

GET = b"GET /%d HTTP/1.1\r\nHost: receiver\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nHost: receiver\r\nContent-Length: %d\r\n\r\n"
NOT_HTTP = {
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "words": b"hello there\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nno header\r\n\r\n",
    "headers that are too long": b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
    "an unknown version": b"GET / HTTP/3.7\r\n\r\n",
}


class Contexts(logging.Handler):
    """Remembers the context of each log line."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "Invalid HTTP" in record.getMessage():
            self.found.append(get_contextvars())


@pytest.fixture
def contexts() -> Iterator[list[dict[str, Any]]]:
    clear_contextvars()
    handler, logger = Contexts(), logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    yield handler.found
    logger.removeHandler(handler)
    clear_contextvars()


class Careless:
    """An application that binds the id of its request, and never unbinds it."""

    def __init__(self) -> None:
        self.before: list[dict[str, Any]] = []  # the values that were bound when each request began
        self.protocol: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.before.append(get_contextvars())
        bind_contextvars(request_id=scope["path"])
        while (await receive())["more_body"]:
            pass
        self.during(scope["state"]["connection"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def during(self, _: Any) -> None:
        """Run something else before the response."""


@pytest.fixture
def application() -> Careless:
    return Careless()


@pytest.fixture
def client(application: Careless) -> Iterator[Client]:
    server = ScriptedServer(application)
    yield server.connect()
    server.close()


@pytest.mark.parametrize("garbage", NOT_HTTP.values(), ids=NOT_HTTP)
@pytest.mark.parametrize("before", [GET % 1, GET % 1 + GET % 2, POST % (1, 3) + b"abc"])
def test_a_line_about_data_that_is_not_http_names_no_request(
    client: Client, contexts: list[dict[str, Any]], before: bytes, garbage: bytes
) -> None:
    """The data may arrive with the previous request, or after the response to it."""
    client.send(before + garbage, garbage)
    assert contexts
    assert all(context == {} for context in contexts)


@pytest.mark.parametrize("garbage", NOT_HTTP.values(), ids=NOT_HTTP)
def test_a_line_has_no_context_whichever_context_the_event_loop_reads_in(
    client: Client, application: Careless, contexts: list[dict[str, Any]], garbage: bytes
) -> None:
    """The loop reads in the context in which a request with a long body resumed reading."""
    found: list[Any] = []
    application.during = lambda _: found.append(copy_context())  # type: ignore[method-assign]
    client.send(GET % 1)
    found[0].run(client.transport.protocol.data_received, garbage)
    assert contexts == [{}]


def test_a_request_begins_without_the_ids_of_the_previous_one(
    client: Client, application: Careless
) -> None:
    client.send(GET % 1 + GET % 2 + GET % 3, GET % 4)
    assert application.before == [{}, {}, {}, {}]


def test_a_batch_of_writes_belongs_to_no_request() -> None:
    """The request that starts the batch is bound while the loop schedules the batch."""
    writer, found = ScriptedWriter(), list[dict[str, Any]]()
    start, settled = writer.start_and_wait, Future[None]()

    def start_and_wait(when_free: Callable[[], None]) -> None:
        found.append(get_contextvars())
        start(when_free)

    writer.start_and_wait = start_and_wait  # type: ignore[method-assign]

    async def request() -> None:
        bind_contextvars(request_id="one")
        await CommitNotifier(writer, asyncio.get_running_loop()).wait_for(
            writer.submit(adding("one"), start=False)
        )
        settled.set_result(None)

    asyncio.run(request())
    writer.close()
    assert settled.done()
    assert found
    assert all(context == {} for context in found)


class CarelessHook:
    """A third-party hook that binds values to the log, and never unbinds them."""

    name = "mail"

    def __init__(self) -> None:
        self.before: list[dict[str, Any]] = []

    def send(self, notice: Notice) -> Done:
        self.before.append(get_contextvars())
        bind_contextvars(customer=notice.task.id)
        return Done("ok")


def test_values_bound_by_a_hook_are_not_in_the_lines_of_the_next_delivery(
    store: SqliteStore,
) -> None:
    clear_contextvars()
    hook = CarelessHook()
    for task in ("task-1", "task-2"):
        Ingest(store, [subscription("mail")]).accept(callback(task_id=task))
    deliver = DeliveryWorker(store, {"mail": hook})
    for delivery in store.outbox.claim("w", 1_765_519_851_000, 1_765_519_861_000, 2):
        make_attempt(deliver, delivery)
    assert [context["task"] for context in hook.before] == ["task-1", "task-2"]
    assert all("customer" not in context for context in hook.before)
    assert get_contextvars() == {}


def test_values_bound_by_a_chore_are_not_in_the_lines_of_its_next_run() -> None:
    stop, found = Event(), list[dict[str, Any]]()

    def careless() -> None:
        found.append(get_contextvars())
        bind_contextvars(alert=len(found))

    with run_chores([Chore("careless", 0.01, careless)], stop):
        wait_until(lambda: len(found) >= 3)
        stop.set()
    assert all(context == {} for context in found)
