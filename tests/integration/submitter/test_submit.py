"""Two-phase submission with a provider that fails in every realistic way."""

import socket
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.events import Callback, Source
from receiver.ingest import Ingest
from receiver.signing import callback_urls
from receiver.stores import Store
from receiver.tasks import Outcome, Status, Task, Trust
from submitter.errors import (
    NeverReached,
    OutcomeUnknown,
    ProviderError,
    TryLater,
    UnexpectedAnswer,
    WrongAccount,
    WrongInput,
)
from submitter.pictures.inputs import TryOnInputs
from submitter.task_creation import TaskCreator
from tests.support.log_records import LogRecords
from tests.support.scripted_provider import once_reached

TOKEN = "the-token-that-nobody-may-see"
MakeCreator = Callable[..., TaskCreator]


def send(creator: TaskCreator, inputs: TryOnInputs) -> Task:
    return creator.send(creator.record_task(inputs), inputs)


def creates(server: Any) -> list[Any]:
    return [asked for asked in server.asked if asked.method == "POST"]


def only_task(store: Store) -> Task:
    (task,) = store.lists.tasks()
    return task


def test_the_task_is_committed_before_the_request_is_sent(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, database: Path
) -> None:
    seen: list[tuple[str, str]] = []

    def look(handler: BaseHTTPRequestHandler, asked: Any) -> None:
        reader = sqlite3.connect(database)
        seen.extend(reader.execute("select id, status from tasks").fetchall())
        reader.close()
        server.task()(handler, asked)

    server.will(look)
    task = send(make_creator(), inputs)
    assert seen == [(task.id, "created")]


def test_the_response_is_recorded_like_a_callback(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    server.will(server.task())
    task = send(make_creator(), inputs)
    assert (task.status, task.trust) == (Status.SUBMITTED, Trust.QUERIED)
    assert (task.provider_task_id, task.reference) == ("867283741759111202", "ORDER-7")
    assert task.deadline_at == task.created_at + 21_000  # no callback will come: 0.7 of the usual
    (stored,) = store.lists.callbacks()
    assert (stored.callback.source, stored.outcome) == (Source.CREATE, Outcome.RECORDED)
    assert stored.callback.body.startswith(b'{"code": 0')


def test_the_request_has_the_documented_format(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs
) -> None:
    server.will(server.task())
    task = send(make_creator(), inputs)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/images/kolors-virtual-try-on")
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.json == {
        "model_name": "kolors-virtual-try-on-v1",
        "human_image": "https://x.example/human.jpg",
        "cloth_image": "aGVsbG8=",
        "external_task_id": task.id,
    }


@pytest.mark.parametrize("model", [None, "kolors-virtual-try-on-v1-5"])
def test_the_task_has_the_model_of_the_request(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store, model: str | None
) -> None:
    server.will(server.task())
    task = send(make_creator(), replace(inputs, model=model))
    (asked,) = server.asked
    assert task.model == asked.json["model_name"] == (model or "kolors-virtual-try-on-v1")
    assert store.queries.task(task.id).model == task.model


def test_with_a_public_url_the_callback_url_contains_our_id_and_token(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs
) -> None:
    server.will(server.task())
    task = send(make_creator(public_url="https://callbacks.example.com"), inputs)
    assert (task.expects_callback, task.deadline_at) == (True, task.created_at + 90_000)
    token = callback_urls.mint("a-callback-secret", "kling", task.id)
    assert server.asked[0].json["callback_url"] == (
        f"https://callbacks.example.com/callbacks/kling/{task.id}/{token}"
    )


def test_a_callback_that_arrives_before_the_response_stays_ahead(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, ingest: Ingest, store: Store
) -> None:
    def call_back_first(handler: BaseHTTPRequestHandler, asked: Any) -> None:
        body = b'{"task_id": "867283741759111202", "task_status": "processing"}'
        ingest.accept(Callback("kling", asked.json["external_task_id"], body, received_at=1))
        server.task()(handler, asked)

    server.will(call_back_first)
    assert send(make_creator(), inputs).status is Status.PROCESSING
    assert [stored.outcome for stored in store.lists.callbacks()] == [
        Outcome.STALE,
        Outcome.RECORDED,
    ]


def test_a_refusal_is_recorded_as_failed_with_its_reason_and_fires_hooks(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    server.will(server.payload("error-1201.json", 400))
    with pytest.raises(WrongInput, match=r"1201.*mode value") as caught:
        send(make_creator(), inputs)
    task = only_task(store)
    assert caught.value.task_id == task.id
    assert task.status is Status.FAILED
    assert task.reason == "refused: 1201 mode value 'professional' is invalid"
    assert [delivery.hook for delivery in store.lists.deliveries()] == ["mail"]
    assert len(server.asked) == 1


def test_a_full_account_is_waited_for(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs
) -> None:
    busy = server.payload("error-1303.json", 429)
    server.will(busy, busy, server.task())
    assert send(make_creator(), inputs).status is Status.SUBMITTED
    assert len(creates(server)) == 3
    assert len({asked.body for asked in server.asked}) == 1


def test_waiting_for_a_full_account_has_a_limit(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    server.will(server.payload("error-1303.json", 429))
    with pytest.raises(TryLater, match="tried 3 times"):
        send(make_creator(), inputs)
    assert only_task(store).reason == "refused: 1303 parallel task over resource pack limit"


@pytest.mark.parametrize("code", [1100, 1101, 1102, 1304])
def test_the_other_429_codes_are_not_retried(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, code: int
) -> None:
    server.will(server.say({"code": code, "message": "no", "request_id": "r"}, 429))
    with pytest.raises(WrongAccount):
        send(make_creator(), inputs)
    assert len(server.asked) == 1


def test_a_task_whose_response_was_lost_is_looked_up_and_never_sent_again(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs
) -> None:
    for loss in (server.hang_up, server.hang_up_within_the_body, server.say(b"<html>", 200)):
        server.asked.clear()
        server.will(loss, server.task("processing"))
        task = send(make_creator(), inputs)
        assert (task.status, task.provider_task_id) == (Status.PROCESSING, "867283741759111202")
        assert [asked.method for asked in server.asked] == ["POST", "GET"]
        assert server.asked[1].path.endswith(f"/{task.id}")


@pytest.mark.parametrize("code", [5000, 5001, 5002])
def test_a_create_that_got_5xx_is_looked_up_and_never_sent_again(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, code: int
) -> None:
    server.will(server.say({"code": code, "message": "trouble"}, 503), server.task())
    assert send(make_creator(), inputs).status is Status.SUBMITTED
    assert len(creates(server)) == 1


def test_an_unknown_outcome_stays_created_and_says_what_to_do(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    no_such_task = {"code": 1203, "message": "task does not exist", "request_id": "r"}
    server.will(server.hang_up, server.say(no_such_task, 404))
    with pytest.raises(OutcomeUnknown, match="the provider has no such task yet") as caught:
        send(make_creator(), inputs)
    task = only_task(store)
    assert (task.status, task.provider_task_id) == (Status.CREATED, None)
    assert task.deadline_at is not None
    assert caught.value.task_id == task.id
    assert f"submitter status {task.id}" in str(caught.value)
    assert "do not submit it again without checking" in str(caught.value)


def test_a_callback_proves_that_a_lost_create_was_accepted(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, ingest: Ingest
) -> None:
    def call_back_and_hang_up(handler: BaseHTTPRequestHandler, asked: Any) -> None:
        body = b'{"task_id": "867283741759111202", "task_status": "submitted"}'
        ingest.accept(Callback("kling", asked.json["external_task_id"], body, received_at=1))
        server.hang_up(handler, asked)

    server.will(call_back_and_hang_up, server.hang_up)
    assert send(make_creator(), inputs).status is Status.SUBMITTED


def test_a_response_that_is_not_a_task_is_quarantined(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    server.will(
        server.say({"code": 0, "message": "SUCCEED", "data": {"task_id": 7}}), server.task()
    )
    assert send(make_creator(), inputs).status is Status.SUBMITTED
    assert len(store.lists.callbacks(outcome=Outcome.QUARANTINED)) == 1
    assert len(creates(server)) == 1


def test_a_refused_connection_raises_never_reached(
    make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NeverReached, match="Connection refused") as caught:
        send(make_creator(url=f"http://127.0.0.1:{port}"), inputs)
    task = only_task(store)
    assert (task.status, task.reason) == (Status.FAILED, "never reached")
    assert caught.value.task_id == task.id


def test_an_unresolvable_name_raises_never_reached(
    make_creator: MakeCreator, inputs: TryOnInputs
) -> None:
    with pytest.raises(NeverReached, match="was never reached"):
        send(make_creator(url="http://no-such-host.invalid"), inputs)


def test_a_redirect_is_not_followed(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    server.will(server.say({}, 307, Location=f"{server.url}/elsewhere"))
    with pytest.raises(UnexpectedAnswer, match=r"HTTP 307.*KLING_BASE_URL"):
        send(make_creator(), inputs)
    assert len(server.asked) == 1
    task = only_task(store)
    assert (task.status, (task.reason or "")[:17]) == (Status.FAILED, "refused: HTTP 307")


def test_a_path_that_does_not_exist_ends_the_task(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    server.will(server.payload("not-found-framework.json", 404))
    with pytest.raises(UnexpectedAnswer, match="No message available"):
        send(make_creator(), inputs)
    assert only_task(store).status is Status.FAILED


def test_a_slow_server_cannot_delay_a_create_beyond_its_limit(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs
) -> None:
    def reply(handler: BaseHTTPRequestHandler, asked: Any) -> None:
        (server.drip if asked.method == "POST" else server.task())(handler, asked)

    server.will(reply)
    task = once_reached(lambda within: send(make_creator(create_within=within), inputs))
    assert task.status is Status.SUBMITTED


def test_a_response_above_the_limit_is_not_read_to_its_end(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    server.will(server.say(b" " * 3_000_000))
    with pytest.raises(OutcomeUnknown, match="larger than 1048576 bytes"):
        send(make_creator(), inputs)
    assert only_task(store).status is Status.CREATED


def test_if_the_task_cannot_be_recorded_nothing_is_sent(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    store.close()
    with pytest.raises(StoreUnavailable):
        send(make_creator(), inputs)
    assert server.asked == []


def test_if_the_response_cannot_be_recorded_the_error_names_the_task(
    server: Any, make_creator: MakeCreator, inputs: TryOnInputs, store: Store
) -> None:
    def lose_the_store(handler: BaseHTTPRequestHandler, asked: Any) -> None:
        store.close()
        server.task()(handler, asked)

    server.will(lose_the_store, server.task())
    with pytest.raises(OutcomeUnknown, match="could not be recorded") as caught:
        send(make_creator(), inputs)
    assert caught.value.task_id == only_task(store).id
    assert len(creates(server)) == 1


def test_the_token_is_in_no_error_log_or_row(
    server: Any,
    make_creator: MakeCreator,
    inputs: TryOnInputs,
    store: Store,
    log_records: LogRecords,
) -> None:
    said = {"code": 1000, "message": "authentication failed", "request_id": "r"}
    told = []
    for reply in (server.hang_up, server.say(said, 401), server.say(b"<html>", 502), server.drip):
        server.will(reply)
        with pytest.raises(ProviderError) as caught:
            send(make_creator(create_within=0.3, answer_within=0.3), inputs)
        link: BaseException | None = caught.value
        while link is not None:
            told.append(repr(link) + str(link) + repr(vars(link)))
            link = link.__cause__ or link.__context__
    rows = repr([(stored.callback, stored.problem) for stored in store.lists.callbacks()])
    assert TOKEN not in "".join(told) + log_records.text + rows + repr(store.lists.tasks())
