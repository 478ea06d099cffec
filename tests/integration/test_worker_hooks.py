"""The worker hides the secrets of the hooks, and applies their retries and limits."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from click.testing import CliRunner

from receiver import outgoing
from receiver.cli import worker
from receiver.delivery.attempt import DeliveryWorker
from receiver.endpoints import Limits, Rate
from receiver.outgoing.retry import RetryPolicy
from receiver.outgoing.tls import context_with
from receiver.stores.sqlite import SqliteStore

PATH = "a-path-that-is-the-secret"
HOOKS = """
[[hook]]
name = "shop"
type = "webhook"
url = "${SHOP_URL}"
secrets = ["${SHOP_SECRET}"]
retry = ["1s"]
rate = "10/s"
"""
ENVIRONMENT = {
    "CALLBACK_SECRETS": "a-secret-for-the-tests-only",
    "SHOP_URL": f"https://shop.example/{PATH}",
    "SHOP_SECRET": "dGhlIHNlY3JldCBvZiB0aGUgc2hvcCwgdG9v",
}


@pytest.fixture
def deliveries(
    tmp_path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> DeliveryWorker:
    """The deliveries of the command `receiver worker`, which makes none."""

    store.check_schema()  # already migrated
    (tmp_path / "hooks.toml").write_text(HOOKS)
    made: list[DeliveryWorker] = []

    def dispatcher(deliveries: DeliveryWorker) -> SimpleNamespace:
        made.append(deliveries)
        return SimpleNamespace(run=lambda _: True)

    monkeypatch.setattr(worker, "dispatcher", dispatcher)
    monkeypatch.setattr(worker, "stop_at", lambda *_: threading.Event())
    monkeypatch.setattr("receiver.observability.logs.configure", lambda *_: None)
    monkeypatch.setattr(worker, "run_chores", lambda *_: nullcontext())
    database = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'receiver.db'}",
        "HOOKS_FILE": str(tmp_path / "hooks.toml"),
    }
    done = CliRunner().invoke(worker.worker, env=ENVIRONMENT | database)
    assert done.exit_code == 0, done.output
    (deliveries,) = made
    return deliveries


def test_responses_are_stored_without_the_secrets_of_hooks(deliveries: DeliveryWorker) -> None:
    shown = deliveries.hide(f"no {PATH} here, nor {ENVIRONMENT['SHOP_SECRET']}")
    assert shown == "no … here, nor …"


def test_the_worker_applies_the_retries_and_limits_of_hooks(deliveries: DeliveryWorker) -> None:
    assert deliveries.policies() == {"shop": RetryPolicy((1,))}
    assert deliveries.limits() == deliveries.slots.limits == {"shop": Limits(Rate(10, "s"))}


@pytest.fixture
def _no_certificates() -> None:
    context_with.cache_clear()


@pytest.mark.usefixtures("_no_certificates", "deliveries")
def test_the_root_certificates_are_loaded_before_the_first_delivery() -> None:
    assert context_with.cache_info().currsize == 1


def test_missing_root_certificates_concern_only_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests.adapters, "DEFAULT_CA_BUNDLE_PATH", "/nowhere/roots.pem")
    outgoing.prepare()
