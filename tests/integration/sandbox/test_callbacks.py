"""Callbacks arrive in order and are retried, and the ledger records them correctly."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import time

import pytest
import requests

from sandbox.callback_sender import Persistence
from sandbox.providers.kling_legacy import CALLBACK_HEADERS
from sandbox.server import Behaviour, Sandbox
from tests.support.patience import PATIENCE
from tests.support.sandbox_client import Kling, Sink, wait_for

SECRET = "whsec_dGhlIGtleSBvZiB0aGUgc2FuZGJveC4u"

MOVES = ["submitted", "processing", "succeed"]


def test_every_status_change_is_sent_once_and_in_order(
    kling: Kling, sink: Sink, sandbox: Sandbox
) -> None:
    created = kling.created(callback_url=sink.url, external_task_id="ORDER-1")
    wait_for(lambda: len(sandbox.ledger.acknowledged("ORDER-1")) == 3)
    task_id = created["task_id"]
    assert sink.statuses(task_id) == MOVES
    headers, last = sink.received[-1]
    assert {name: headers[name] for name in CALLBACK_HEADERS} == CALLBACK_HEADERS
    assert "Accept" not in headers
    assert last["task_info"] == {"external_task_id": "ORDER-1"}
    assert last["task_result"]["images"][0]["url"].startswith(sandbox.url)
    assert "code" not in last
    assert [entry.status for entry in sandbox.ledger.entries(task_id)] == MOVES


def test_a_failed_task_says_why(kling: Kling, sink: Sink, sandbox: Sandbox) -> None:
    sandbox.next("kling", "failed")
    task_id = kling.created(callback_url=sink.url)["task_id"]
    wait_for(lambda: len(sandbox.ledger.acknowledged(task_id)) == 3)
    assert sink.statuses(task_id) == ["submitted", "processing", "failed"]
    last = sink.received[-1][1]
    assert last["task_status_msg"] == "Failure to pass the risk control system"
    assert last["task_result"]["images"] == []
    assert kling.query(task_id)["task_status"] == "failed"


def test_a_refused_callback_is_sent_again_before_the_next_one(
    kling: Kling, sink: Sink, sandbox: Sandbox
) -> None:
    sink.answers = [503, 404, 302]
    task_id = kling.created(callback_url=sink.url)["task_id"]
    wait_for(lambda: len(sandbox.ledger.acknowledged(task_id)) == 3)
    assert sink.statuses(task_id) == ["submitted"] * 4 + MOVES[1:]
    rows = sandbox.ledger.entries(task_id)
    told = [(row.attempt, row.http_status, row.acknowledged) for row in rows]
    assert told[:4] == [(1, 503, False), (2, 404, False), (3, 302, False), (4, 200, True)]
    assert told[4:] == [(1, 200, True)] * 2
    assert len({row.body_sha256 for row in rows[:4]}) == 1
    assert all(row.answered_at is not None and row.sent_at <= row.answered_at for row in rows)


def test_a_callback_is_given_up_after_its_retries_and_the_next_one_follows(
    kling: Kling, sink: Sink, sandbox: Sandbox
) -> None:
    sink.answers = [500] * 4
    task_id = kling.created(callback_url=sink.url)["task_id"]
    wait_for(lambda: len(sandbox.ledger.acknowledged(task_id)) == 2)
    assert [row.status for row in sandbox.ledger.acknowledged(task_id)] == MOVES[1:]


def test_a_200_that_breaks_off_is_not_acknowledged(
    kling: Kling, sink: Sink, sandbox: Sandbox
) -> None:
    sink.answers = [0]
    task_id = kling.created(callback_url=sink.url)["task_id"]
    wait_for(lambda: len(sandbox.ledger.acknowledged(task_id)) == 3)
    first = sandbox.ledger.entries(task_id)[0]
    assert (first.http_status, first.acknowledged) == (200, False)
    assert "IncompleteRead" in str(first.error)


def test_one_receiver_that_does_not_respond_delays_no_other_task(
    kling: Kling, sink: Sink, sandbox: Sandbox
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        stuck = kling.created(callback_url=url)["task_id"]
        task_id = kling.created(callback_url=sink.url)["task_id"]
        wait_for(lambda: len(sandbox.ledger.acknowledged(task_id)) == 3)
        (waiting,) = sandbox.ledger.entries(stuck)
        assert (waiting.answered_at, waiting.acknowledged) == (None, False)


def test_silent_sends_nothing_and_the_task_ends_nevertheless(
    kling: Kling, sink: Sink, sandbox: Sandbox
) -> None:
    sandbox.next("kling", "silent")
    task_id = kling.created(callback_url=sink.url)["task_id"]
    assert kling.ended(task_id)["task_status"] == "succeed"
    wait_for(lambda: sandbox.is_quiet(task_id))
    other = kling.created(callback_url=sink.url)["task_id"]  # callbacks for a later task are sent
    wait_for(lambda: len(sandbox.ledger.acknowledged(other)) == 3)
    assert {body["task_id"] for _, body in sink.received} == {other}
    assert sandbox.ledger.entries(task_id) == []


def test_duplicates_are_byte_for_byte(kling: Kling, sink: Sink, sandbox: Sandbox) -> None:
    sandbox.next("kling", "duplicates")
    task_id = kling.created(callback_url=sink.url)["task_id"]
    wait_for(lambda: len(sandbox.ledger.acknowledged(task_id)) == 6)
    assert sink.statuses(task_id) == [status for status in MOVES for _ in range(2)]
    digests = [row.body_sha256 for row in sandbox.ledger.entries(task_id)]
    assert digests[::2] == digests[1::2]


@pytest.mark.parametrize("scenario", ["succeed", "new-dialect"])
def test_with_a_secret_every_callback_of_either_dialect_is_signed(
    session: requests.Session, sink: Sink, scenario: str
) -> None:
    sink.answers = [503]
    began_at = int(time.time())
    persistence = Persistence(retries=1, retry_after=0.02, timeout=PATIENCE)
    behaviour = Behaviour(0.05, webhook_secret=SECRET, persistence=persistence)
    with Sandbox(behaviour=behaviour) as sandbox:
        sandbox.next("kling", scenario)
        created = Kling(sandbox.url, session).created(callback_url=sink.url)
        wait_for(lambda: len(sandbox.ledger.acknowledged(created["task_id"])) == 3)
    ids = [headers["webhook-id"] for headers, _ in sink.received]
    assert (len(ids), ids[0]) == (4, ids[1])  # a duplicate is the same request
    assert len(set(ids)) == 3
    for headers, body in sink.received:
        raw = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        assert headers["webhook-signature"] == expected_signature(headers, raw)
        assert began_at <= int(headers["webhook-timestamp"]) <= time.time()


def expected_signature(headers: dict[str, str], body: bytes) -> str:
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return (
        f"v1,{base64.b64encode(hmac.digest(b'the key of the sandbox..', text, 'sha256')).decode()}"
    )


@pytest.mark.parametrize(
    ("scenario", "ends"), [("new-dialect", "succeeded"), ("new-dialect-failed", "failed")]
)
def test_the_newer_dialect_is_used_on_request(
    kling: Kling, sink: Sink, sandbox: Sandbox, scenario: str, ends: str
) -> None:
    sandbox.next("kling", scenario)
    created = kling.created(callback_url=sink.url, external_task_id="ORDER-3")
    wait_for(lambda: len(sandbox.ledger.acknowledged("ORDER-3")) == 3)
    bodies = [body for _, body in sink.received]
    assert [body["status"] for body in bodies] == ["submitted", "processing", ends]
    assert {body["id"] for body in bodies} == {created["task_id"]}
    assert {body["external_id"] for body in bodies} == {"ORDER-3"}
    assert not any("webhook-id" in headers for headers, _ in sink.received)
    is_success = ends == "succeeded"
    assert ("outputs" in bodies[-1], "billing" in bodies[-1]) == (is_success, is_success)


def test_callbacks_can_be_switched_off(session: requests.Session, sink: Sink) -> None:
    with Sandbox(behaviour=Behaviour(0.05, callbacks=False)) as sandbox:
        kling = Kling(sandbox.url, session)
        task_id = kling.created(callback_url=sink.url)["task_id"]
        assert kling.ended(task_id)["task_status"] == "succeed"
        assert sandbox.ledger.entries() == []
    assert sink.received == []


def test_the_ledger_is_served_with_the_digest_of_each_body(
    kling: Kling, sink: Sink, sandbox: Sandbox
) -> None:
    task_id = kling.created(callback_url=sink.url, external_task_id="ORDER-2")["task_id"]
    kling.created(callback_url=sink.url)
    wait_for(lambda: len(sandbox.ledger.acknowledged()) == 6)
    rows = kling.call("GET", f"/_sandbox/ledger?task_id={task_id}").json()
    assert [(row["status"], row["acknowledged"]) for row in rows] == [(s, True) for s in MOVES]
    body = next(body for _, body in sink.received if body["task_id"] == task_id)
    raw = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    assert rows[0]["body_sha256"] == hashlib.sha256(raw).hexdigest()


def test_no_callback_is_sent_for_a_task_without_callback_url(
    kling: Kling, sandbox: Sandbox
) -> None:
    kling.ended(kling.created()["task_id"])
    assert sandbox.ledger.entries() == []
