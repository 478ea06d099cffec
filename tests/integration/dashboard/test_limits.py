"""The pages show the limits of hooks, and the limit that deliveries are waiting for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.delivery.worker_slots import WorkerSlots
from receiver.endpoints import Limits, Rate
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from tests.integration.dashboard import conftest
from tests.support.dashboard_visits import PASSWORD
from tests.support.samples import body, callback, subscription

MINUTE = 60_000
LIMITS = {"mail": Limits(Rate(1, "h"), 2)}


@pytest.fixture
def settings(tmp_path: Path, store: SqliteStore) -> Settings:
    store.check_schema()
    (tmp_path / "hooks.toml").write_text(conftest.HOOKS + 'rate = "1/h"\nconcurrency = 2\n')
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'receiver.db'}",
        callback_secrets=("a" * 40,),
        hooks_file=tmp_path / "hooks.toml",
        dashboard_password=PASSWORD,
    )


def claim(store: SqliteStore, limits: Mapping[str, Limits]) -> None:
    store.activity.heartbeat("w", "worker", now_ms())
    for task in ("a", "b", "c"):
        Ingest(store, [subscription("mail")]).accept(
            callback(body(), task, received_at=now_ms() - MINUTE)
        )
    now, slots = now_ms(), WorkerSlots(4, limits=lambda: limits)
    store.outbox.claim("w", now, now + MINUTE, 2, slots)


def test_the_endpoints_page_shows_limits_that_delay_nothing(browser: FlaskClient) -> None:
    text = browser.get("/dashboard/endpoints").text
    assert text.count("Limits: ") == 1
    assert "Limits: 1/h, 2 at a time<" in text
    assert "Deliveries wait" not in text


def test_the_pages_show_when_the_rate_allows_the_next_delivery(
    browser: FlaskClient, store: SqliteStore
) -> None:
    claim(store, LIMITS)
    text = browser.get("/dashboard/endpoints").text
    assert "Deliveries wait: rate limit 1/h, next at " in text
    reason = "waits for the rate limit 1/h, next in 1 h"
    assert browser.get("/dashboard/deliveries?state=pending").text.count(reason) == 2
    assert reason[1:] in browser.get("/dashboard/tasks/c").text
    text = browser.get("/dashboard/").text
    assert (
        "<strong>2</strong> <span>deliveries held back</span> <small>of 2 pending</small>" in text
    )


def test_the_pages_show_that_the_concurrency_is_used_up(
    browser: FlaskClient, store: SqliteStore
) -> None:
    claim(store, {})
    text = browser.get("/dashboard/endpoints").text
    assert "Deliveries wait: concurrency limit 2, 2 running." in text
    reason = "waits for the concurrency limit 2<"
    assert browser.get("/dashboard/deliveries?state=pending").text.count(reason) == 1
