"""`/metrics`: counters and values of the record, for requests with the token."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.deliveries import Attempt, File, Notice, State
from receiver.delivery.attempt import DeliveryWorker
from receiver.delivery.worker_slots import WorkerSlots
from receiver.endpoints import Limits, Rate
from receiver.errors import TemporaryFailure
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.observability import metrics
from receiver.observability.metrics import MetricBuffer, Sample
from receiver.outgoing.retry import RetryPolicy
from receiver.signing.callback_urls import mint
from receiver.stores.sql.metrics import Metrics
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from tests.support.applications import MakeApp
from tests.support.attempts import make_attempt
from tests.support.samples import SECRET, body, callback, subscription

TOKEN = "a-token-for-the-tests"
NOW = 1_765_519_851_000
AUTH = {"Authorization": f"Bearer {TOKEN}"}
PREFIX = metrics.PREFIX


@pytest.fixture
def app(tmp_path: Path, store: SqliteStore, make_app: MakeApp) -> Flask:
    store.check_schema()
    (tmp_path / "hooks.toml").write_text(
        '[[hook]]\nname = "mail"\ntype = "command"\ncommand = ["true"]\n'
    )
    return make_app(
        Settings(
            f"sqlite:///{tmp_path / 'receiver.db'}",
            (SECRET,),
            hooks_file=tmp_path / "hooks.toml",
            api_token=TOKEN,
        )
    )


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def scraped(client: FlaskClient) -> dict[str, float]:
    """Return every sample as `name{label=value,…}`, without the prefix."""
    answer = client.get("/metrics", headers=AUTH)
    assert answer.status_code == 200
    assert answer.mimetype == "text/plain"
    found = {}
    for family in text_string_to_metric_families(answer.get_data(as_text=True)):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name.removeprefix(PREFIX)}{{{labels}}}"] = sample.value
    return found


def send(client: FlaskClient, raw: bytes, task: str = "task-1", token: str | None = None) -> int:
    path = f"/callbacks/kling/{task}/{token or mint(SECRET, 'kling', task)}"
    return client.post(path, data=raw, content_type="application/json").status_code


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}])
def test_metrics_require_the_token(client: FlaskClient, header: dict[str, str]) -> None:
    assert client.get("/metrics", headers=header).status_code == 401


def test_all_exported_metrics_are_declared(client: FlaskClient) -> None:
    text = client.get("/metrics", headers=AUTH).get_data(as_text=True)
    lines = [line.split() for line in text.splitlines() if line.startswith("# TYPE")]
    assert {(name, kind) for _, _, name, kind in lines} == {
        (one.family, one.kind.value) for one in metrics.ALL
    }


def test_callbacks_are_counted_by_outcome(client: FlaskClient) -> None:
    for raw in (body("processing"), body("succeed"), body("succeed"), body("submitted")):
        assert send(client, raw) == 200
    assert send(client, body("failed")) == 200
    assert send(client, b"{}") == 422
    found = scraped(client)
    for status, outcome in (
        ("processing", "recorded"),
        ("succeeded", "recorded"),
        ("succeeded", "duplicate"),
        ("submitted", "stale"),
        ("failed", "conflict"),
        ("unknown", "quarantined"),
    ):
        name = f"callbacks_total{{outcome={outcome},provider=kling,status={status}}}"
        assert found[name] == 1, name
    assert found["callback_seconds_count{answer=200}"] == 5
    assert found["callback_seconds_count{answer=422}"] == 1
    assert found["callback_lag_seconds_count{provider=kling}"] == 2  # those that changed a status
    assert found["callback_lag_seconds_bucket{le=+Inf,provider=kling}"] == 2
    assert found["last_callback_timestamp_seconds{provider=kling}"] > NOW / 1000
    assert found["conflicts_total{provider=kling}"] == 1


def test_buckets_are_cumulative(client: FlaskClient, store: SqliteStore) -> None:
    rows = [("0.001", 3), ("0.005", 2), ("+Inf", 1), ("sum", 9.5)]
    store.metrics.add(
        [Sample("callback_seconds", ("200", word), value) for word, value in rows], []
    )
    found = scraped(client)
    name = "callback_seconds"
    shown = [found[f"{name}_bucket{{answer=200,le={le}}}"] for le in ("0.001", "0.0025", "0.005")]
    assert shown == [3, 3, 5]
    assert found[f"{name}_bucket{{answer=200,le=10}}"] == 5
    assert found[f"{name}_bucket{{answer=200,le=+Inf}}"] == 6
    assert found[f"{name}_count{{answer=200}}"] == 6
    assert found[f"{name}_sum{{answer=200}}"] == 9.5


def test_rejected_requests_are_counted_by_reason(client: FlaskClient) -> None:
    """The series begin at 0, because Prometheus would miss the first increase of a new one."""
    before = scraped(client)
    assert all(
        before[f"verification_failures_total{{reason={one}}}"] == 0 for one in metrics.REASONS
    )
    send(client, body(), token="wrong")
    client.post("/callbacks/nobody/t/x", data=body(), content_type="application/json")
    client.post("/callbacks/kling", data=body(), content_type="application/json")
    client.get("/api/tasks")
    found = scraped(client)
    for reason in ("wrong_token", "unknown_provider", "no_secret", "api_token"):
        assert found[f"verification_failures_total{{reason={reason}}}"] == 1


def test_requests_cannot_create_label_values(client: FlaskClient, store: SqliteStore) -> None:
    before = len(scraped(client))
    for number in range(30):
        for path in (f"/callbacks/p{number}/t/x", f"/callbacks/kling/t{number}/x", f"/{number}"):
            client.post(path, data=b"{}", content_type="application/json")
        client.open("/callbacks/kling", method=f"M{number}")
    most = 4 * 15 + 3  # the histogram of four responses, and three reasons
    assert len(scraped(client)) - before <= most
    assert len(store.metrics.samples()) < 30


def test_the_record_is_read_for_present_values(client: FlaskClient, store: SqliteStore) -> None:
    store.inbox.create_task(Task("open", "kling", Status.CREATED, NOW, NOW, deadline_at=NOW))
    Ingest(store, [subscription("mail")]).accept(callback(body("succeed")))
    seen_at = now_ms()
    store.activity.heartbeat("w", "worker", seen_at)
    found = scraped(client)
    assert found["tasks_open{provider=kling}"] == found["tasks_overdue{provider=kling}"] == 1
    assert found["tasks_open{provider=modellix}"] == 0
    assert found["tasks_awaiting_callback{provider=kling}"] == 0
    assert found["last_callback_timestamp_seconds{provider=kling}"] == 0
    assert "last_callback_timestamp_seconds{provider=modellix}" not in found  # no callbacks
    assert found["deliveries_due{}"] == 1
    assert found["oldest_due_delivery_age_seconds{}"] > 60
    assert found["deliveries_dead{}"] == 0
    assert found["process_seen_timestamp_seconds{process=worker}"] == seen_at / 1000
    assert found["process_seen_timestamp_seconds{process=poller}"] == 0
    assert found["process_seen_timestamp_seconds{process=web}"] > NOW / 1000
    assert found["store_writable{}"] == 1


def test_a_record_that_cannot_be_written_is_reported(
    client: FlaskClient, store: SqliteStore, tmp_path: Path
) -> None:
    store.activity.heartbeat("w", "worker", NOW)
    lock = tmp_path / "receiver.db-lock"
    lock.unlink()
    lock.mkdir()
    assert send(client, body()) == 503
    assert scraped(client)["store_writable{}"] == 0
    lock.rmdir()
    found = scraped(client)
    assert found["store_writable{}"] == 1
    assert found["store_errors_total{process=web}"] >= 1
    assert found["callback_seconds_count{answer=503}"] == 1


class Hook:
    """Fails a given number of times, then stores a file of 70 bytes."""

    name = "pictures"

    def __init__(self, fails: int) -> None:
        self.fails = fails

    def send(self, _: Notice) -> Done:
        self.fails -= 1
        if self.fails >= 0:
            raise TemporaryFailure("not now")
        return Done("ok", (File("0", "/data/0.png", "ab" * 32, 70, "image/png"),))


def test_the_counts_of_the_worker_are_exported_by_the_web_process(
    client: FlaskClient, store: SqliteStore
) -> None:
    Ingest(store, [subscription("pictures"), subscription("gone")]).accept(callback(body()))
    meter = MetricBuffer("worker")
    policy = RetryPolicy(delays=(0.0,))
    clock = iter(range(NOW + 1000, NOW + 60_000, 500)).__next__
    deliver = DeliveryWorker(store, {"pictures": Hook(fails=1)}, policy, meter=meter, clock=clock)
    for _ in range(3):
        for delivery in store.outbox.claim("w", NOW + 600_000, NOW + 700_000, 9):
            make_attempt(deliver, delivery)
    meter.flush(store.metrics.add)
    found = scraped(client)
    for hook, outcome in (("pictures", "retry"), ("pictures", "delivered")):
        assert found[f"delivery_attempts_total{{hook={hook},outcome={outcome}}}"] == 1
    assert found["delivery_attempts_total{hook=unknown,outcome=retry}"] == 3
    assert found["downloads_total{hook=pictures}"] == 1
    assert found["download_bytes_total{hook=pictures}"] == 70
    assert found["delivery_seconds_count{hook=pictures}"] == 1
    assert 1 <= found["delivery_seconds_sum{hook=pictures}"] < 60
    assert found["deliveries_dead{}"] == 0
    assert found["deliveries_without_hook{}"] == 1
    assert found["deliveries_held{}"] >= 1  # unchanged: it is not in the worker's backlog
    assert found["oldest_due_delivery_age_seconds{}"] == 0


def test_a_process_that_rejected_the_hooks_file_is_shown(
    client: FlaskClient, store: SqliteStore
) -> None:
    store.activity.report_problem("host:1", "worker", "hooks.toml: is not TOML", now_ms())
    store.activity.report_problem(
        "host:2", "poller", "hooks.toml: is not TOML", now_ms() - 31_000
    )  # gone
    found = scraped(client)
    processes = ("web", "worker", "poller")
    rejected = [found[f"hooks_file_rejected{{process={kind}}}"] for kind in processes]
    assert rejected == [0, 1, 0]


def test_the_listeners_of_all_web_processes_are_added(
    client: FlaskClient, store: SqliteStore
) -> None:
    assert scraped(client)["live_listeners{}"] == 0
    for number in (2, 3):
        store.activity.report_listeners(f"host:{number}:web", number, now_ms())
    assert scraped(client)["live_listeners{}"] == 5


def test_circuits_and_space_are_shown(
    store: SqliteStore, tmp_path: Path, make_app: MakeApp
) -> None:
    (tmp_path / "hooks.toml").write_text(
        '[[hook]]\nname = "shop"\ntype = "webhook"\nurl = "https://shop.example/secret-path"\n'
    )
    store.endpoints.pause("removed", NOW)
    url, hooks = f"sqlite:///{tmp_path / 'receiver.db'}", tmp_path / "hooks.toml"
    app = make_app(Settings(url, (SECRET,), hooks_file=hooks, api_token=TOKEN))
    found = scraped(app.test_client())
    assert not any("secret-path" in name for name in found)
    assert {
        name for name, value in found.items() if name.startswith("circuit_state") and value
    } == {
        "circuit_state{hook=shop,state=closed}",
        "circuit_state{hook=removed,state=paused}",
    }
    assert found["circuit_state{hook=shop,state=open}"] == 0
    assert found["database_size_bytes{}"] > 10_000
    assert found["disk_free_bytes{}"] > 0
    assert found["deliveries_held{}"] == 0


def test_rows_of_another_release_are_ignored(client: FlaskClient, store: SqliteStore) -> None:
    store.metrics.add([Sample("callbacks", ("kling",), 5), Sample("gone", (), 1)], [])
    assert not [name for name in scraped(client) if name.startswith(("callbacks_total", "gone"))]


def test_no_callback_waits_for_a_metric_to_be_written(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = threading.current_thread()

    def measure(*_: object) -> None:
        assert threading.current_thread() is not requests

    monkeypatch.setattr(Metrics, "add", measure)
    for number in range(20):
        assert send(client, body("succeed", f"p-{number}"), f"task-{number}") == 200


def test_the_limits_of_hooks_and_the_deliveries_that_wait_for_them_are_counted(
    tmp_path: Path, app: Flask, store: SqliteStore, make_app: MakeApp
) -> None:
    names = ("hook_rate_limit_per_second", "hook_concurrency_limit", "hook_held_by_limit")
    assert not any(name.startswith(names) for name in scraped(app.test_client()))
    (tmp_path / "hooks.toml").write_text(
        '[[hook]]\nname = "mail"\ntype = "command"\ncommand = ["true"]\n'
        'rate = "60/h"\nconcurrency = 1\n'
    )
    client = make_app(
        Settings(
            f"sqlite:///{tmp_path / 'receiver.db'}",
            (SECRET,),
            hooks_file=tmp_path / "hooks.toml",
            api_token=TOKEN,
        )
    ).test_client()
    for number in range(3):
        assert send(client, body(), f"task-{number}") == 200

    def held() -> tuple[float, ...]:
        found = scraped(client)
        return (
            found["hook_held_by_limit{hook=mail,limit=rate}"],
            found["hook_held_by_limit{hook=mail,limit=concurrency}"],
            found["deliveries_held{}"],
            found["deliveries_due{}"],
        )

    assert held() == (0, 0, 0, 3)
    limits = {"mail": Limits(Rate(60, "h"), 1)}
    slots, now = WorkerSlots(4, limits=lambda: limits), now_ms()
    (delivery,) = store.outbox.claim("w", now, now + 60_000, 4, slots)
    assert held() == (0, 1, 2, 0)
    store.outbox.settle(delivery, Attempt(1, now, now, "delivered", ""), State.DELIVERED, None)
    (delivery,) = store.outbox.claim("w", now, now + 60_000, 4, slots)
    store.outbox.settle(delivery, Attempt(1, now, now, "delivered", ""), State.DELIVERED, None)
    assert held() == (1, 0, 1, 0)
    found = scraped(client)
    assert found["hook_rate_limit_per_second{hook=mail}"] == pytest.approx(60 / 3_600)
    assert found["hook_concurrency_limit{hook=mail}"] == 1
