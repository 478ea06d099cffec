"""The worker hides the secrets of the hooks in stored responses."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from receiver.cli import worker
from receiver.delivery.attempt import DeliveryWorker
from receiver.stores.sqlite import SqliteStore

PATH = "a-path-that-is-the-secret"
HOOKS = """
[[hook]]
name = "shop"
type = "webhook"
url = "${SHOP_URL}"
secrets = ["${SHOP_SECRET}"]
"""


def test_responses_are_stored_without_the_secrets_of_hooks(
    tmp_path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    environment = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'receiver.db'}",
        "CALLBACK_SECRETS": "a-secret-for-the-tests-only",
        "HOOKS_FILE": str(tmp_path / "hooks.toml"),
        "SHOP_URL": f"https://shop.example/{PATH}",
        "SHOP_SECRET": "dGhlIHNlY3JldCBvZiB0aGUgc2hvcCwgdG9v",
    }
    done = CliRunner().invoke(worker.worker, env=environment)
    assert done.exit_code == 0, done.output
    (deliveries,) = made
    shown = deliveries.hide(f"no {PATH} here, nor {environment['SHOP_SECRET']}")
    assert shown == "no … here, nor …"
