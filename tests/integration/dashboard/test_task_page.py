"""What the page of one task shows: the picture first, then the facts, with explanations."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from receiver.clock import now_ms
from receiver.ingest import Ingest
from receiver.maintenance.forget import forget
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from tests.support.dashboard_visits import act
from tests.support.rich_record import Rich
from tests.support.samples import body, callback

TASK = Task("t", "kling", Status.PROCESSING, 1, 1)


def main(browser: FlaskClient, path: str) -> str:
    """Return the content of a page as its text, with the tags removed."""
    text = browser.get(f"/dashboard/{path}").text.partition("<main")[2]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def test_the_picture_comes_before_the_facts_and_the_timeline(
    browser: FlaskClient, rich: Rich
) -> None:
    text = browser.get(f"/dashboard/tasks/{rich.succeeded}").text
    parts = ["alt=", "Output 1 of", ">SHA-256<", 'id="facts"', 'id="timeline"', 'id="deliveries"']
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("cost", "unit", "shown"),
    [
        ("2.5", "units", "Cost 2.5 units"),
        ("1", "units", "Cost 1 unit "),
        ("0.10", "USD", "Cost 0.10 USD"),
        ("1", None, "Cost 1 (the unit is not on record)"),
    ],
)
def test_a_cost_is_shown_with_its_unit(
    browser: FlaskClient, store: SqliteStore, cost: str, unit: str | None, shown: str
) -> None:
    store.inbox.create_task(replace(TASK, cost=cost, cost_unit=unit))
    assert shown in main(browser, "tasks/t")


def test_metadata_is_shown_redacted_until_the_task_is_forgotten(
    browser: FlaskClient, store: SqliteStore
) -> None:
    url = "https://hooks.slack.com/services/T0/B0/secret-of-slack"
    metadata = {"cart": 7, "for": "Ännchen <b>", "url": url}
    store.inbox.create_task(replace(TASK, metadata=metadata))
    text = browser.get("/dashboard/tasks/t").text
    shown = html.unescape(text)
    assert '"cart": 7' in shown
    assert '"for": "Ännchen <b>"' in shown
    assert "Ännchen <b>" not in text
    assert "secret-of-slack" not in text
    forget(store, "t", readers_end_within=0)
    shown = main(browser, "tasks/t")
    assert "Ännchen" not in shown
    assert "Metadata" not in shown


def test_the_model_is_shown(browser: FlaskClient, store: SqliteStore) -> None:
    store.inbox.create_task(replace(TASK, model="kolors-virtual-try-on-v1-5"))
    assert "Model kolors-virtual-try-on-v1-5" in main(browser, "tasks/t")


@pytest.mark.parametrize(
    ("status", "is_open"),
    [
        (Status.CREATED, True),
        (Status.SUBMITTED, True),
        (Status.PROCESSING, True),
        (Status.SUCCEEDED, False),
        (Status.FAILED, False),
    ],
)
def test_only_an_open_task_is_reconciled(
    browser: FlaskClient, store: SqliteStore, status: Status, is_open: bool
) -> None:
    store.inbox.create_task(replace(TASK, status=status))
    assert ("Reconcile now" in main(browser, "tasks/t")) == is_open
    answer = act(browser, "/dashboard/tasks/t/ask")
    assert ("The poller will query" in answer.text) == is_open
    assert ("Nothing was done: only an open task" in answer.text) == (not is_open)
    assert (store.queries.task("t").deadline_at is not None) == is_open


def test_a_conflict_is_explained_where_it_appears(browser: FlaskClient, store: SqliteStore) -> None:
    ingest = Ingest(store)
    ingest.accept(callback(body("succeed"), received_at=now_ms()))
    ingest.accept(callback(body("failed"), received_at=now_ms()))
    page = main(browser, "tasks/task-1")
    assert "Conflict: a message reported a final status that differs from the one on record" in page
    assert "The provider is queried, and its response decides." in page
    assert "It contradicts the final status on record, and changed nothing." in page
    for path in ("tasks", "tasks?view=gallery"):
        assert "Conflict: a message contradicts the final status." in main(browser, path)


def test_a_mismatch_is_explained_where_it_appears(browser: FlaskClient, store: SqliteStore) -> None:
    ingest = Ingest(store)
    for at_provider in ("one", "two"):
        raw = body("processing", at_provider)
        ingest.accept(callback(raw, received_at=now_ms()))
    page = main(browser, "tasks/task-1")
    assert "named a different provider task from the one on record" in page
    assert "It names another provider task than the one on record, and changed nothing." in page
    for path in ("tasks", "tasks?view=gallery"):
        assert "Mismatch: a message named another provider task." in main(browser, path)


def test_a_forgotten_task_is_explained_where_it_appears(browser: FlaskClient, rich: Rich) -> None:
    assert "The personal data was erased" in main(browser, f"tasks/{rich.forgotten}")
    for path in ("tasks", "tasks?view=gallery"):
        assert main(browser, path).count("Forgotten: personal data was erased.") == 1
    assert main(browser, "deliveries").count("forgotten, so nothing more is sent") == 2


def test_a_task_that_was_given_up_is_explained_where_it_appears(
    browser: FlaskClient, rich: Rich
) -> None:
    assert "no final status arrived in time" in main(browser, f"tasks/{rich.given_up}")
    for path in ("tasks", "tasks?view=gallery"):
        assert main(browser, path).count("Given up: the provider is no longer queried.") == 1


def test_times_are_elapsed_since_the_creation(browser: FlaskClient, store: SqliteStore) -> None:
    """As in `receiver tasks show`, and in the same notation."""
    at = now_ms()
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, at, at))
    for status, after in (("processing", 2_000), ("succeed", 75_000)):
        Ingest(store).accept(callback(body(status), received_at=at + after))
    page = main(browser, "tasks/task-1")
    assert re.search(r"after \+2\.000 s Processing .* after \+1 min 15 s Succeeded", page)
    assert "Took 1 min 15 s" in page


def test_the_page_of_an_unknown_task_names_the_id_as_it_was_typed(browser: FlaskClient) -> None:
    assert "No task has the id ORDER-7." in main(browser, "tasks/ORDER-7")
