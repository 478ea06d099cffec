"""The buttons: the changes of each in the record, and the report on the page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.deliveries import State
from receiver.endpoints import Circuit
from receiver.ingest import Ingest
from receiver.stores.sql.endpoints import HookTestOutcome
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status, Task
from tests.support.applications import MakeApp
from tests.support.dashboard_visits import PASSWORD, act, log_in
from tests.support.rich_record import DEAD, MINUTE, Rich
from tests.support.samples import body, callback, subscription


def states(store: SqliteStore, task: str) -> dict[str, State]:
    return {delivery.hook: delivery.state for delivery in store.lists.deliveries(task_id=task)}


def test_a_dead_letter_is_redelivered(browser: FlaskClient, rich: Rich, store: SqliteStore) -> None:
    (dead,) = store.lists.deliveries(task_id=rich.failed, hook=DEAD)
    answer = act(browser, f"/dashboard/deliveries/{dead.id}/redeliver")
    assert f"Delivery {dead.id} to {DEAD} is due again." in answer.text
    assert store.queries.delivery(dead.id).state is State.PENDING
    again = act(browser, f"/dashboard/deliveries/{dead.id}/redeliver", back="deliveries")
    assert "Nothing was done" in again.text


@pytest.mark.parametrize(
    ("wait_ms", "of_task", "in_list"),
    [
        (None, "Waits for pictures to end.", "waits for pictures to end</small>"),
        (
            120_000,
            "Waits for pictures to end, and is sent without it",
            "waits for pictures to end, and is sent without it in",
        ),
    ],
)
def test_the_pages_show_what_a_delivery_waits_for(
    browser: FlaskClient, store: SqliteStore, wait_ms: int | None, of_task: str, in_list: str
) -> None:
    hooks = [subscription("pictures"), subscription("mail", after="pictures", wait_ms=wait_ms)]
    Ingest(store, hooks).accept(callback(received_at=now_ms()))
    assert of_task in browser.get("/dashboard/tasks/task-1").text
    assert in_list in browser.get("/dashboard/deliveries").text


def test_deliveries_of_a_forgotten_task_cannot_be_redelivered(
    browser: FlaskClient, rich: Rich, store: SqliteStore
) -> None:
    (dead,) = store.lists.deliveries(task_id=rich.forgotten, hook=DEAD)
    answer = act(browser, f"/dashboard/deliveries/{dead.id}/redeliver")
    assert "its task was forgotten" in answer.text
    assert store.queries.delivery(dead.id).state is State.DEAD


def test_matching_deliveries_are_counted_before_they_are_redelivered(
    browser: FlaskClient, rich: Rich, store: SqliteStore
) -> None:
    form = {"state": "dead", "hook": DEAD, "provider": "kling", "since": "2h"}
    counted = browser.get("/dashboard/redeliver", query_string={**form, "count": "1"}).text
    assert re.search(r"<strong>4</strong> deliveries will be due again", counted)
    assert states(store, rich.failed)[DEAD] is State.DEAD  # counting changes nothing
    answer = act(browser, "/dashboard/redeliver", **form)
    assert "Redelivered: 4." in answer.text
    assert states(store, rich.failed)[DEAD] is State.PENDING


@pytest.mark.parametrize(
    ("field", "value"),
    [("state", "pending"), ("hook", "nobody"), ("provider", "x"), ("since", "soon")],
)
def test_an_invalid_filter_redelivers_nothing(
    browser: FlaskClient, rich: Rich, store: SqliteStore, field: str, value: str
) -> None:
    answer = act(browser, "/dashboard/redeliver", **{field: value})
    assert answer.status_code == 400
    assert states(store, rich.failed)[DEAD] is State.DEAD


def test_reconcile_now_makes_a_task_due_for_a_query(
    browser: FlaskClient, rich: Rich, store: SqliteStore
) -> None:
    before = now_ms()
    answer = act(browser, f"/dashboard/tasks/{rich.processing}/ask")
    assert "The poller will query the provider now" in answer.text
    deadline_at = store.queries.task(rich.processing).deadline_at
    assert deadline_at is not None
    assert before <= deadline_at <= now_ms()


def test_a_forgotten_task_cannot_be_reconciled(
    browser: FlaskClient, rich: Rich, store: SqliteStore
) -> None:
    answer = act(browser, f"/dashboard/tasks/{rich.forgotten}/ask")
    assert "Nothing was done" in answer.text
    assert store.queries.task(rich.forgotten).deadline_at is None


def test_replaying_a_callback_that_can_now_be_parsed_updates_its_task(
    browser: FlaskClient, store: SqliteStore
) -> None:
    Ingest(store, [subscription("mail")]).accept(callback(body("processing"), "t"))
    store.inbox.quarantine(callback(body("succeed"), "t"), "not understood then")
    (stored,) = store.lists.callbacks(outcome=Outcome.QUARANTINED)
    answer = act(browser, f"/dashboard/callbacks/{stored.id}/replay")
    assert f"Replayed message {stored.id}: recorded." in answer.text
    assert store.queries.task("t").status is Status.SUCCEEDED
    assert states(store, "t") == {"pictures": State.PENDING, "mail": State.PENDING}


@pytest.mark.usefixtures("rich")
def test_replaying_a_callback_that_still_cannot_be_parsed_says_why(
    browser: FlaskClient, store: SqliteStore
) -> None:
    stored = store.lists.callbacks(outcome=Outcome.QUARANTINED)[0]
    answer = act(browser, f"/dashboard/callbacks/{stored.id}/replay")
    assert f"Message {stored.id} can still not be interpreted: the body is not JSON" in answer.text


def test_a_mismatch_is_shown_with_instructions_and_can_be_accepted(
    browser: FlaskClient, store: SqliteStore
) -> None:
    ingest = Ingest(store, [subscription("mail")])
    ingest.accept(callback(body("processing", "first"), "t"))
    page = browser.get("/dashboard/tasks/t").text
    assert "mismatch" not in page
    assert ">Accept<" not in page
    ingest.accept(callback(body("succeed", "second"), "t"))
    (stored,) = store.lists.callbacks(outcome=Outcome.MISMATCH)
    page = browser.get("/dashboard/tasks/t").text
    assert "named a different provider task from the one on record" in page
    assert "names provider task second; provider task first is on record" in page
    assert page.count(">Accept<") == 1
    replayed = act(browser, f"/dashboard/callbacks/{stored.id}/replay")
    assert f"Replayed message {stored.id}: mismatch." in replayed.text
    answer = act(browser, f"/dashboard/callbacks/{stored.id}/replay", accept="1")
    assert f"Accepted message {stored.id}: recorded." in answer.text
    assert store.queries.task("t").status is Status.SUCCEEDED
    assert states(store, "t")["mail"] is State.PENDING
    again = act(browser, f"/dashboard/callbacks/{stored.id}/replay", accept="1")
    assert "Nothing was done: callback" in again.text


def test_both_ids_of_a_task_are_shown(browser: FlaskClient, store: SqliteStore) -> None:
    made = Task("t", "appypie", Status.CREATED, 1, 1, provider_task_id="by-appypie")
    store.inbox.create_task(made)
    said = replace(callback(body("processing", "by-kling"), "t"), provider="appypie")
    Ingest(store).accept(said)
    page = browser.get("/dashboard/tasks/t").text
    assert "<code>by-appypie</code>, in callbacks <code>by-kling</code>" in page


def test_a_hook_is_paused_and_resumed(browser: FlaskClient, store: SqliteStore) -> None:
    assert "mail is paused" in act(browser, "/dashboard/endpoints/mail/pause").text
    assert store.endpoints.of("mail").circuit(now_ms()) is Circuit.PAUSED
    assert "mail is resumed" in act(browser, "/dashboard/endpoints/mail/resume").text
    assert store.endpoints.of("mail").circuit(now_ms()) is Circuit.CLOSED
    assert "Nothing was done" in act(browser, "/dashboard/endpoints/mail/resume").text


def test_a_test_event_is_requested_and_its_result_is_shown(
    browser: FlaskClient, store: SqliteStore
) -> None:
    """The hook works, and has no deliveries on record yet."""
    store.activity.heartbeat("here:1:worker", "worker", now_ms())
    assert "Send a test event to pictures" in endpoints(browser)
    answer = act(browser, "/dashboard/endpoints/mail/test")
    assert "A worker will send a test event to mail." in answer.text
    assert "waiting for a worker" in endpoints(browser)
    assert "No worker is running" not in endpoints(browser)
    assert "Send a test event to mail" not in endpoints(browser)
    (trial,) = store.endpoints.claim_tests(now_ms(), now_ms() + MINUTE)
    assert (trial.hook, trial.status) == ("mail", "succeeded")
    assert "a worker is sending it" in endpoints(browser)
    store.endpoints.end_test(trial, HookTestOutcome.FAILED, "550 <no> such mailbox", now_ms())
    text = endpoints(browser)
    assert re.search(
        r"failed</span> Test event \(task\.succeeded\) <time [^>]+>just now</time>", text
    )
    assert "550 &lt;no&gt; such mailbox" in text
    assert "Send a test event to mail" in text


def test_without_a_worker_a_waiting_test_event_says_so(browser: FlaskClient) -> None:
    assert "No worker is running" not in endpoints(browser)
    act(browser, "/dashboard/endpoints/mail/test")
    assert "waiting for a worker" in endpoints(browser)
    assert "No worker is running. Start one." in endpoints(browser)


def test_a_second_test_event_waits_for_the_first(browser: FlaskClient, store: SqliteStore) -> None:
    act(browser, "/dashboard/endpoints/mail/test")
    asked = store.endpoints.tests()
    assert "is already waiting" in act(browser, "/dashboard/endpoints/mail/test").text
    assert store.endpoints.tests() == asked


def test_a_test_event_has_a_status_the_hook_subscribes_to(
    settings: Settings, tmp_path: Path, store: SqliteStore, make_app: MakeApp
) -> None:
    file = tmp_path / "hooks.toml"
    file.write_text(file.read_text() + '\non = ["given_up", "failed"]\n')  # of the previous one
    client = make_app(settings).test_client()
    log_in(client, PASSWORD)
    act(client, "/dashboard/endpoints/mail/test")
    assert [(one.hook, one.status) for one in store.endpoints.tests()] == [("mail", "failed")]


@pytest.mark.usefixtures("rich")
def test_a_test_event_can_be_sent_to_a_paused_hook_but_not_to_a_missing_one(
    browser: FlaskClient, store: SqliteStore
) -> None:
    (mail, pictures) = [one for one in store.endpoints.tests() if one.hook != DEAD]
    store.endpoints.end_test(mail, HookTestOutcome.DELIVERED, "250 OK", now_ms())
    assert store.endpoints.of("mail").circuit(now_ms()) is Circuit.PAUSED
    act(browser, "/dashboard/endpoints/mail/test")
    assert [one.hook for one in store.endpoints.tests() if not one.tries] == ["mail"]
    assert store.endpoints.of("mail").circuit(now_ms()) is Circuit.PAUSED
    assert "Send a test event to chat" not in endpoints(browser)  # not in the hooks file
    assert act(browser, "/dashboard/endpoints/chat/test").status_code == 404
    assert pictures in store.endpoints.tests()


def test_a_test_event_is_not_requested_without_the_csrf_token(
    browser: FlaskClient, stranger: FlaskClient, store: SqliteStore
) -> None:
    assert browser.post("/dashboard/endpoints/mail/test").status_code == 400
    assert stranger.post("/dashboard/endpoints/mail/test").status_code in (302, 400, 401)
    assert store.endpoints.tests() == []


def endpoints(browser: FlaskClient) -> str:
    """Return the page as our script receives it, without flashed messages and problems."""
    text = browser.get("/dashboard/endpoints", headers={"X-Live": "1"}).text
    return re.sub(r"\s+", " ", text.partition("<main>")[2].partition("</main>")[0])


@pytest.mark.parametrize(
    "path",
    [
        "endpoints/nobody/test",
        "endpoints/nobody/pause",
        "deliveries/999/redeliver",
        "callbacks/999/replay",
        "tasks/x/ask",
    ],
)
def test_an_action_on_something_missing_says_so(browser: FlaskClient, path: str) -> None:
    assert act(browser, f"/dashboard/{path}").status_code == 404


@pytest.mark.usefixtures("rich")
def test_no_action_can_be_performed_by_following_a_link(browser: FlaskClient) -> None:
    for path in (
        "endpoints/mail/test",
        "deliveries/1/redeliver",
        "endpoints/mail/pause",
        "callbacks/1/replay",
    ):
        assert browser.get(f"/dashboard/{path}").status_code in (404, 405)
