"""A success with a lost output is queried once, and its hooks receive the response's outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from receiver import providers
from receiver.deliveries import Attempt, Delivery, File, State
from receiver.events import Callback, Source
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.recording import QUERY_AGAIN_AFTER, WAIT_FOR_OUTPUTS
from receiver.tasks import Outcome, Status, Task, Trust
from tests.support.attempts import notice_source
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
SOON = NOW + 500
HOOKS = [subscription("archive"), subscription("mail"), subscription("late", after="archive")]
HALF = [{"index": 0, "url": "https://cdn.example/0.png"}, None]
WHOLE = [HALF[0], {"index": 1, "url": "https://cdn.example/1.png"}]


def sent(images: list[Any], **more: Any) -> Callback:
    return callback(body(task_result={"images": images}), **more)


def queried(images: list[Any], at: int = SOON, **more: Any) -> Callback:
    """Return the response to a query with these images."""
    data = json.loads(body(task_result={"images": images}, **more))
    raw = json.dumps({"code": 0, "data": data}).encode()
    return callback(raw, received_at=at, source=Source.QUERY, trust=Trust.QUERIED)


@pytest.fixture
def ingest(store: Store) -> Ingest:
    store.inbox.create_task(
        Task("task-1", "kling", Status.CREATED, NOW - 9, NOW - 9, expects_callback=True)
    )
    return Ingest(store, HOOKS)


@pytest.fixture
def polled(store: Store, ingest: Ingest) -> Ingest:
    """Return the result of `ingest` while a poller runs."""
    store.activity.heartbeat("poller-1", "poller", NOW - 9_000)
    return ingest


def due(store: Store) -> dict[str, int | None]:
    return {delivery.hook: delivery.due_at for delivery in store.lists.deliveries()}


def urls(store: Store, delivery: Delivery) -> list[str]:
    """Return the URLs of the current outputs of this delivery."""
    stored = notice_source(store, delivery).callback
    assert stored is not None
    return [media.url for media in providers.get("kling").parse(stored).media]


def claim(store: Store, at: int) -> dict[str, Delivery]:
    return {one.hook: one for one in store.outbox.claim("worker", at, at + 60_000, 9)}


def deliver(store: Store, delivery: Delivery, at: int, *files: str) -> None:
    downloaded = [File(index, f"/files/{index}.png", "00", 1, "image/png") for index in files]
    attempt = Attempt(delivery.attempts, at, at, "delivered", "ok")
    assert store.outbox.settle(delivery, attempt, State.DELIVERED, None, downloaded)


def test_the_success_counts_and_the_task_is_queried_immediately(
    store: Store, ingest: Ingest
) -> None:
    assert ingest.accept(sent(HALF)) is Outcome.RECORDED
    assert store.queries.task("task-1").status is Status.SUCCEEDED
    assert store.polling.next_deadline_at() == NOW
    assert [task.id for task in store.polling.claim_overdue(NOW, SOON, 5)] == ["task-1"]


def test_without_a_poller_nothing_waits(store: Store, ingest: Ingest) -> None:
    store.activity.heartbeat("poller-1", "poller", NOW - 3_600_000)  # it stopped an hour ago
    ingest.accept(sent(HALF))
    assert due(store) == {"archive": NOW, "mail": NOW, "late": None}


def test_deliveries_wait_briefly_for_the_poller(store: Store, polled: Ingest) -> None:
    polled.accept(sent(HALF))
    assert due(store) == {
        "archive": NOW + WAIT_FOR_OUTPUTS,
        "mail": NOW + WAIT_FOR_OUTPUTS,
        "late": None,
    }
    claimed = claim(store, NOW + WAIT_FOR_OUTPUTS)  # the provider did not respond in time
    assert urls(store, claimed["mail"]) == ["https://cdn.example/0.png"]


def test_the_wait_for_outputs_does_not_lengthen_a_wait_for_files(
    store: Store, polled: Ingest
) -> None:
    limited = subscription("notice", after="archive", wait_ms=120_000)
    replace(polled, subscriptions=[*HOOKS, limited]).accept(sent(HALF))
    assert due(store)["notice"] == NOW + 120_000


def test_the_response_completes_the_record_and_every_hook_is_called_once(
    store: Store, polled: Ingest
) -> None:
    polled.accept(sent(HALF))
    assert polled.accept(queried(WHOLE)) is Outcome.DUPLICATE
    assert store.polling.next_deadline_at() is None
    assert due(store) == {"archive": SOON, "mail": SOON, "late": None}
    claimed = claim(store, SOON)
    assert urls(store, claimed["mail"]) == [
        "https://cdn.example/0.png",
        "https://cdn.example/1.png",
    ]
    for delivery in claimed.values():
        deliver(store, delivery, SOON)
    deliver(store, claim(store, SOON)["late"], SOON)
    assert claim(store, SOON + 3_600_000) == {}


@pytest.mark.parametrize(
    "images",
    [[], [WHOLE[1], None], HALF, [None, None], [{"index": 0, "url": ""}]],
)
def test_a_response_with_fewer_outputs_removes_none(
    store: Store, polled: Ingest, images: list[Any]
) -> None:
    three = [*WHOLE, {"index": 2, "url": "https://cdn.example/2.png"}, {"url": ""}]
    polled.accept(sent(three))
    polled.accept(queried(images))
    assert store.polling.next_deadline_at() is None  # it is not queried again
    assert due(store) == {"archive": SOON, "mail": SOON, "late": None}
    assert len(urls(store, claim(store, SOON)["mail"])) == 3


def test_a_repeated_success_is_not_queried_again(store: Store, polled: Ingest) -> None:
    for at in (NOW, NOW + 1):
        polled.accept(sent(HALF, received_at=at))
    polled.accept(queried(HALF))
    polled.accept(sent(HALF, received_at=SOON))
    polled.accept(replace(sent([*HALF, None]), received_at=SOON))
    assert store.polling.next_deadline_at() is None


def test_a_repeated_response_settles_the_query_both_times(store: Store, ingest: Ingest) -> None:
    ingest.accept(sent(HALF))
    ingest.accept(queried(HALF))
    store.polling.query_at("task-1", SOON)
    assert ingest.accept(queried(HALF)) is Outcome.DUPLICATE
    assert store.polling.next_deadline_at() is None


def test_an_incomplete_success_from_a_query_is_queried_once_more_after_a_delay(
    store: Store, ingest: Ingest
) -> None:
    assert ingest.accept(queried(HALF)) is Outcome.RECORDED
    assert store.polling.next_deadline_at() == SOON + QUERY_AGAIN_AFTER
    ingest.accept(queried(HALF, at=SOON + QUERY_AGAIN_AFTER))
    assert store.polling.next_deadline_at() is None


def test_a_late_response_calls_only_hooks_that_store_files_again(
    store: Store, ingest: Ingest
) -> None:
    ingest.accept(sent(HALF))
    claimed = claim(store, NOW)
    deliver(store, claimed["archive"], NOW, "0")
    deliver(store, claimed["mail"], NOW)
    deliver(store, claim(store, NOW)["late"], NOW)
    ingest.accept(queried(WHOLE))
    again = claim(store, SOON)
    assert list(again) == ["archive"]
    assert len(urls(store, again["archive"])) == 2
    earlier = notice_source(store, again["archive"]).notice.made
    assert [file.media_index for file in earlier] == ["0"]  # only the other one is missing
    deliver(store, again["archive"], SOON, "1")
    assert claim(store, SOON + 3_600_000) == {}
    files = store.queries.history("task-1").files[again["archive"].id]
    assert [file.media_index for file in files] == ["0", "1"]


def test_a_late_response_without_more_outputs_calls_no_hook_again(
    store: Store, ingest: Ingest
) -> None:
    ingest.accept(sent(HALF))
    deliver(store, claim(store, NOW)["archive"], NOW, "0")
    ingest.accept(queried(HALF))
    assert "archive" not in claim(store, SOON)


@pytest.mark.parametrize("images", [[None], [{"index": 0, "url": ""}], {"0": "x"}, "none"])
def test_a_success_that_lost_all_outputs_does_not_count_until_queried(
    store: Store, ingest: Ingest, images: Any
) -> None:
    assert ingest.accept(sent(images)) is Outcome.CONFIRMING
    assert store.queries.task("task-1").status is Status.CREATED
    assert store.polling.next_deadline_at() == NOW
    assert ingest.accept(queried(WHOLE)) is Outcome.RECORDED
    assert store.polling.next_deadline_at() is None


@pytest.mark.parametrize(
    "odd",
    [
        {"updated_at": None},
        {"task_info": []},
        {"final_unit_deduction": []},
        {"task_result": {"images": [WHOLE[0]], "videos": {}}},
        {"task_result": {"images": [{**WHOLE[0], "watermark_url": 5}]}},  # type: ignore[dict-item]
        {"task_result": {"audios": [{"url_mp3": None, "url_wav": "https://cdn.example/a.wav"}]}},
    ],
)
def test_an_invalid_field_without_a_lost_output_causes_no_query(
    store: Store, ingest: Ingest, odd: dict[str, Any]
) -> None:
    assert ingest.accept(callback(body(**odd))) is Outcome.RECORDED
    assert store.polling.next_deadline_at() is None


def test_a_failure_is_not_queried_for_outputs(store: Store, ingest: Ingest) -> None:
    ingest.accept(callback(body("failed", task_result=[None])))
    assert store.polling.next_deadline_at() is None


def test_a_replayed_success_is_queried_now(store: Store, ingest: Ingest) -> None:
    store.inbox.quarantine(sent(HALF), "it could not be parsed")
    (quarantined,) = store.lists.callbacks()
    replay: Callable[[int], Outcome] = ingest.replay
    assert replay(quarantined.id) is Outcome.RECORDED
    deadline_at = store.polling.next_deadline_at()
    assert deadline_at is not None
    assert deadline_at > NOW
