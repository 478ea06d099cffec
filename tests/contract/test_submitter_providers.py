"""What holds for every provider room on the way out, whatever its wire protocol."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from receiver.config.settings import Settings
from receiver.deliveries import GIVEN_UP, Subscription
from receiver.ingest import Ingest
from receiver.stores import Store
from receiver.tasks import Status, Task, Trust
from submitter import InputError
from submitter.client import ONCE, Client, Patience
from submitter.errors import (
    NeverReached,
    NotFoundAtProvider,
    OutcomeUnknown,
    ProviderError,
    TryLater,
    UnexpectedAnswer,
    WrongAccount,
    WrongInput,
)
from submitter.pictures.inputs import TryOnInputs
from submitter.providers import ROOMS, Provider
from submitter.providers.appypie import AppyPie
from submitter.providers.kling import Kling
from submitter.providers.kling_token import ApiKey
from submitter.providers.modellix import Modellix
from submitter.queries import query
from submitter.task_creation import TaskCreator, was_not_accepted
from tests.support.scripted_provider import (
    PAYLOADS,
    TOKEN,
    Reply,
    Scripted,
    once_reached,
    serving,
)

# Its clock stands still, so that a busy machine does not shorten the number of tries.
QUICK = Patience(delays=(0.01, 0.02), total=5, clock=lambda: 0.0)
ORDER = TryOnInputs("https://x.example/human.jpg", "aGVsbG8=", reference="ORDER-7")
PUBLIC_URL = "https://callbacks.example.com"


def payload(name: str) -> bytes:
    return (PAYLOADS.parent / name).read_bytes()


@dataclass(frozen=True)
class Dialect:
    """How one provider says what they all say."""

    open: Callable[[Client], Provider]
    has_list: bool
    waits_with_creates: bool  # else a create that was told to come later is not sent again
    created: bytes
    task_id: str  # in `created`
    queried: bytes
    queried_id: str
    wrong_input: tuple[int, Any]
    wrong_key: tuple[int, Any]
    limited: tuple[int, Any]
    trouble: tuple[int, Any]
    unknown_id: tuple[int, Any]


def kling_says(code: int, message: str = "what it says") -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": "r-1"}


DIALECTS = {
    "kling": Dialect(
        open=lambda client: Kling(client, ApiKey(TOKEN)),
        has_list=True,
        waits_with_creates=True,
        created=payload("kling/create-try-on.json"),
        task_id="CjikY2gHPbcAAAAABI5n9g",
        queried=payload("kling/query-processing.json"),
        queried_id="822953089408827433",
        wrong_input=(400, kling_says(1201)),
        wrong_key=(401, kling_says(1000)),
        limited=(429, kling_says(1303)),
        trouble=(500, kling_says(5000)),
        unknown_id=(404, kling_says(1203)),
    ),
    "modellix": Dialect(
        open=lambda client: Modellix(client, TOKEN),
        has_list=False,
        waits_with_creates=False,
        created=payload("modellix/create.json"),
        task_id="task-vto-v15-abc123",
        queried=payload("modellix/query-success.json"),
        queried_id="task-vto-v15-abc123",
        wrong_input=(400, json.loads(payload("modellix/error-400.json"))),
        wrong_key=(401, {"code": 401, "message": "Unauthorized: invalid key"}),
        limited=(429, {"code": 429, "message": "Too many requests: 100 a minute"}),
        trouble=(503, {"code": 503, "message": "Unavailable: maintenance"}),
        unknown_id=(404, {"code": 404, "message": "Not found: no such task"}),
    ),
    "appypie": Dialect(
        open=lambda client: AppyPie(client, TOKEN),
        has_list=False,
        waits_with_creates=True,
        created=payload("appypie/create.json"),
        task_id="ChBRS2c7DlgAAAAAAXXXX",
        queried=payload("appypie/query-succeed.json"),
        queried_id="ChBRS2c7DlgAAAAAAAXXXX",
        wrong_input=(400, {"error": "human_image is required"}),
        wrong_key=(401, {"error": "invalid subscription key"}),
        limited=(429, {"error": "rate limit is exceeded"}),
        trouble=(500, {"error": "internal server error"}),
        unknown_id=(200, json.loads(payload("appypie/task-not-found.json"))),
    ),
}
Rooms = Callable[..., Provider]
Desks = Callable[..., TaskCreator]


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serving() as scripted:
        yield scripted


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


@pytest.fixture
def room(server: Scripted, dialect: Dialect) -> Rooms:
    def make(url: str | None = None, **limits: float) -> Provider:
        patient = QUICK if dialect.waits_with_creates else ONCE
        return dialect.open(Client(url or server.url, patient=patient, brisk=QUICK, **limits))

    return make


@pytest.fixture
def desk(store: Store, room: Rooms, tmp_path: Path) -> Desks:
    def make(public_url: str | None = None, **more: Any) -> TaskCreator:
        settings = Settings(f"sqlite:///{tmp_path / 'receiver.db'}", ("a-secret",), public_url)
        hears = Subscription("mail", frozenset({"failed", GIVEN_UP}))
        return TaskCreator(Ingest(store, [hears]), room(**more), settings, sleep=lambda _: None)

    return make


def send(desk: TaskCreator) -> Task:
    return desk.send(desk.record_task(ORDER), ORDER)


def said(server: Scripted, answer: tuple[int, Any], **headers: str) -> Reply:
    status, document = answer
    return server.say(document, status, **headers)


def only_task(store: Store) -> Task:
    (task,) = store.tasks()
    return task


def heard(store: Store) -> list[str]:
    return [delivery.status for delivery in store.deliveries()]


def test_every_room_is_in_the_suite() -> None:
    assert set(DIALECTS) == set(ROOMS)


def test_a_create_that_is_taken_is_submitted(
    server: Scripted, desk: Desks, dialect: Dialect
) -> None:
    server.will(server.say(dialect.created))
    task = send(desk())
    assert (task.status, task.trust) == (Status.SUBMITTED, Trust.QUERIED)
    assert (task.provider_task_id, task.reference) == (dialect.task_id, "ORDER-7")
    (asked,) = server.asked
    assert asked.method == "POST"
    assert (asked.json["human_image"], asked.json["cloth_image"]) == (ORDER.human, ORDER.cloth)


def test_a_callback_url_is_sent_where_the_provider_calls_back(
    server: Scripted, desk: Desks, dialect: Dialect
) -> None:
    server.will(server.say(dialect.created))
    public = desk(public_url=PUBLIC_URL)
    task = send(public)
    sent = server.asked[0].json.get("callback_url", "")
    assert sent.startswith(f"{PUBLIC_URL}/callbacks/") is public.adapter.has_callbacks
    assert task.expects_callback is public.adapter.has_callbacks
    server.asked.clear()
    assert not send(desk()).expects_callback
    assert "callback_url" not in server.asked[0].json


def test_the_first_question_waits_until_no_create_can_be_under_way(
    server: Scripted, desk: Desks, dialect: Dialect
) -> None:
    """Else a task that is known by the provider's id alone would be given up on too soon."""
    server.will(server.say(dialect.created))
    behind_nat = desk()
    created = behind_nat.record_task(ORDER)
    assert created.deadline_at is not None
    if not behind_nat.adapter.finds_by_our_id:
        assert created.deadline_at - created.created_at > 600_000
    submitted = behind_nat.send(created, ORDER)
    assert submitted.deadline_at is not None
    assert submitted.deadline_at - created.created_at < 30_000


def test_wrong_input_is_refused_and_the_task_failed(
    server: Scripted, desk: Desks, store: Store, dialect: Dialect
) -> None:
    server.will(said(server, dialect.wrong_input))
    with pytest.raises(WrongInput) as caught:
        send(desk())
    task = only_task(store)
    assert caught.value.task_id == task.id
    assert caught.value.http_status == 400
    assert (task.status, (task.reason or "")[:9]) == (Status.FAILED, "refused: ")
    assert was_not_accepted(task)
    assert (len(server.asked), heard(store)) == (1, ["failed"])


def test_a_wrong_key_is_told_with_the_setting_and_no_retry(
    server: Scripted, desk: Desks, room: Rooms, store: Store, dialect: Dialect
) -> None:
    server.will(said(server, dialect.wrong_key))
    with pytest.raises(WrongAccount, match=rf"check {room().name.upper()}_"):
        send(desk())
    assert len(server.asked) == 1
    assert was_not_accepted(only_task(store))
    with pytest.raises(WrongAccount):
        room().fetch(provider_task_id="8")


def test_a_create_that_is_limited_is_refused_in_the_end(
    server: Scripted, desk: Desks, store: Store, dialect: Dialect
) -> None:
    server.will(said(server, dialect.limited))
    with pytest.raises(TryLater) as caught:
        send(desk())
    assert caught.value.retry_after is None
    assert len(server.asked) == (3 if dialect.waits_with_creates else 1)
    assert was_not_accepted(only_task(store))


def test_a_limit_that_names_a_wait_is_told(server: Scripted, room: Rooms, dialect: Dialect) -> None:
    reset = int(time.time()) + 4000
    for headers, wait in (
        ({"Retry_After": "70"}, lambda _: 70.0),
        (
            {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": str(reset)},
            lambda now: reset - now,
        ),
    ):
        asked_at = time.time()
        server.asked.clear()
        server.will(said(server, dialect.limited, **headers))
        with pytest.raises(TryLater) as caught:
            room().fetch(provider_task_id="8")
        assert caught.value.retry_after is not None
        assert wait(time.time()) <= caught.value.retry_after <= wait(asked_at)
        assert len(server.asked) == 1  # it is longer than a question waits


def test_a_question_that_is_limited_is_asked_again(
    server: Scripted, room: Rooms, dialect: Dialect
) -> None:
    server.will(said(server, dialect.limited), server.say(dialect.queried))
    assert room().fetch(provider_task_id=dialect.queried_id).body == dialect.queried
    assert len(server.asked) == 2


def test_the_quota_reaches_the_caller(server: Scripted, room: Rooms, dialect: Dialect) -> None:
    left: dict[str, Any] = {"X_RateLimit_Limit": "100", "X_RateLimit_Remaining": "7"}
    server.will(server.say(dialect.queried, **left, X_RateLimit_Reset="1765519848"))
    quota = room().fetch(provider_task_id=dialect.queried_id).quota
    assert quota is not None
    assert (quota.remaining, quota.reset_at) == (7, 1_765_519_848_000)
    for odd in ("soon", "-1", "1e9", "9" * 20, ""):
        server.will(server.say(dialect.queried, **left, X_RateLimit_Reset=odd))
        assert room().fetch(provider_task_id=dialect.queried_id).quota is None


@pytest.mark.parametrize("lost", ["trouble", "hang_up", "hang_up_within_the_body", "drip"])
def test_a_create_with_a_lost_outcome_is_never_sent_twice(
    server: Scripted, desk: Desks, store: Store, dialect: Dialect, lost: str
) -> None:
    reply = said(server, dialect.trouble) if lost == "trouble" else getattr(server, lost)
    server.will(reply, said(server, dialect.unknown_id))
    one = desk(create_within=0.5)
    with pytest.raises(OutcomeUnknown, match="do not submit it again without checking") as caught:
        send(one)
    creates = [asked for asked in server.asked if b"human_image" in asked.body]
    task = only_task(store)
    assert (len(creates), caught.value.task_id) == (1, task.id)
    assert task.status is Status.CREATED
    assert not was_not_accepted(task)
    # Where nothing can bring the outcome any more, the record says so.
    assert (task.given_up_at is None) is one.adapter.finds_by_our_id
    assert heard(store) == ([] if one.adapter.finds_by_our_id else [GIVEN_UP])


def test_a_lost_outcome_that_a_callback_may_bring_is_not_given_up(
    server: Scripted, desk: Desks, store: Store, dialect: Dialect
) -> None:
    server.will(server.hang_up, said(server, dialect.unknown_id))
    public = desk(public_url=PUBLIC_URL)
    with pytest.raises(OutcomeUnknown):
        send(public)
    assert (only_task(store).given_up_at is None) is public.adapter.has_callbacks


def test_a_refused_connection_was_never_reached(desk: Desks, store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NeverReached, match="Connection refused"):
        send(desk(url=f"http://127.0.0.1:{port}"))
    task = only_task(store)
    assert (task.status, task.reason) == (Status.FAILED, "never reached")
    assert was_not_accepted(task)


def test_an_unknown_id_is_an_error_of_the_question_and_moves_nothing(
    server: Scripted, desk: Desks, store: Store, dialect: Dialect
) -> None:
    server.will(server.say(dialect.created), said(server, dialect.unknown_id))
    one = desk()
    task = send(one)
    with pytest.raises(NotFoundAtProvider):
        query(one.ingest, one.adapter, task)
    assert store.task(task.id) == task


def test_our_own_id_is_asked_for_where_the_provider_finds_by_it(
    server: Scripted, room: Rooms, dialect: Dialect
) -> None:
    server.will(said(server, dialect.unknown_id))
    one = room()
    with pytest.raises(NotFoundAtProvider):
        one.fetch(external_task_id="our-own-id")
    assert len(server.asked) == (1 if one.finds_by_our_id else 0)


def test_an_answer_about_another_task_is_refused(
    server: Scripted, room: Rooms, dialect: Dialect
) -> None:
    server.will(server.say(dialect.queried))
    with pytest.raises(UnexpectedAnswer, match="told of another"):
        room().fetch(provider_task_id="not-this-one")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"code": "0"}', b'{"code": NaN}', b""])
def test_what_is_no_answer_of_the_protocol_is_told(
    server: Scripted, room: Rooms, desk: Desks, body: bytes
) -> None:
    server.will(server.say(body))
    with pytest.raises(UnexpectedAnswer, match="_BASE_URL"):
        room().fetch(provider_task_id="8")
    with pytest.raises(OutcomeUnknown):  # a create that was answered like that may be accepted
        send(desk())
    server.will(server.say(body, 404))
    for call in (lambda: room().fetch(provider_task_id="8"), lambda: send(desk())):
        with pytest.raises(UnexpectedAnswer, match="_BASE_URL"):
            call()


@pytest.mark.parametrize("drip", ["drip", "drip_a_whole_answer"])
def test_a_dripping_server_cannot_hold_a_question(server: Scripted, room: Rooms, drip: str) -> None:
    server.will(getattr(server, drip))

    def fetch(within: float) -> None:
        with pytest.raises(TryLater, match=rf"no answer within {within:g} s"):
            room(answer_within=within).fetch(provider_task_id="8")

    once_reached(fetch)


def test_a_question_is_asked_again_after_5xx_and_no_answer(
    server: Scripted, room: Rooms, dialect: Dialect
) -> None:
    server.will(said(server, dialect.trouble), server.hang_up, server.say(dialect.queried))
    assert room().fetch(provider_task_id=dialect.queried_id).body == dialect.queried


def test_the_provider_s_id_cannot_leave_its_place(
    server: Scripted, room: Rooms, dialect: Dialect
) -> None:
    server.will(said(server, dialect.unknown_id))
    with pytest.raises(NotFoundAtProvider):
        room().fetch(provider_task_id="a/b?c#d")
    asked = server.asked[0]
    assert asked.path.endswith("/a%2Fb%3Fc%23d") or asked.json == {"task_id": "a/b?c#d"}


def test_the_list_is_served_or_refused_before_any_request(
    server: Scripted, room: Rooms, dialect: Dialect
) -> None:
    server.will(server.say(kling_says(0) | {"data": []}))
    if dialect.has_list:
        assert room().list(1, 30).tasks == ()
        return
    with pytest.raises(InputError, match="has no list of tasks"):
        room().list(1, 30)
    assert server.asked == []


def test_the_keys_are_in_one_header_and_in_no_error_log_or_row(
    server: Scripted, desk: Desks, store: Store, dialect: Dialect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = []
    for reply in (server.hang_up, said(server, dialect.wrong_key), server.say(b"<", 502)):
        server.will(reply)
        with pytest.raises(ProviderError) as caught:
            send(desk(answer_within=0.3))
        link: BaseException | None = caught.value
        while link is not None:
            told.append(repr(link) + str(link) + repr(vars(link)))
            link = link.__cause__ or link.__context__
    rows = repr([(stored.callback, stored.problem) for stored in store.callbacks()])
    assert TOKEN not in "".join(told) + caplog.text + rows + repr(store.tasks())
    for asked in server.asked:
        assert sum(TOKEN in value for value in asked.headers.values()) == 1
        assert TOKEN not in asked.path + asked.body.decode()
