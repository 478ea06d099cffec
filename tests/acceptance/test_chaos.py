"""In every scenario of the sandbox, each task ends as it did at the provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.deliveries import State
from receiver.events import Source
from receiver.stores.sql.queries import TaskHistory
from receiver.stores.sql.rows import StoredCallback
from receiver.tasks import Outcome, Status
from sandbox.callback_sender import Persistence
from sandbox.scenarios.scenario import playable
from sandbox.server import Behaviour, Sandbox
from submitter import submit
from tests.support.installation import Installation, both_stores

SECRET = "whsec_c2FuZGJveC1vZi10aGUtdGVzdHMtMjRi"
# this scenario is tested by the submitter's tests, because it sends no callback
REFUSED_CREATE = {"busy"}
FAILS = {"failed", "new-dialect-failed"}
DEAD_PICTURE = {"huge-result"}
# Retried for half a day, because a text instead of a picture may be an outage of the storage.
LATE_PICTURE = {
    "missing-result",
    "slow-result",
    "not-a-picture",
    "half-result",
    "cut-short-result",
    "overloaded-result",
    "error-code",
    "json-result",
    "svg-result",
    "utf-16-result",
    "broken-result",
    "short-result",
}
SCENARIOS = [one.name for one in playable("kling", signs=True) if one.name not in REFUSED_CREATE]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    persistence = Persistence(retries=20, retry_after=0.3)
    behaviour = Behaviour(
        0.3, max_running=len(SCENARIOS), webhook_secret=SECRET, persistence=persistence
    )
    with Sandbox(behaviour=behaviour) as sandbox:
        yield sandbox


@pytest.fixture
def installation(tmp_path: Path, sandbox: Sandbox, database: str | None) -> Iterator[Installation]:
    installation = Installation(tmp_path, sandbox, database)
    installation.environment["RECONCILE_AFTER"] = "4"
    hooks = (tmp_path / "hooks.toml").read_text()
    limits = 'type = "download"\ndeadline = 10\nmax_bytes = 5_000_000'
    hooks = hooks.replace('type = "download"', limits)
    for type_ in ('type = "email"', 'type = "slack"'):
        hooks = hooks.replace(type_, f'{type_}\nwait_for_files = "2s"')
    (tmp_path / "hooks.toml").write_text(hooks)
    installation.migrate()
    yield installation
    installation.close()


def is_settled(history: TaskHistory, scenario: str) -> bool:
    """Return whether the task, and each delivery that does not wait for a late picture, ended."""
    if not history.task.status.is_terminal:
        return False
    over = (State.DELIVERED, State.DEAD)
    late = {"pictures"} if scenario in LATE_PICTURE else set()
    expected = [one for one in history.deliveries if one.hook not in late]
    return bool(expected) and all(one.state in over for one in expected)


@both_stores
def test_every_task_ends_as_it_did_at_the_provider(
    installation: Installation,
    sandbox: Sandbox,
    small_pictures: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installation.start_web()
    installation.start("worker", "receiver", "worker")
    installation.start("poller", "submitter", "reconcile", "--forever")
    installation.wait_until_ready()
    for name, value in installation.environment.items():
        monkeypatch.setenv(name, value)
    tasks = {}
    for scenario in SCENARIOS:
        sandbox.next("kling", scenario)
        tasks[scenario] = submit("kling", *small_pictures, reference=scenario).id
    store = installation.store
    for scenario, task in tasks.items():
        installation.wait_until(
            lambda task=task, scenario=scenario: is_settled(store.queries.history(task), scenario)  # type: ignore[misc]
        )
    histories = {scenario: store.queries.history(task) for scenario, task in tasks.items()}

    ends = {scenario: history.task.status for scenario, history in histories.items()}
    assert ends == {
        scenario: Status.FAILED if scenario in FAILS else Status.SUCCEEDED for scenario in ends
    }
    for scenario, history in histories.items():
        moves = [move.status for move in history.transitions]
        assert len(set(moves)) == len(moves), scenario  # each once, however often it was sent
        assert all(len(attempts) for attempts in history.attempts.values())
        assert all(
            delivery.state is State.DELIVERED
            for delivery in history.deliveries
            if delivery.hook != "pictures"
        ), scenario
    pictures = {
        scenario: delivery.state
        for scenario, history in histories.items()
        for delivery in history.deliveries
        if delivery.hook == "pictures"
    }
    for scenario, state in pictures.items():
        expected = State.DEAD if scenario in DEAD_PICTURE else State.DELIVERED
        assert state is expected or scenario in LATE_PICTURE, (scenario, state)

    odd = [one for one in histories["odd-fields"].callbacks if b"Infinity" in one.callback.body]
    assert len(odd) == 3
    for one in odd:
        assert one.outcome is not Outcome.QUARANTINED
        assert "updated_at" in (one.problem or "")
    two = [file for files in histories["second-missing"].files.values() for file in files]
    assert [file.media_index for file in two] == ["0", "1"]
    for scenario in ("compressed", "odd-encoding", "altered-url", "probed", "console-test"):
        assert len(called_back(histories[scenario])) == 3, scenario
        assert Outcome.QUARANTINED not in outcomes(histories[scenario]), scenario
    packed = called_back(histories["compressed"])
    codings = [one.callback.headers["Content-Encoding"] for one in packed]
    assert codings == ["deflate", "deflate", "gzip"]
    oversized = [one.outcome for one in called_back(histories["oversized"])]
    assert len(oversized) == 6
    assert oversized.count(Outcome.QUARANTINED) == 3  # bodies that are too long after decompression
    tests = [one for one in store.lists.callbacks(limit=1000) if one.callback.task_id is None]
    assert [(one.outcome, one.repeats) for one in tests] == [(Outcome.QUARANTINED, 2)]
    (downloaded,) = [one for one in histories["lost-output"].deliveries if one.hook == "pictures"]
    assert len(histories["lost-output"].files[downloaded.id]) == 2
    foreign = [one.problem for one in histories["foreign-message"].callbacks if one.problem]
    assert any("a message of Replicate" in problem for problem in foreign)
    all_outcomes = {one for history in histories.values() for one in outcomes(history)}
    assert all_outcomes >= {
        Outcome.DUPLICATE,
        Outcome.STALE,
        Outcome.CONFLICT,
        Outcome.MISMATCH,
        Outcome.QUARANTINED,
    }
    assert outcomes_of_another_task(histories["shared-callback-url"]) == [Outcome.MISMATCH] * 3
    assert histories["succeed-then-failed"].task.conflict
    reasons = {rejection.reason.split(":")[0] for rejection in store.activity.rejections(1000)}
    assert any("token" in reason for reason in reasons)
    assert any("after decompression" in reason for reason in reasons)
    assert any("The body has more than" in reason for reason in reasons)


def called_back(history: TaskHistory) -> list[StoredCallback]:
    """Return the callbacks of the task in order."""
    return [one for one in history.callbacks if one.callback.source is Source.CALLBACK]


def outcomes(history: TaskHistory) -> set[Outcome]:
    return {Outcome.DUPLICATE if stored.repeats else stored.outcome for stored in history.callbacks}


def outcomes_of_another_task(history: TaskHistory) -> list[Outcome]:
    mine = f'"{history.task.provider_task_id}"'.encode()
    return [one.outcome for one in history.callbacks if mine not in one.callback.body]
