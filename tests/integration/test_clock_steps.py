"""The effects of a clock step on users and on other parts of the product."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from procrastinate.periodic import PeriodicDeferrer, PeriodicRegistry

from receiver import clock
from receiver.cli import main
from receiver.config.settings import Settings
from receiver.deliveries import Attempt, State
from receiver.delivery import procrastinate as dispatch
from receiver.doctor import record
from receiver.doctor.findings import Verdict
from receiver.ingest import Ingest
from receiver.observability.metrics import DELIVERY_SECONDS, MetricBuffer, Sample
from receiver.processes.clock_watch import ClockWatch
from receiver.stores.postgres import PostgresStore
from receiver.stores.sqlite import SqliteStore
from receiver.web.dashboard.attention import attention
from receiver.web.health import CLOCK_WAS_SET
from tests.support.applications import MakeApp
from tests.support.machine import Machine
from tests.support.patience import wait_until
from tests.support.samples import SECRET, body, callback, subscription

HOUR, DAY = 3_600_000, 86_400_000  # ms


class Clock:
    """The machine's clock, set by a test; the time since boot is the real one."""

    def __init__(self) -> None:
        self.real, self.by_ms = time.time_ns, 0

    def time_ns(self) -> int:
        return self.real() + self.by_ms * 1_000_000


API_TOKEN = "a-token-for-the-tests"
ALLOWED = {"Authorization": f"Bearer {API_TOKEN}"}


@pytest.fixture
def machine_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr("time.time_ns", made.time_ns)
    monkeypatch.setattr("time.time", lambda: made.time_ns() / 1e9)
    yield made
    clock.follow(None)


@pytest.fixture
def app(
    make_app: MakeApp, tmp_path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> Flask:
    store.check_schema()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.toml"))
    (tmp_path / "hooks.toml").write_text(
        '[[hook]]\nname = "mail"\ntype = "slack"\nurl = "https://hooks.example/x"\n'
    )
    return make_app(
        Settings(
            database_url=f"sqlite:///{tmp_path / 'receiver.db'}",
            callback_secrets=(SECRET,),
            hooks_file=tmp_path / "hooks.toml",
            api_token=API_TOKEN,
        )
    )


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def fail_once(store: SqliteStore, delay: int) -> None:
    now = clock.now_ms()
    Ingest(store, [subscription("mail")]).accept(callback(body(), received_at=now))
    (delivery,) = store.outbox.claim("w", now, now + 10_000, 1)
    store.outbox.settle(delivery, Attempt(1, now, now, "failed", "no"), State.PENDING, now + delay)


# -- visible to users


def test_readyz_corrects_a_step_or_reports_that_it_is_not_corrected(
    app: Flask, machine_clock: Clock, monkeypatch: pytest.MonkeyPatch, store: SqliteStore
) -> None:
    client = app.test_client()
    assert "clock" not in client.get("/readyz").text
    machine_clock.by_ms = -HOUR
    with monkeypatch.context() as broken:
        broken.setattr(ClockWatch, "look", lambda _: None)  # as if correction were impossible
        document: Any = client.get("/readyz", headers=ALLOWED).json
        assert document["clock"] == "the clock was set back by 3600 s"
        assert client.get("/readyz").json == {"status": "ok", "clock": CLOCK_WAS_SET}
    wait_until(lambda: "clock" not in client.get("/readyz").text)  # it checks once a second
    assert len(store.clocks.clock_steps(0)) == 1


def test_a_worker_last_seen_in_the_future_is_not_running(
    app: Flask, machine_clock: Clock, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.activity.heartbeat("host:1", "worker", clock.now_ms())
    machine_clock.by_ms = -HOUR
    monkeypatch.setattr(ClockWatch, "look", lambda _: None)
    document: Any = app.test_client().get("/readyz", headers=ALLOWED).json
    assert document["worker_seen"] is False
    found = {one.check: one for one in record.processes(store, clock.now_ms())}
    assert found["worker"].verdict is Verdict.WARNING
    assert found["worker"].said.startswith("none was seen since the clock was set back")


def test_a_step_is_shown_for_a_day(store: SqliteStore) -> None:
    machine = Machine(clock.now_ms())
    watch = machine.watch(store)
    watch.look()
    machine.set_clock(-HOUR)
    watch.look()
    for at, shown in ((machine.shown, True), (machine.shown + 2 * DAY, False)):
        texts = [one.text for one in attention(store, (), at) if "clock" in one.text]
        findings = [one.said for one in record.clock_steps(store, at)]
        assert bool(texts) is bool(findings) is shown
    assert record.CLOCK == "clock"


def test_a_step_that_was_undone_is_not_shown_for_ever(store: SqliteStore) -> None:
    machine = Machine(clock.now_ms())
    watch = machine.watch(store)
    watch.look()
    for by in (365 * DAY, -365 * DAY):
        machine.set_clock(by)
        watch.look()
    machine.wait(2 * DAY)
    assert [one for one in attention(store, (), machine.shown) if "clock" in one.text] == []


@pytest.mark.usefixtures("app")
def test_resume_makes_retries_due_although_the_clock_is_behind(
    machine_clock: Clock, store: SqliteStore
) -> None:
    fail_once(store, 8 * HOUR)
    machine_clock.by_ms = -HOUR
    assert run("endpoints", "pause", "mail").exit_code == 0
    done = run("endpoints", "resume", "mail")
    assert done.output == "mail receives deliveries again\ndeliveries that are due now: 1\n"
    assert len(store.outbox.claim("w", clock.now_ms(), clock.now_ms() + HOUR, 1)) == 1
    assert run("endpoints", "resume", "mail").output == "mail was not paused\n"


@pytest.mark.usefixtures("app")
def test_prune_says_why_it_keeps_data_for_longer(store: SqliteStore) -> None:
    machine = Machine(clock.now_ms() - 40 * DAY)
    watch = machine.watch(store)
    watch.look()
    Ingest(store, []).accept(callback(body(), received_at=machine.shown))
    machine.set_clock(40 * DAY)
    watch.look()
    done = run("prune", "--older-than", "30d")
    assert "the clock was set forward by 3456000 s" in done.stderr
    assert "erased 0 messages" in done.stdout


# -- other parts


def test_a_duration_is_never_negative() -> None:
    meter, kept = MetricBuffer("worker"), list[Sample]()
    meter.observe(DELIVERY_SECONDS, -3_600.0, "mail")
    meter.flush(lambda added, _: kept.extend(added))
    assert all(reading.value >= 0 for reading in kept)
    assert Attempt(1, HOUR, 5, "delivered", "ok").duration_ms == 0


def test_a_process_follows_the_clock_of_its_database_server(
    fresh: Callable[[], str], machine_clock: Clock
) -> None:
    store = PostgresStore(fresh())
    machine_clock.by_ms = -HOUR  # only this machine's clock is wrong
    ClockWatch(store).look()
    apart = clock.now_ms() - clock.wall_ms()
    assert HOUR - 60_000 < apart < HOUR + 60_000
    finding = next(record.clock_steps(store, clock.now_ms()))
    assert "behind the database server's" in finding.said
    store.close()


@pytest.mark.parametrize("by_s", [-3_600, 3_600, -86_400 * 400, 86_400 * 400])
def test_periodic_jobs_go_on_once_each_after_the_clock_was_set(
    monkeypatch: pytest.MonkeyPatch, by_s: int
) -> None:
    registry = PeriodicRegistry()  # type: ignore[no-untyped-call]
    task = dispatch.StepProofTask(None, "* * * * * */5", "", {})  # type: ignore[arg-type]
    registry.periodic_tasks["sweep", ""] = task
    deferrer = PeriodicDeferrer(registry)
    now = datetime(2026, 11, 28, 12, 0, 1, tzinfo=UTC).timestamp()
    ticks = []
    for seconds in range(0, 60, 5):
        at = now + seconds + (by_s if seconds >= 30 else 0)
        monkeypatch.setattr("time.time", lambda at=at: at)
        ticks.append([tick for _, tick in deferrer.get_previous_tasks(at)])
    assert all(1 <= len(found) <= 3 for found in ticks)
    assert all(found[-1] == found[-1] // 5 * 5 for found in ticks)
