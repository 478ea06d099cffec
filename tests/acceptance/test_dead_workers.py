"""What a dead worker held is delivered by another; what kills each worker dies, not the worker."""

from __future__ import annotations

import signal
from pathlib import Path

from hook_servers import Page, Site
from installation import Installation, both_stores
from receiver.deliveries import Delivery, State
from receiver.ingest import Ingest
from samples import body, callback, subscription
from sandbox.server import Sandbox

ATTEMPTS = 4
NEIGHBOURS = 3
HOOKS = """
[[hook]]
name = "slack"
type = "slack"
url = "{url}"
allow_private = true
"""


def record(installation: Installation, task: str) -> None:
    """A success that the hook is told of."""
    raw = body(task_id=f"at-kling-{task}")
    Ingest(installation.store, [subscription("slack")]).accept(callback(raw, task))


def delivery(installation: Installation, task: str) -> Delivery:
    (found,) = installation.store.deliveries(task_id=task)
    return found


def outcomes(installation: Installation, task: str) -> list[str]:
    history = installation.store.history(task)
    return [attempt.outcome for row in history.attempts.values() for attempt in row]


def restart_until_dead(installation: Installation, task: str) -> list[int]:
    """Start the worker again whenever it ends, as every host does; the statuses it ended with."""
    ended: list[int] = []

    def is_dead() -> bool:
        status = installation.running["worker"].poll()
        if status is not None:
            ended.append(status)
            installation.start("worker", "tests.in_a_hurry", "receiver", "worker")
        return delivery(installation, task).state is State.DEAD

    installation.start("worker", "tests.in_a_hurry", "receiver", "worker")
    installation.wait_until(is_dead, 60)
    return ended


@both_stores
def test_a_delivery_that_kills_each_worker_dies_after_its_attempts(
    tmp_path: Path, installation: Installation
) -> None:
    names = [f"neighbour-{number}" for number in range(NEIGHBOURS)]
    for task in (*names, "poison"):
        record(installation, task)
    installation.environment |= {"POISON": "poison", "ATTEMPTS": str(ATTEMPTS)}
    with Site() as site:
        site.pages["/slack"] = Page(b"ok")
        (tmp_path / "hooks.toml").write_text(HOOKS.format(url=f"{site.url}/slack"))
        assert restart_until_dead(installation, "poison") == [-signal.SIGKILL] * ATTEMPTS
        assert outcomes(installation, "poison") == ["abandoned"] * ATTEMPTS

        record(installation, "after")  # the worker that buried it goes on
        for task in (*names, "after"):
            installation.settled(task)
            assert delivery(installation, task).state is State.DELIVERED
        assert installation.running["worker"].poll() is None
        assert installation.stop("worker") == 0


@both_stores
def test_what_a_killed_worker_held_is_delivered_by_the_next(
    tmp_path: Path, installation: Installation, sandbox: Sandbox
) -> None:
    assert sandbox.slack_messages() == []
    record(installation, "task-1")
    installation.environment["POISON"] = "task-1"
    (tmp_path / "hooks.toml").write_text(HOOKS.format(url=f"{sandbox.url}/_sandbox/slack/test"))
    installation.start("worker", "tests.in_a_hurry", "receiver", "worker")
    assert installation.running.pop("worker").wait(30) == -signal.SIGKILL
    assert delivery(installation, "task-1").state is State.CLAIMED

    del installation.environment["POISON"]
    installation.start("worker", "receiver", "worker")  # the real one
    installation.settled("task-1")
    assert outcomes(installation, "task-1") == ["abandoned", "delivered"]
    assert len(sandbox.slack_messages()) == 1
