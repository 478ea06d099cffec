"""SIGKILL of web and worker with work in flight: what was acknowledged is on record, once."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from installation import ROOT, Installation
from receiver.deliveries import State
from receiver.events import Source
from receiver.stores.base import TaskHistory
from sandbox.callbacks import Persistence
from sandbox.server import Behaviour, Sandbox
from submitter import submit

TASKS = 20
KILLS = 5
PERSON = str(ROOT / "sandbox/images/person.jpg")
GARMENT = str(ROOT / "sandbox/images/garment.png")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A provider that insists: a callback is sent again until it is acknowledged."""
    insistent = Persistence(retries=100, retry_after=0.3)
    with Sandbox(behaviour=Behaviour(pace=0.8, max_running=TASKS, persistence=insistent)) as made:
        yield made


def kill_in_flight(installation: Installation) -> None:
    """Kill the web process at random moments, and the worker while it holds deliveries."""
    chance = random.Random(7)  # noqa: S311 - to repeat a run, not to keep a secret
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.1, 0.5))
        installation.kill("web")
        time.sleep(0.2)  # so that callbacks find nobody
        installation.start_web()
        end = time.monotonic() + 2
        while not installation.store.deliveries(state=State.CLAIMED) and time.monotonic() < end:
            time.sleep(0.002)
        installation.kill("worker")
        installation.start("worker", "receiver", "worker")


def everything_ended(installation: Installation) -> bool:
    tasks = installation.store.tasks(limit=1000)
    deliveries = installation.store.deliveries(limit=1000)
    return all(task.status.is_terminal for task in tasks) and all(
        delivery.state in (State.DELIVERED, State.DEAD) for delivery in deliveries
    )


@pytest.mark.timeout(180)
def test_what_was_acknowledged_is_on_record_once(
    installation: Installation, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.start_web()
    installation.start("worker", "receiver", "worker")
    installation.wait_until_ready()
    for name, value in installation.environment.items():
        monkeypatch.setenv(name, value)
    sandbox.next("kling", "duplicates", TASKS // 2)
    with ThreadPoolExecutor(5) as pool:
        killer = pool.submit(kill_in_flight, installation)
        tasks = list(pool.map(lambda _: submit("kling", PERSON, GARMENT), range(TASKS)))
        killer.result()

    end = time.monotonic() + 120
    while not everything_ended(installation):
        assert time.monotonic() < end, f"not everything ended:\n{installation.logs()}"
        time.sleep(0.2)

    histories = {task.id: installation.store.history(task.id) for task in tasks}
    every_acknowledged_callback_is_on_record(histories, sandbox)
    every_transition_is_recorded_once(histories)
    every_hook_was_told(histories, sandbox)
    the_kills_hit_something(histories, sandbox)


def every_acknowledged_callback_is_on_record(
    histories: dict[str, TaskHistory], sandbox: Sandbox
) -> None:
    acknowledged = sandbox.ledger.acknowledged()
    assert len(acknowledged) >= 3 * TASKS  # the ledger's word, not ours
    kept = {
        (task, hashlib.sha256(stored.callback.body).hexdigest())
        for task, history in histories.items()
        for stored in history.callbacks
        if stored.callback.source is Source.CALLBACK
    }
    lost = [e for e in acknowledged if (e.external_task_id, e.body_sha256) not in kept]
    assert lost == []


def every_transition_is_recorded_once(histories: dict[str, TaskHistory]) -> None:
    for history in histories.values():
        moves = Counter(move.status for move in history.transitions)
        assert set(moves.values()) == {1}
        assert moves.keys() == {"created", "submitted", "processing", "succeeded"}


def every_hook_was_told(histories: dict[str, TaskHistory], sandbox: Sandbox) -> None:
    for history in histories.values():
        states = {delivery.hook: delivery.state for delivery in history.deliveries}
        assert states == dict.fromkeys(("pictures", "mail", "slack"), State.DELIVERED)
    mails = {mail.headers["message-id"] for mail in sandbox.mails()}
    assert len(mails) == TASKS  # a mail that was sent twice has one identity


def the_kills_hit_something(histories: dict[str, TaskHistory], sandbox: Sandbox) -> None:
    """Else the test would have shown nothing."""
    assert any(not entry.acknowledged for entry in sandbox.ledger.entries())
    attempts = [
        a for history in histories.values() for row in history.attempts.values() for a in row
    ]
    assert any(attempt.outcome == "abandoned" for attempt in attempts)
