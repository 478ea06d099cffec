"""Waiting for a task's end, by the record and by asking."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from receiver.deliveries import Subscription
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.settings import Settings
from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter.desk import Desk
from submitter.follow import Follower, wait_for_downloads
from submitter.orders import Order
from submitter.providers.kling import Kling
from submitter.record import Record
from tests.support.scripted_provider import IMAGES

ENDED = {"task_id": "867283741759111202", "task_status": "succeed", **IMAGES}


@pytest.fixture
def record(store: Store, ingest: Ingest, database: Path) -> Record:
    settings = Settings(f"sqlite:///{database}", ("a-callback-secret",))
    return Record(settings, store, ingest, frozenset())


@pytest.fixture
def task(desk: Callable[..., Desk], order: Order) -> Task:
    return desk().put_on_record(order)


def follower(record: Record, room: Kling, heard: list[str]) -> Follower:
    return Follower(
        record, room, lambda task: heard.append(task.status), heard.append, ask_every=0.05
    )


def test_where_no_callback_can_come_the_provider_is_asked(
    server: Any, record: Record, room: Callable[..., Kling], task: Task
) -> None:
    heard: list[str] = []
    server.will(server.task(), server.task(), server.task("processing"), server.task("succeed"))
    ended = follower(record, room(), heard).follow(task, timeout=10)
    assert ended.status is Status.SUCCEEDED
    assert heard == ["created", "submitted", "processing", "succeeded"]


def test_trouble_with_asking_is_told_once_and_does_not_end_the_wait(
    server: Any, record: Record, room: Callable[..., Kling], task: Task
) -> None:
    heard: list[str] = []
    no = server.say({"code": 1203, "message": "none", "request_id": "r"}, 404)
    server.will(no, no, no, server.task("failed"))
    assert follower(record, room(), heard).follow(task, timeout=10).status is Status.FAILED
    assert [line[:11] for line in heard] == ["created", "Kling 1203:", "failed"]


def test_where_callbacks_come_nobody_asks_before_the_task_is_overdue(
    server: Any,
    record: Record,
    room: Callable[..., Kling],
    desk: Callable[..., Desk],
    order: Order,
) -> None:
    server.will(server.task("succeed"))
    task = desk(public_url="https://x.example").put_on_record(order)
    assert follower(record, room(), []).follow(task, timeout=0.4).status is Status.CREATED
    assert server.asked == []
    late = Task("late", "kling", Status.CREATED, 1, 1, expects_callback=True, deadline_at=1)
    record.store.create_task(late)
    assert follower(record, room(), []).follow(late, timeout=10).status is Status.SUCCEEDED


def test_a_download_is_waited_for_but_not_for_ever(store: Store, task: Task) -> None:
    ends = frozenset({"succeeded"})
    subscriptions = [Subscription("pictures", ends), Subscription("mail", ends)]
    Ingest(store, subscriptions).accept(
        Callback("kling", task.id, json.dumps(ENDED).encode(), received_at=1)
    )
    ended = store.task(task.id)
    for hooks, low, high in ((frozenset({"pictures"}), 0.3, 2.0), (frozenset({"x"}), 0.0, 0.2)):
        began_at = time.monotonic()
        wait_for_downloads(store, hooks, ended, within=0.3)
        assert low <= time.monotonic() - began_at < high
