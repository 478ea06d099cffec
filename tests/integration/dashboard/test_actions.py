"""The buttons: each does what it says to the record, and the page says what was done."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from dashboard_visits import act
from receiver.clock import now_ms
from receiver.deliveries import State
from receiver.endpoints import Circuit
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status
from rich_record import DEAD, Rich
from samples import body, callback, subscription


def states(store: SqliteStore, task: str) -> dict[str, State]:
    return {delivery.hook: delivery.state for delivery in store.deliveries(task_id=task)}


def test_a_dead_letter_is_redelivered(browser: FlaskClient, rich: Rich, store: SqliteStore) -> None:
    (dead,) = store.deliveries(task_id=rich.failed, hook=DEAD)
    answer = act(browser, f"/dashboard/deliveries/{dead.id}/redeliver")
    assert f"Delivery {dead.id} to {DEAD} is due again." in answer.text
    assert store.delivery(dead.id).state is State.PENDING
    again = act(browser, f"/dashboard/deliveries/{dead.id}/redeliver", back="deliveries")
    assert "Nothing was done" in again.text


def test_what_belongs_to_a_forgotten_task_is_not_redelivered(
    browser: FlaskClient, rich: Rich, store: SqliteStore
) -> None:
    (dead,) = store.deliveries(task_id=rich.forgotten, hook=DEAD)
    answer = act(browser, f"/dashboard/deliveries/{dead.id}/redeliver")
    assert "its task was forgotten" in answer.text
    assert store.delivery(dead.id).state is State.DEAD


def test_many_are_counted_before_they_are_redelivered(
    browser: FlaskClient, rich: Rich, store: SqliteStore
) -> None:
    form = {"state": "dead", "hook": DEAD, "provider": "kling", "since": "2h"}
    counted = browser.get("/dashboard/redeliver", query_string={**form, "count": "1"}).text
    assert re.search(r"<strong>4</strong> deliveries would be made due again", counted)
    assert states(store, rich.failed)[DEAD] is State.DEAD  # counting changes nothing
    answer = act(browser, "/dashboard/redeliver", **form)
    assert "Made due again: 4." in answer.text
    assert states(store, rich.failed)[DEAD] is State.PENDING


@pytest.mark.parametrize(
    ("field", "value"),
    [("state", "pending"), ("hook", "nobody"), ("provider", "x"), ("since", "soon")],
)
def test_a_filter_that_cannot_be_redelivers_nothing(
    browser: FlaskClient, rich: Rich, store: SqliteStore, field: str, value: str
) -> None:
    answer = act(browser, "/dashboard/redeliver", **{field: value})
    assert answer.status_code == 400
    assert states(store, rich.failed)[DEAD] is State.DEAD


def test_a_task_is_asked_about_now(browser: FlaskClient, rich: Rich, store: SqliteStore) -> None:
    before = now_ms()
    answer = act(browser, f"/dashboard/tasks/{rich.processing}/ask")
    assert "The poller asks the provider now" in answer.text
    deadline_at = store.task(rich.processing).deadline_at
    assert deadline_at is not None
    assert before <= deadline_at <= now_ms()


def test_nothing_is_asked_about_a_forgotten_task(
    browser: FlaskClient, rich: Rich, store: SqliteStore
) -> None:
    answer = act(browser, f"/dashboard/tasks/{rich.forgotten}/ask")
    assert "Nothing was done" in answer.text
    assert store.task(rich.forgotten).deadline_at is None


def test_a_message_that_is_understood_now_moves_its_task(
    browser: FlaskClient, store: SqliteStore
) -> None:
    Ingest(store, [subscription("mail")]).accept(callback(body("processing"), "t"))
    store.quarantine(callback(body("succeed"), "t"), "not understood then")
    (stored,) = store.callbacks(outcome=Outcome.QUARANTINED)
    answer = act(browser, f"/dashboard/callbacks/{stored.id}/replay")
    assert f"Replayed message {stored.id}: recorded." in answer.text
    assert store.task("t").status is Status.SUCCEEDED
    assert states(store, "t") == {"pictures": State.PENDING, "mail": State.PENDING}


def test_a_message_that_is_still_not_understood_says_why(
    browser: FlaskClient, rich: Rich, store: SqliteStore
) -> None:
    stored = store.callbacks(outcome=Outcome.QUARANTINED)[0]
    answer = act(browser, f"/dashboard/callbacks/{stored.id}/replay")
    assert f"Message {stored.id} is still not understood: the body is not JSON" in answer.text
    assert rich


def test_a_hook_is_paused_and_goes_on(browser: FlaskClient, store: SqliteStore) -> None:
    assert "mail is paused" in act(browser, "/dashboard/endpoints/mail/pause").text
    assert store.endpoint("mail").circuit(now_ms()) is Circuit.PAUSED
    assert "mail goes on" in act(browser, "/dashboard/endpoints/mail/resume").text
    assert store.endpoint("mail").circuit(now_ms()) is Circuit.CLOSED
    assert "Nothing was done" in act(browser, "/dashboard/endpoints/mail/resume").text


@pytest.mark.parametrize(
    "path",
    ["endpoints/nobody/pause", "deliveries/999/redeliver", "callbacks/999/replay", "tasks/x/ask"],
)
def test_an_action_on_what_is_not_there_says_so(browser: FlaskClient, path: str) -> None:
    assert act(browser, f"/dashboard/{path}").status_code == 404


def test_no_action_can_be_taken_by_following_a_link(browser: FlaskClient, rich: Rich) -> None:
    assert rich
    for path in ("deliveries/1/redeliver", "endpoints/mail/pause", "callbacks/1/replay"):
        assert browser.get(f"/dashboard/{path}").status_code in (404, 405)
