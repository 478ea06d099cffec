"""Without callbacks, the poller's queries cause the same events and hooks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receiver.deliveries import State
from receiver.stores.sql.metrics import CALLBACKS_MISSED
from sandbox.server import Behaviour, Sandbox
from submitter import submit
from tests.support.installation import ROOT, Installation, both_stores
from tests.support.patience import PATIENCE

PERSON = str(ROOT / "sandbox/images/person.jpg")
GARMENT = str(ROOT / "sandbox/images/garment.png")
pytestmark = both_stores
HOOKS = dict.fromkeys(("pictures", "mail", "slack"), State.DELIVERED)


@pytest.fixture
def serving(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Web, worker, and a poller with short delays."""
    installation.environment["RECONCILE_AFTER"] = "1"
    for name, value in installation.environment.items():
        monkeypatch.setenv(name, value)
    installation.start("serve", "receiver", "serve", "--bind", f"127.0.0.1:{installation.port}")
    installation.wait_until_ready()
    return installation


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Providers that send no callbacks."""
    with Sandbox(behaviour=Behaviour(pace=0.3, callbacks=False)) as sandbox:
        yield sandbox


def test_without_callbacks_every_task_ends_and_every_hook_is_called(
    serving: Installation, sandbox: Sandbox
) -> None:
    tasks = [submit(name, PERSON, GARMENT) for name in ("kling", "modellix", "appypie")]
    for task in tasks:
        ended(serving, task.id)
        serving.settled(task.id)
        history = serving.store.queries.history(task.id)
        assert {delivery.hook: delivery.state for delivery in history.deliveries} == HOOKS
        assert (history.task.status, history.task.trust) == ("succeeded", "queried")
    assert sandbox.ledger.entries() == []
    missed = {
        c.provider: c.value for c in serving.store.metrics.counters() if c.name == CALLBACKS_MISSED
    }
    assert missed == {"kling": 1, "appypie": 1}  # Modellix has no callbacks that could be missed
    assert len(sandbox.mails()) == 3


def test_without_a_public_address_everything_works_too(
    installation: Installation, sandbox: Sandbox
) -> None:
    del installation.environment["PUBLIC_URL"]
    installation.start("serve", "receiver", "serve", "--bind", f"127.0.0.1:{installation.port}")
    installation.wait_until_ready()
    done = installation.run(
        *("submitter", "submit", "--human", PERSON, "--cloth", GARMENT),
        *("--wait", "--timeout", f"{PATIENCE:g}"),
    )
    assert done.returncode == 0, done.stderr
    (task,) = installation.store.lists.tasks()
    installation.settled(task.id)
    assert sandbox.ledger.entries() == []
    assert len(sandbox.mails()) == 1
    assert (
        installation.store.metrics.counters() == []
    )  # no callback was expected, so none was missed


def ended(installation: Installation, task: str) -> None:
    installation.wait_until(lambda: installation.store.queries.task(task).status.is_terminal)
