"""Secrets are compared in constant time, so response times reveal nothing about them."""

from __future__ import annotations

import hmac
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from receiver.config.settings import Settings
from receiver.errors import BadSignature
from receiver.signing import callback_urls, standard_webhooks
from receiver.stores.sqlite import SqliteStore
from tests.support.applications import MakeApp
from tests.support.dashboard_visits import log_in
from tests.support.samples import SECRET

OTHER = "another-secret-for-the-tests"
KEYS = ("whsec_b25lIGtleSBvZiAyNCBieXRlcy4uLi4u", "whsec_YW5vdGhlciBrZXkgb2YgMjQgYnl0ZXMu")
NOW = 1_765_519_851
COMPARE = hmac.compare_digest


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """The values that were compared in constant time so far."""
    pairs: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        pairs.append((one, other))
        return COMPARE(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    return pairs


@pytest.fixture
def settings(tmp_path: Path, store: SqliteStore) -> Settings:
    store.check_schema()  # already migrated
    (tmp_path / "hooks.toml").write_text("")
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'receiver.db'}",
        callback_secrets=(SECRET,),
        hooks_file=tmp_path / "hooks.toml",
    )


@pytest.fixture
def secured(settings: Settings, make_app: MakeApp) -> Flask:
    """An application with an API and a dashboard."""
    return make_app(replace(settings, api_token="the-right", dashboard_password="the-right"))


@pytest.mark.parametrize("minted_by", [SECRET, OTHER, "nobody"])
def test_a_token_is_compared_with_that_of_every_secret(
    compared: list[tuple[bytes, bytes]], minted_by: str
) -> None:
    token = callback_urls.mint(minted_by, "kling", "t")
    is_ours = callback_urls.check((SECRET, OTHER), "kling", "t", token)
    assert is_ours is (minted_by != "nobody")
    expected = [callback_urls.mint(secret, "kling", "t").encode() for secret in (SECRET, OTHER)]
    assert compared == [(one, token.encode()) for one in expected]


@pytest.mark.parametrize("signed_by", [KEYS[0], KEYS[1], None])
def test_a_signature_is_compared_with_that_of_every_secret(
    compared: list[tuple[bytes, bytes]], signed_by: str | None
) -> None:
    right = [standard_webhooks.sign(key, "m", NOW, b"body") for key in KEYS]
    given = standard_webhooks.sign(signed_by, "m", NOW, b"body") if signed_by else "v1,wrong"
    headers = {"webhook-id": "m", "webhook-timestamp": str(NOW), "webhook-signature": given}
    if signed_by:
        standard_webhooks.verify(KEYS, headers, b"body", NOW)
    else:
        with pytest.raises(BadSignature):
            standard_webhooks.verify(KEYS, headers, b"body", NOW)
    assert compared == [(one.encode(), given.encode()) for one in right]


@pytest.mark.parametrize("token", ["the-right", "the-wrong", ""])
def test_the_api_token_is_compared_in_constant_time(
    compared: list[tuple[bytes, bytes]], secured: Flask, token: str
) -> None:
    header = {"Authorization": f"Bearer {token}"}
    status = secured.test_client().get("/api/tasks", headers=header).status_code
    assert status == (200 if token == "the-right" else 401)
    assert (token.encode(), b"the-right") in compared


def test_without_a_configured_token_the_api_compares_as_well(
    compared: list[tuple[bytes, bytes]], settings: Settings, make_app: MakeApp
) -> None:
    header = {"Authorization": "Bearer guessed"}
    app = make_app(settings)
    assert app.test_client().get("/api/tasks", headers=header).status_code == 401
    assert (b"guessed", b"") in compared


@pytest.mark.parametrize("password", ["the-right", "the-wrong"])
def test_the_dashboard_password_is_compared_in_constant_time(
    compared: list[tuple[bytes, bytes]], secured: Flask, password: str
) -> None:
    answer = log_in(secured.test_client(), password)
    assert answer.status_code == (302 if password == "the-right" else 401)
    assert (password.encode(), b"the-right") in compared
