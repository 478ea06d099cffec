"""PostgreSQL stops under load: requests get 503, no acknowledged callback is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.deliveries import State
from sandbox.server import Sandbox
from tests.support.gunicorn_processes import raw, send
from tests.support.installation import SHORT_LEASES, Installation
from tests.support.patience import PATIENCE
from tests.support.postgres_server import Server, started

HOOKS = """
[[hook]]
name = "slack"
type = "slack"
url = "{url}"
allow_private = true
"""
SENDERS = 4
BETWEEN = 40  # acknowledged callbacks before and after


@pytest.fixture
def server() -> Iterator[Server]:
    with started(durable=True) as server:
        yield server


@pytest.fixture
def installation(tmp_path: Path, sandbox: Sandbox, server: Server) -> Iterator[Installation]:
    installation = Installation(tmp_path, sandbox, server.url)
    url = f"{sandbox.url}/_sandbox/slack/test"
    (tmp_path / "hooks.toml").write_text(HOOKS.format(url=url))
    installation.migrate()
    yield installation
    installation.close()


class Load:
    """Callbacks of new tasks, each sent again until it is acknowledged, as providers do."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self.answers: list[int] = []
        self.acknowledged: list[str] = []
        self.refused: set[int] = set()  # the senders that received a 503
        self.may_retry = threading.Event()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_on, args=(number,)) for number in range(SENDERS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.may_retry.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _send_on(self, sender: int) -> None:
        number = 0
        while not self._over.is_set():
            task = f"task-{sender}-{number}"
            status = send(self._installation, task).status_code
            self.answers.append(status)
            if status == 503:
                self.refused.add(sender)
                self.may_retry.wait(PATIENCE)
            if status == 200:
                self.acknowledged.append(task)
                number += 1


def all_have_noticed(installation: Installation) -> bool:
    """Return whether each process has logged that the record, or its queue, is unavailable."""
    logs = [installation.folder / f"{name}.log" for name in ("web", "worker", "poller")]
    return all(" is unavailable" in log.read_text() for log in logs)


@pytest.mark.parametrize("at_once", [True, False], ids=["crash", "restart"])
def test_no_acknowledged_callback_is_lost_and_all_processes_reconnect(
    installation: Installation, server: Server, at_once: bool
) -> None:
    installation.start_web()
    installation.start("worker", SHORT_LEASES, "receiver", "worker")
    installation.start("poller", SHORT_LEASES, "submitter", "reconcile", "--forever")
    installation.wait_until_ready()
    with Load(installation) as load:
        installation.wait_until(lambda: len(load.acknowledged) >= BETWEEN)
        server.stop(at_once=at_once)
        installation.wait_until(lambda: len(load.refused) == SENDERS)  # no request hangs
        installation.wait_until(lambda: all_have_noticed(installation))
        # before the server runs again, so that requests arrive while it starts
        load.may_retry.set()
        server.start()
        enough = len(load.acknowledged) + BETWEEN
        installation.wait_until(lambda: len(load.acknowledged) >= enough)
    assert set(load.answers) == {200, 503}  # no other status

    on_record = {task: installation.store.queries.history(task) for task in load.acknowledged}
    for task, history in on_record.items():
        assert [stored.callback.body for stored in history.callbacks] == [raw(task)]
    for task in on_record:
        installation.settled(task)
        (delivery,) = installation.store.lists.deliveries(task_id=task)
        assert delivery.state is State.DELIVERED
    # no process was restarted
    assert all(child.poll() is None for child in installation.running.values())
