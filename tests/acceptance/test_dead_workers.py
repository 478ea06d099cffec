"""Another worker makes the deliveries of a dead one; a delivery that kills workers ends dead."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from receiver.clock import now_ms
from receiver.deliveries import Delivery, State
from receiver.delivery.attempt import LEASE
from receiver.ingest import Ingest
from sandbox.server import Sandbox
from tests.support.hook_servers import Page, Site
from tests.support.installation import SHORT_LEASES, Installation
from tests.support.patience import PATIENCE
from tests.support.samples import body, callback, subscription

ATTEMPTS = 4
SLOTS = 4
PATIENT = "6"  # seconds; a shorter lease can expire on a busy machine while its worker is alive
NEIGHBOURS = ("slack", "more", "third")  # the hook of each neighbour
HOOK = """
[[hook]]
name = "{name}"
type = "slack"
url = "{url}"
allow_private = true
"""


def write_hooks(installation: Installation, url: str, *names: str) -> None:
    hooks = "".join(HOOK.format(name=name, url=url) for name in names)
    (installation.folder / "hooks.toml").write_text(hooks)


def record(installation: Installation, task: str, hook: str = "slack") -> None:
    """Record a success of which the hook is notified."""
    raw = body(task_id=f"at-kling-{task}")
    Ingest(installation.store, [subscription(hook)]).accept(callback(raw, task))


def delivery(installation: Installation, task: str) -> Delivery:
    (found,) = installation.store.lists.deliveries(task_id=task)
    return found


def outcomes(installation: Installation, task: str) -> list[str]:
    history = installation.store.queries.history(task)
    return [attempt.outcome for row in history.attempts.values() for attempt in row]


def restart_until_dead(installation: Installation, task: str) -> list[int]:
    """Restart the worker whenever it ends, as every host does, and return its exit statuses."""
    ended: list[int] = []

    def is_dead() -> bool:
        status = installation.running["worker"].poll()
        if status is not None:
            ended.append(status)
            installation.start("worker", SHORT_LEASES, "receiver", "worker")
        return delivery(installation, task).state is State.DEAD

    installation.start("worker", SHORT_LEASES, "receiver", "worker")
    installation.wait_until(is_dead)
    return ended


@pytest.fixture
def installations(
    tmp_path: Path, sandbox: Sandbox, fresh: Callable[[], str]
) -> Iterator[list[Installation]]:
    """One installation for each store."""
    installations = []
    for name, database in (("sqlite", None), ("postgres", fresh())):
        (tmp_path / name).mkdir()
        installations.append(Installation(tmp_path / name, sandbox, database))
        installations[-1].migrate()
    yield installations
    for installation in installations:
        installation.close()


def side_by_side(
    act: Callable[[Installation], None], installations: Sequence[Installation]
) -> None:
    """Run both at the same time, because they mostly wait: for leases to expire and for retries."""
    with ThreadPoolExecutor(len(installations)) as pool:
        errors = [acted.exception() for acted in [pool.submit(act, one) for one in installations]]
    if found := [error for error in errors if error]:
        raise BaseExceptionGroup("not in every store", found)


def test_a_delivery_that_kills_each_worker_is_dead_after_its_attempts(
    installations: list[Installation],
) -> None:
    with Site() as site:
        site.pages["/slack"] = Page(b"ok")
        url = f"{site.url}/slack"
        side_by_side(lambda one: check_dead_after_its_attempts(one, url), installations)


def check_dead_after_its_attempts(installation: Installation, slack: str) -> None:
    """The worker's other deliveries are made: each is abandoned with the poison at most once."""
    names = [f"neighbour-{hook}" for hook in NEIGHBOURS]
    for task, hook in zip(names, NEIGHBOURS, strict=True):
        record(installation, task, hook)
    record(installation, "poison")
    installation.environment["WORKER_CONCURRENCY"] = str(SLOTS)
    installation.environment |= {"POISON": "poison", "ATTEMPTS": str(ATTEMPTS), "LEASE": PATIENT}
    write_hooks(installation, slack, *NEIGHBOURS)
    assert restart_until_dead(installation, "poison") == [-signal.SIGKILL] * ATTEMPTS
    assert outcomes(installation, "poison") == ["abandoned"] * ATTEMPTS

    record(installation, "after")  # the worker that made it dead continues
    for task in (*names, "after"):
        installation.settled(task)
        assert delivery(installation, task).state is State.DELIVERED
        assert outcomes(installation, task).count("abandoned") <= 1
    assert installation.running["worker"].poll() is None
    assert installation.stop("worker") == 0


def test_deliveries_of_a_killed_worker_are_made_by_the_next(
    installations: list[Installation], sandbox: Sandbox
) -> None:
    assert sandbox.slack_messages() == []
    url = f"{sandbox.url}/_sandbox/slack/test"
    side_by_side(lambda one: check_delivered_by_the_next(one, url), installations)
    assert len(sandbox.slack_messages()) == len(installations)


def check_delivered_by_the_next(installation: Installation, slack: str) -> None:
    record(installation, "task-1")
    installation.environment["POISON"] = "task-1"
    write_hooks(installation, slack, "slack")
    installation.start("worker", SHORT_LEASES, "receiver", "worker")
    assert installation.running.pop("worker").wait(PATIENCE) == -signal.SIGKILL
    assert delivery(installation, "task-1").state is State.CLAIMED

    del installation.environment["POISON"]
    installation.start("worker", "receiver", "worker")  # the working endpoint
    installation.settled("task-1")
    assert outcomes(installation, "task-1") == ["abandoned", "delivered"]


def test_a_killed_worker_occupies_the_concurrency_of_a_hook_only_until_its_lease_expires(
    installations: list[Installation], sandbox: Sandbox
) -> None:
    url = f"{sandbox.url}/_sandbox/slack/test"
    side_by_side(lambda one: check_concurrency(one, url), installations)


def check_concurrency(installation: Installation, slack: str) -> None:
    record(installation, "task-1")
    record(installation, "task-2")
    installation.environment["POISON"] = "task-1"
    write_hooks(installation, slack, "slack")
    with (installation.folder / "hooks.toml").open("a") as hooks:
        hooks.write("concurrency = 1\n")
    installation.start("worker", SHORT_LEASES, "receiver", "worker")
    assert installation.running.pop("worker").wait(PATIENCE) == -signal.SIGKILL
    lost, waiting = (delivery(installation, task) for task in ("task-1", "task-2"))
    assert (lost.state, waiting.state, waiting.attempts) == (State.CLAIMED, State.PENDING, 0)

    lease_until = now_ms() + LEASE  # as if it had renewed the lease before it was killed
    installation.store.outbox.renew([lost], lease_until)
    del installation.environment["POISON"]
    installation.start("worker", "receiver", "worker")
    for task in ("task-1", "task-2"):
        installation.settled(task)
    assert outcomes(installation, "task-1") == ["abandoned", "delivered"]
    (attempt,) = installation.store.queries.history("task-2").attempts[waiting.id]
    assert attempt.outcome == "delivered"
    assert attempt.started_at >= lease_until
