"""After SIGKILL of web, worker and poller under load, each acknowledged callback is on record once.

Each process is killed in at least five rounds; with CI=true in up to a hundred, for 90 seconds.
With SQLite there is one process of each kind; with PostgreSQL there are two web and two worker
processes.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from receiver.deliveries import State
from receiver.events import Source
from receiver.stores.sql.queries import TaskHistory
from sandbox.callback_sender import Persistence
from sandbox.ledger import LedgerEntry
from sandbox.server import Behaviour, Sandbox
from submitter import submit
from tests.support.balancer import Balancer
from tests.support.installation import SHORT_LEASES, Installation, both_stores
from tests.support.patience import wait_until
from tests.support.ports import free_port

FEWEST, MOST = (10, 100) if os.environ.get("CI") == "true" else (5, 5)  # rounds
LONGEST = 90.0  # seconds of killing, once there were enough rounds
STREAMS = 3  # streams of submissions at the same time
EVERYTHING = 10_000
WORKER = (SHORT_LEASES, "receiver", "worker")
POLLER = (SHORT_LEASES, "submitter", "reconcile", "--forever")


class Machines:
    """Every process that may be killed, with the command that starts it."""

    def __init__(self, installation: Installation, *, several: bool) -> None:
        self._installation = installation
        self._web = {"web": installation.port}
        self._others = {"worker": WORKER, "poller": POLLER}
        if several:
            self._web["web-2"] = free_port()
            self._others["worker-2"] = WORKER
        self.names = [*self._web, *self._others]
        self.ports = list(self._web.values())

    def start(self, name: str) -> None:
        if name in self._web:
            self._installation.start_web_at(name, self._web[name])
        else:
            self._installation.start(name, *self._others[name])

    def kill_all_in_turn(self, chance: random.Random) -> None:
        """Kill each process once, at a bad moment: a worker, for example, during an attempt."""
        for name in chance.sample(self.names, len(self.names)):
            self._wait_for_callbacks(chance.randrange(4))
            if self._others.get(name) == WORKER:
                self._installation.wait_until(self._is_attempting)
            self._installation.kill(name)
            if list(self._web) == [name]:
                self._wait_for_a_callback_without_a_server()
            self.start(name)

    def _wait_for_callbacks(self, count: int) -> None:
        ledger = self._installation.sandbox.ledger
        enough = len(ledger.entries()) + count
        self._installation.wait_until(lambda: len(ledger.entries()) >= enough)

    def _wait_for_a_callback_without_a_server(self) -> None:
        ledger = self._installation.sandbox.ledger
        before = len(ledger.entries())  # their numbers begin with 1
        self._installation.wait_until(
            lambda: any(entry.error for entry in ledger.entries() if entry.number > before)
        )

    def _is_attempting(self) -> bool:
        return bool(self._installation.store.lists.deliveries(state=State.CLAIMED, limit=1))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A provider that sends each callback again until it is acknowledged."""
    insistent = Persistence(retries=1_000, retry_after=0.3)
    with Sandbox(behaviour=Behaviour(pace=0.5, max_running=100, persistence=insistent)) as sandbox:
        yield sandbox


@pytest.fixture
def machines(installation: Installation, database: str | None) -> Machines:
    return Machines(installation, several=database is not None)


@pytest.fixture
def balancer(machines: Machines) -> Iterator[Balancer]:
    with Balancer(machines.ports) as balancer:
        yield balancer


def submit_until(
    over: threading.Event,
    installation: Installation,
    pictures: tuple[str, str],
    seed: int,
    mails: set[str],
) -> list[str]:
    """Keep a task running, and return all tasks. The ids of the mails are added to `mails`.

    Some send callbacks twice, some are found by the poller.
    """
    chance = random.Random(seed)  # noqa: S311 - random variation, not a secret
    tasks: list[str] = []

    def may_go_on() -> bool:
        mails.update(message_ids(installation.sandbox))
        return over.is_set() or installation.store.queries.task(tasks[-1]).status.is_terminal

    while not over.is_set():
        installation.sandbox.next("kling", chance.choice(["succeed", "duplicates", "silent"]))
        tasks.append(submit("kling", *pictures).id)
        wait_until(may_go_on)
    return tasks


def kill_in_flight(installation: Installation, machines: Machines) -> int:
    """Return the number of rounds."""
    chance = random.Random()  # noqa: S311 - random variation, not a secret
    end = time.monotonic() + LONGEST
    for finished in range(MOST):
        if finished >= FEWEST and time.monotonic() > end:
            return finished
        installation.wait_until_ready()
        machines.kill_all_in_turn(chance)
    return MOST


def message_ids(sandbox: Sandbox) -> set[str]:
    return {mail.headers["message-id"] for mail in sandbox.mails()}


def everything_ended(installation: Installation, mails: set[str]) -> bool:
    mails.update(message_ids(installation.sandbox))
    tasks = installation.store.lists.tasks(limit=EVERYTHING)
    deliveries = installation.store.lists.deliveries(limit=EVERYTHING)
    return all(task.status.is_terminal for task in tasks) and all(
        delivery.state in (State.DELIVERED, State.DEAD) for delivery in deliveries
    )


@both_stores
def test_every_acknowledged_callback_is_on_record_once(
    installation: Installation,
    sandbox: Sandbox,
    balancer: Balancer,
    machines: Machines,
    small_pictures: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installation.environment |= {"RECONCILE_AFTER": "2", "PUBLIC_URL": balancer.url}
    if len(machines.ports) > 1:  # each machine has one web process; both are started often
        installation.environment["WEB_CONCURRENCY"] = "1"
    for name, value in installation.environment.items():
        monkeypatch.setenv(name, value)
    for name in machines.names:
        machines.start(name)
    over = threading.Event()
    mails: set[str] = (
        set()
    )  # collected continuously, because the sandbox stores only the newest mails
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [
            pool.submit(submit_until, over, installation, small_pictures, seed, mails)
            for seed in range(STREAMS)
        ]
        try:
            rounds = kill_in_flight(installation, machines)
        finally:
            over.set()
        tasks = [task for stream in streams for task in stream.result()]
    print(f"{rounds} rounds of kills of {machines.names}, {len(tasks)} tasks")
    assert rounds >= FEWEST
    installation.wait_until(lambda: everything_ended(installation, mails))

    acknowledged = sandbox.ledger.acknowledged()  # according to the provider
    assert len(acknowledged) > len(tasks)
    histories = {task: installation.store.queries.history(task) for task in tasks}
    check_acknowledged_callbacks(histories, acknowledged)
    check_transitions(histories)
    check_deliveries(histories, mails | message_ids(sandbox))
    check_that_kills_had_an_effect(histories, sandbox)


def check_acknowledged_callbacks(
    histories: dict[str, TaskHistory], acknowledged: list[LedgerEntry]
) -> None:
    stored_bodies = {
        (task, hashlib.sha256(stored.callback.body).hexdigest())
        for task, history in histories.items()
        for stored in history.callbacks
        if stored.callback.source is Source.CALLBACK
    }
    lost = [e for e in acknowledged if (e.external_task_id, e.body_sha256) not in stored_bodies]
    assert lost == []


def check_transitions(histories: dict[str, TaskHistory]) -> None:
    """A query may skip `submitted` or `processing`, but nothing skips the final status."""
    for history in histories.values():
        moves = Counter(move.status for move in history.transitions)
        assert set(moves.values()) == {1}
        assert {"created", "succeeded"} <= moves.keys()
        assert moves.keys() <= {"created", "submitted", "processing", "succeeded"}


def check_deliveries(histories: dict[str, TaskHistory], mails: set[str]) -> None:
    for history in histories.values():
        states = {delivery.hook: delivery.state for delivery in history.deliveries}
        assert states == dict.fromkeys(("pictures", "mail", "slack"), State.DELIVERED)
        assert len(history.deliveries) == len(states)
    assert len(mails) == len(histories)  # a mail that was sent twice has one message id


def check_that_kills_had_an_effect(histories: dict[str, TaskHistory], sandbox: Sandbox) -> None:
    """Otherwise, the test would prove nothing."""
    assert any(not entry.acknowledged for entry in sandbox.ledger.entries())
    attempts = [
        a for history in histories.values() for row in history.attempts.values() for a in row
    ]
    assert any(attempt.outcome == "abandoned" for attempt in attempts)
    sources = {s.callback.source for history in histories.values() for s in history.callbacks}
    assert Source.QUERY in sources
