"""Kling's adapter: queries, their retries, and tokens that are signed again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from receiver.events import Source
from receiver.ingest import Ingest
from receiver.stores import Store
from receiver.tasks import Outcome, Status, Task, Trust
from submitter.errors import (
    InputError,
    NotFoundAtProvider,
    TryLater,
    UnexpectedAnswer,
    WrongAccount,
)
from submitter.pictures.inputs import TryOnInputs
from submitter.providers.kling import Kling, SignedTokens
from submitter.queries import query
from submitter.task_creation import TaskCreator
from tests.support.scripted_provider import once_reached

PAYLOADS = Path(__file__).parents[2] / "payloads" / "kling"
TRY_ON = "/v1/images/kolors-virtual-try-on"
IMAGES = {"task_result": {"images": [{"index": 0, "url": "https://cdn.example/a.png"}]}}
Rooms = Callable[..., Kling]


@pytest.fixture
def task(make_creator: Callable[..., TaskCreator], inputs: TryOnInputs) -> Task:
    return make_creator().record_task(inputs)


def test_a_query_returns_the_body_unchanged(server: Any, make_adapter: Rooms) -> None:
    server.will(server.payload("query-processing.json"))
    answer = make_adapter().fetch(provider_task_id="822953089408827433")
    assert answer.body == (PAYLOADS / "query-processing.json").read_bytes()
    assert server.asked[0].path == f"{TRY_ON}/822953089408827433"


def test_a_task_is_queried_by_our_id_until_klings_is_known(
    server: Any, make_adapter: Rooms, ingest: Ingest, store: Store, task: Task
) -> None:
    server.will(server.task("processing"))
    assert query(ingest, make_adapter(), task) is Outcome.RECORDED
    server.will(server.task("succeed", **IMAGES))
    assert query(ingest, make_adapter(), store.queries.task(task.id)) is Outcome.RECORDED
    assert [asked.path.split("/")[-1] for asked in server.asked] == [task.id, "867283741759111202"]
    found = store.queries.task(task.id)
    assert (found.status, found.trust) == (Status.SUCCEEDED, Trust.QUERIED)
    assert {stored.callback.source for stored in store.lists.callbacks()} == {Source.QUERY}
    assert [delivery.hook for delivery in store.lists.deliveries()] == ["mail"]


def test_a_single_task_in_a_list_is_accepted(
    server: Any, make_adapter: Rooms, ingest: Ingest, task: Task
) -> None:
    data = [{"task_id": "8", "task_status": "processing", "task_info": {}}]
    server.will(server.say({"code": 0, "message": "SUCCEED", "data": data}))
    assert query(ingest, make_adapter(), task) is Outcome.RECORDED


def test_a_response_about_another_task_is_not_recorded(
    server: Any, make_adapter: Rooms, ingest: Ingest, store: Store, task: Task
) -> None:
    info = {"external_task_id": "of-somebody-else"}
    data = {"task_id": "8", "task_status": "succeed", "task_info": info}
    server.will(server.say({"code": 0, "message": "SUCCEED", "data": data}))
    with pytest.raises(UnexpectedAnswer, match="described another one"):
        query(ingest, make_adapter(), task)
    server.will(server.payload("query-processing.json"))
    with pytest.raises(UnexpectedAnswer, match="described another one"):
        make_adapter().fetch(provider_task_id="1")
    assert store.lists.callbacks() == []


def test_an_unparsable_response_is_stored_and_reported(
    server: Any, make_adapter: Rooms, ingest: Ingest, store: Store, task: Task
) -> None:
    data = {"task_id": "8", "task_status": "pondering"}
    server.will(server.say({"code": 0, "message": "SUCCEED", "data": data}))
    with pytest.raises(UnexpectedAnswer, match="quarantine"):
        query(ingest, make_adapter(), task)
    assert [stored.outcome for stored in store.lists.callbacks()] == [Outcome.QUARANTINED]


def test_an_unknown_task_changes_nothing(
    server: Any, make_adapter: Rooms, ingest: Ingest, store: Store, task: Task
) -> None:
    server.will(server.say({"code": 1203, "message": "not found", "request_id": "r"}, 404))
    with pytest.raises(NotFoundAtProvider):
        query(ingest, make_adapter(), task)
    assert store.queries.task(task.id).status is Status.CREATED


def test_an_id_stays_within_its_path_segment(server: Any, make_adapter: Rooms) -> None:
    server.will(server.say({"code": 0, "data": {}}))
    make_adapter().fetch(external_task_id="a/../b?c#d")
    assert server.asked[0].path == f"{TRY_ON}/a%2F..%2Fb%3Fc%23d"


def test_a_query_is_retried_after_5xx_and_without_a_response(
    server: Any, make_adapter: Rooms
) -> None:
    trouble = server.say({"code": 5000, "message": "internal"}, 500)
    server.will(trouble, server.hang_up, server.payload("query-processing.json"))
    make_adapter().fetch(provider_task_id="822953089408827433")
    assert len(server.asked) == 3


def test_a_query_is_retried_a_limited_number_of_times(server: Any, make_adapter: Rooms) -> None:
    server.will(server.say(b"<html>", 502))
    with pytest.raises(TryLater, match="tried 3 times"):
        make_adapter().fetch(provider_task_id="8")
    assert len(server.asked) == 3


@pytest.mark.parametrize("drip", ["drip", "drip_a_whole_answer"])
def test_a_slow_server_cannot_delay_a_query_beyond_its_limit(
    server: Any, make_adapter: Rooms, drip: str
) -> None:
    server.will(getattr(server, drip))

    def fetch(within: float) -> None:
        with pytest.raises(TryLater, match=rf"no answer within {within:g} s"):
            make_adapter(answer_within=within).fetch(provider_task_id="8")

    once_reached(fetch)


@pytest.mark.parametrize("code", [1003, 1004])
def test_a_token_that_is_not_valid_now_is_signed_again_once(
    server: Any, make_adapter: Rooms, code: int
) -> None:
    tokens = SignedTokens("my-access-key", "a-secret-key-that-is-32-bytes-long")
    tokens.token(int(time.time()) - 1000)  # still valid by our clock
    expired = server.say({"code": code, "message": "token", "request_id": "r"}, 401)
    server.will(expired, server.payload("query-processing.json"))
    make_adapter(tokens).fetch(provider_task_id="822953089408827433")
    first, second = (asked.headers["Authorization"] for asked in server.asked)
    assert first != second
    server.asked.clear()
    server.will(expired)
    with pytest.raises(WrongAccount, match="clock"):
        make_adapter(tokens).fetch(provider_task_id="8")
    assert len(server.asked) == 2


def test_a_refused_static_key_is_not_retried(server: Any, make_adapter: Rooms) -> None:
    server.will(server.say({"code": 1004, "message": "token expired", "request_id": "r"}, 401))
    with pytest.raises(WrongAccount):
        make_adapter().fetch(provider_task_id="8")
    assert len(server.asked) == 1


def test_a_page_of_the_list_is_requested_by_number_and_size(
    server: Any, make_adapter: Rooms
) -> None:
    first = {"task_id": "9", "task_status": "succeed", "created_at": 1774805076166, **IMAGES}
    odd = {"task_id": 8, "task_status": "pondering\x1b[2J", "task_result": {"images": [None, {}]}}
    server.will(server.say({"code": 0, "message": "SUCCEED", "data": [first, odd]}))
    page = make_adapter().list(2, 50)
    assert server.asked[0].path == f"{TRY_ON}?pageNum=2&pageSize=50"
    assert [task.status for task in page.tasks] == ["succeeded", "pondering [2J"]
    assert page.tasks[0].urls == ("https://cdn.example/a.png",)


@pytest.mark.parametrize(
    ("page", "size", "field"),
    [(0, 30, "page"), (1001, 30, "page"), (1, 0, "page_size"), (1, 501, "page_size")],
)
def test_a_page_that_kling_does_not_offer_is_refused_before_the_request(
    server: Any, make_adapter: Rooms, page: int, size: int, field: str
) -> None:
    with pytest.raises(InputError) as caught:
        make_adapter().list(page, size)
    assert caught.value.field == field
    assert server.asked == []


def test_a_response_that_is_not_a_list_is_reported(server: Any, make_adapter: Rooms) -> None:
    server.will(server.say({"code": 0, "message": "SUCCEED", "data": {"task_id": "8"}}))
    with pytest.raises(UnexpectedAnswer, match="no array"):
        make_adapter().list(1, 30)
