"""What the main loop takes without Flask, it takes by the same rules; the rest it leaves alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receiver.clock import now_ms
from receiver.errors import NotTheProtocol, StoreUnavailable
from receiver.ingest import Ingest
from receiver.later import Later
from receiver.settings import Settings
from receiver.signing import mint
from receiver.standard_webhooks import sign
from receiver.stores.postgres.writer import Undone
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Trust
from receiver.web.direct import Direct
from receiver.web.ordinary import Ordinary
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body

KEY = "whsec_" + "a2V5" * 8
TOKEN = mint(SECRET, "kling", "task-1")
REQUEST = Ordinary("kling", "task-1", TOKEN, {"Host": "receiver"}, body(), 0)
Make = Callable[..., Direct]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "hooks.toml").write_text("")
    url = f"sqlite:///{tmp_path / 'receiver.db'}"
    return Settings(url, (SECRET,), hooks_file=tmp_path / "hooks.toml")


@pytest.fixture
def make(settings: Settings, store: SqliteStore) -> Make:
    def made(**more: Any) -> Direct:
        chosen = replace(settings, **more)
        return Direct(Ingest.into(store, chosen), chosen, Later(lambda: None, 60))

    return made


def signed(raw: bytes = REQUEST.body, key: str = KEY) -> Ordinary:
    now = now_ms() // 1000
    headers = {"Host": "receiver", "Webhook-Id": "m", "Webhook-Timestamp": str(now)}
    headers["Webhook-Signature"] = sign(key, "m", now, raw)
    return replace(REQUEST, headers=headers)


def test_what_it_takes_is_on_record_and_counted(settings: Settings, store: SqliteStore) -> None:
    handed_over, ingest = threading.Event(), Ingest.into(store, settings)
    taken = Direct(ingest, settings, Later(handed_over.set, 0.01)).take(REQUEST)
    assert handed_over.wait(PATIENCE)
    assert ingest.meter.is_pending
    assert taken is not None
    assert taken[0] is Outcome.RECORDED
    (kept,) = store.callbacks()
    assert (kept.callback.body, kept.callback.trust) == (body(), Trust.TOKEN)


@pytest.mark.parametrize(
    "request_",
    [
        replace(REQUEST, token=mint("another secret of ours", "kling", "task-1")),
        replace(REQUEST, task_id="task-2"),
        replace(REQUEST, provider="nobody"),
        replace(REQUEST, provider="appypie"),  # the token is Kling's
        replace(REQUEST, provider="modellix", token=mint(SECRET, "modellix", "task-1")),
        replace(REQUEST, body=b"no JSON"),
        replace(REQUEST, body=b'{"not": "the protocol"}'),
    ],
)
def test_what_would_be_refused_is_left_alone(
    make: Make, store: SqliteStore, request_: Ordinary
) -> None:
    assert make().take(request_) is None
    assert store.callbacks() == []  # nor is it in quarantine: the view will see to it


def test_a_signature_counts_where_there_is_a_key(make: Make, store: SqliteStore) -> None:
    with_key = make(webhook_secrets={"kling": (KEY,)})
    assert with_key.take(signed()) is not None
    assert with_key.take(replace(REQUEST, body=body("failed"))) is not None  # by its token
    assert [kept.callback.trust for kept in store.callbacks()] == [Trust.TOKEN, Trust.SIGNED]
    assert with_key.take(signed(body("processing"))) is None
    assert with_key.take(signed(key="whsec_" + "bm90" * 8)) is None
    assert make().take(signed(key="whsec_" + "bm90" * 8)) is not None  # without one it says nothing


@pytest.mark.parametrize("error", [Undone(), NotTheProtocol("x"), KeyError("x")])
def test_what_cannot_be_recorded_now_is_left_to_the_view(
    make: Make, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store, "record", fails)
    assert make().take(REQUEST) is None


def test_what_the_record_cannot_take_is_not_tried_twice(
    make: Make, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise StoreUnavailable("full")

    monkeypatch.setattr(store, "record", fails)
    with pytest.raises(StoreUnavailable, match="full"):
        make().take(REQUEST)


@pytest.mark.parametrize(("proxies", "is_taken"), [(0, True), (1, False)])
def test_a_host_that_a_proxy_names_is_left_to_the_view(
    make: Make, proxies: int, is_taken: bool
) -> None:
    named = {**REQUEST.headers, "X-Forwarded-Host": "other.example"}
    taken = make(trusted_proxies=proxies).take(replace(REQUEST, headers=named))
    assert (taken is not None) is is_taken
    same = {**REQUEST.headers, "X-Forwarded-Host": "receiver", "X-Request-Id": "an-id-of-the-proxy"}
    taken = make(trusted_proxies=proxies).take(replace(REQUEST, headers=same))
    assert taken is not None
    assert (taken[1] == "an-id-of-the-proxy") is (proxies > 0)
