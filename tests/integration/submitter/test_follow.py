"""Waiting for the end of a task, by its record and by queries."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from receiver.config.hooks_file import HooksPath
from receiver.config.settings import Settings
from receiver.deliveries import Attempt, State, Subscription
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.processes.current_hooks import CurrentHooks
from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter.follow import Follower, wait_for_downloads
from submitter.pictures.inputs import TryOnInputs
from submitter.providers.kling import Kling
from submitter.session import Session
from submitter.task_creation import TaskCreator
from tests.support.patience import PATIENCE
from tests.support.scripted_provider import IMAGES

ENDED = {"task_id": "867283741759111202", "task_status": "succeed", **IMAGES}


@pytest.fixture
def record(store: Store, ingest: Ingest, database: Path) -> Session:
    settings = Settings(f"sqlite:///{database}", ("a-callback-secret",))
    return Session(settings, store, ingest, frozenset(), CurrentHooks(HooksPath(), "", ()))


@pytest.fixture
def task(make_creator: Callable[..., TaskCreator], inputs: TryOnInputs) -> Task:
    return make_creator().record_task(inputs)


def follower(record: Session, adapter: Kling, heard: list[str], **more: Any) -> Follower:
    return Follower(
        record,
        adapter,
        lambda task: heard.append(task.status),
        heard.append,
        query_every=0.05,
        **more,
    )


class Time:
    """A clock that advances while a commit is waited for."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.meanwhile: list[Callable[[], object]] = []  # the events of the next waits
        monkeypatch.setattr(store.database, "wait_for_commit", self.wait)

    def wait(self, seconds: float, _: threading.Event) -> None:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        self.now += seconds

    def clock(self) -> float:
        return self.now


def test_without_callbacks_the_provider_is_queried(
    server: Any, record: Session, make_adapter: Callable[..., Kling], task: Task
) -> None:
    heard: list[str] = []
    server.will(server.task(), server.task(), server.task("processing"), server.task("succeed"))
    ended = follower(record, make_adapter(), heard).follow(task, timeout=PATIENCE)
    assert ended.status is Status.SUCCEEDED
    assert heard == ["created", "submitted", "processing", "succeeded"]


def test_failed_queries_are_reported_once_and_do_not_end_the_wait(
    server: Any, record: Session, make_adapter: Callable[..., Kling], task: Task
) -> None:
    heard: list[str] = []
    no = server.say({"code": 1203, "message": "none", "request_id": "r"}, 404)
    server.will(no, no, no, server.task("failed"))
    assert (
        follower(record, make_adapter(), heard).follow(task, timeout=PATIENCE).status
        is Status.FAILED
    )
    assert [line[:11] for line in heard] == ["created", "Kling 1203:", "failed"]


def test_with_callbacks_the_provider_is_queried_only_when_the_task_is_overdue(
    server: Any,
    record: Session,
    make_adapter: Callable[..., Kling],
    make_creator: Callable[..., TaskCreator],
    inputs: TryOnInputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.will(server.task("succeed"))
    task = make_creator(public_url="https://x.example").record_task(inputs)
    with monkeypatch.context() as patch:
        time = Time(record.store, patch)
        following = follower(record, make_adapter(), [], clock=time.clock)
        assert following.follow(task, timeout=60).status is Status.CREATED
        assert 60 <= time.now < 61
    assert server.asked == []
    late = Task("late", "kling", Status.CREATED, 1, 1, expects_callback=True, deadline_at=1)
    record.store.inbox.create_task(late)
    assert (
        follower(record, make_adapter(), []).follow(late, timeout=PATIENCE).status
        is Status.SUCCEEDED
    )


def test_a_download_is_waited_for_with_a_limit(
    store: Store, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = frozenset({"succeeded"})
    subscriptions = [Subscription("pictures", ends), Subscription("mail", ends)]
    Ingest(store, subscriptions).accept(
        Callback("kling", task.id, json.dumps(ENDED).encode(), received_at=1)
    )
    ended = store.queries.task(task.id)
    time = Time(store, monkeypatch)
    wait_for_downloads(store, frozenset({"x"}), ended, timeout=PATIENCE, clock=time.clock)
    assert time.now == 0
    pictures = frozenset({"pictures"})
    wait_for_downloads(store, pictures, ended, timeout=PATIENCE, clock=time.clock)
    assert PATIENCE <= time.now < PATIENCE + 1

    def deliver() -> None:
        for delivery in store.outbox.claim("w", 2, 10**15, 5):
            store.outbox.settle(
                delivery, Attempt(1, 2, 3, "delivered", "saved"), State.DELIVERED, None
            )

    time.now, time.meanwhile = 0.0, [deliver]
    wait_for_downloads(store, pictures, ended, timeout=PATIENCE, clock=time.clock)
    assert 0 < time.now < 1
