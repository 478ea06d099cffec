"""The interface of verifications suits schemes that no built-in provider uses."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from receiver import providers
from receiver.config.settings import Settings
from receiver.environment import Setting
from receiver.errors import BadSignature, UnknownCallbackUrl
from receiver.providers import PROVIDERS
from receiver.providers.base import Provider, Verification
from receiver.providers.verification import StandardWebhooks
from receiver.signing.callback_urls import mint
from receiver.tasks import Trust
from receiver.web.callbacks import CallbackRequest, admit, identify
from tests.support.samples import SECRET, payload

NOW = 1_795_000_000  # Unix seconds; the time of the vectors
URL_SECRET = (SECRET,)
TASK = {"data": {"config": {"webhook_config": {"secret": "piapi-test-secret"}}}}


class PublishedKeys(Verification):
    """Ed25519 with the keys of a JWKS.

    The keys sign for all customers, so the customer is required.
    """

    covers_body = True
    is_mandatory = False

    def __init__(self, customer: str) -> None:
        self._customer = customer
        self.setting = Setting(
            name="FAL_JWKS", read=self._keys, default=(), summary="The provider's JWKS."
        )

    @staticmethod
    def _keys(text: str) -> tuple[str, ...]:
        return tuple(key["x"] for key in json.loads(text)["keys"] if key["crv"] == "Ed25519")

    def is_signed(self, headers: Mapping[str, str]) -> bool:
        return "x-fal-webhook-signature" in headers

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        names = ("request-id", "user-id", "timestamp")
        parts = [headers.get(f"x-fal-webhook-{name}", "") for name in names]
        if parts[1] != self._customer:
            raise BadSignature("signed for another customer", "wrong_signature")
        text = "\n".join([*parts, hashlib.sha256(body).hexdigest()]).encode()
        signature = bytes.fromhex(headers["x-fal-webhook-signature"])
        if not any(self._is_valid(key, signature, text) for key in secrets):
            raise BadSignature("no key has signed this", "wrong_signature")
        if abs(now - int(parts[2])) > 300:
            raise BadSignature("the signature is too old", "stale_signature")

    @staticmethod
    def _is_valid(key: str, signature: bytes, text: bytes) -> bool:
        public = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(key + "=" * (-len(key) % 4)))
        try:
            public.verify(signature, text)
        except InvalidSignature:
            return False
        return True


class EchoedSecret(Verification):
    """The provider repeats our own secret in a header, which proves nothing about the body."""

    covers_body = False
    is_mandatory = False
    setting = Setting(
        name="PIAPI_SECRET", read=lambda text: (text,), default=(), summary="The secret."
    )

    def is_signed(self, headers: Mapping[str, str]) -> bool:
        return "x-webhook-secret" in headers

    def verify(
        self,
        headers: Mapping[str, str],
        body: bytes,  # noqa: ARG002 - not signed
        secrets: Sequence[str],
        now: float,  # noqa: ARG002 - there is no timestamp
    ) -> None:
        given = headers["x-webhook-secret"].encode()
        if not any([hmac.compare_digest(given, secret.encode()) for secret in secrets]):  # noqa: C419
            raise BadSignature("another secret", "wrong_signature")


def vector(provider: str) -> Any:
    return json.loads(payload(f"{provider}/vector.json"))


@pytest.fixture
def verified_by(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Replace the verification of a built-in provider."""

    def use(verification: Verification, *secrets: str) -> Settings:
        monkeypatch.setattr(type(PROVIDERS["kling"]), "verification", verification)
        return Settings("sqlite:///x.db", URL_SECRET, webhook_secrets={"kling": secrets})

    return use


def sent(headers: Mapping[str, str], *, has_token: bool = True) -> CallbackRequest:
    spelled = {
        "-".join(part.capitalize() for part in name.split("-")): value
        for name, value in headers.items()
    }
    if not has_token:
        return CallbackRequest("kling", None, None, spelled)
    return CallbackRequest("kling", "task-1", mint(SECRET, "kling", "task-1"), spelled)


def test_keys_of_a_jwks_verify_a_callback(verified_by: Callable[..., Settings]) -> None:
    known, body = vector("fal"), payload("fal/callback-succeeded.json")
    verification = PublishedKeys("user_test")
    keys = verification.setting.read(json.dumps(known["jwks"]))
    settings = verified_by(verification, *keys)
    for has_token in (True, False):
        request = sent(known["headers"], has_token=has_token)
        assert admit(settings, request, body, NOW * 1000).trust is Trust.SIGNED
    with pytest.raises(BadSignature):
        admit(settings, sent(known["headers"]), body + b" ", NOW * 1000)
    with pytest.raises(BadSignature) as caught:
        admit(settings, sent(known["headers"]), body, (NOW + 301) * 1000)
    assert caught.value.kind == "stale_signature"
    settings = verified_by(PublishedKeys("another-customer"), *keys)
    with pytest.raises(BadSignature, match="another customer"):
        admit(settings, sent(known["headers"]), body, NOW * 1000)


def test_a_secret_in_a_header_does_not_replace_the_token(
    verified_by: Callable[..., Settings],
) -> None:
    body = payload("piapi/callback-succeeded.json")
    headers = {"x-webhook-secret": "piapi-test-secret"}
    settings = verified_by(EchoedSecret(), "another-secret", "piapi-test-secret")
    assert admit(settings, sent(headers), body, NOW * 1000).trust is Trust.TOKEN
    with pytest.raises(UnknownCallbackUrl):
        identify(settings, sent(headers, has_token=False))
    with pytest.raises(BadSignature):
        admit(settings, sent({"x-webhook-secret": "x"}), body, NOW * 1000)


def test_a_required_signature_must_not_be_missing(verified_by: Callable[..., Settings]) -> None:
    known, body = vector("replicate"), payload("replicate/callback-succeeded.json")
    verification = StandardWebhooks("REPLICATE_WEBHOOK_SECRET", "The secret.", is_mandatory=True)
    settings = verified_by(verification, *verification.setting.read(known["secret"]))
    assert admit(settings, sent(known["headers"]), body, NOW * 1000).trust is Trust.SIGNED
    with pytest.raises(BadSignature) as caught:
        identify(settings, sent({}))
    assert caught.value.kind == "unsigned"
    without_secrets = verified_by(verification)
    assert identify(without_secrets, sent({})) == ()


@pytest.mark.parametrize(
    "body",
    [
        payload("piapi/callback-succeeded.json"),
        b'{"data": {"config": {"webhook_config": {"secret": "piapi\\u002dtest-secret"}}}}',
        '{"data": {"config": {"webhook_config": {"secret": "piapi-test-secret"}}}}'.encode(
            "utf-16"
        ),
        b'{"data": [{"config": {"webhook_config": {"secret": {"a": "piapi-test-secret"}}}}]}',
    ],
)
def test_a_secret_in_a_body_is_redacted_in_every_notation(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Provider, "secret_fields", ("data.config.webhook_config.secret",))
    received = admit(Settings("sqlite:///x.db", URL_SECRET), sent({}), body, NOW * 1000)
    document = json.loads(received.body)
    assert "test-secret" not in json.dumps(document)
    assert providers.without_secrets(received) is received
    if body.startswith(b"{\n"):  # the rest is unchanged
        assert received.body == body.replace(b'"piapi-test-secret"', b'"\\u2026"')


def test_a_body_that_is_not_json_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Provider, "secret_fields", ("data.secret",))
    settings = Settings("sqlite:///x.db", URL_SECRET)
    for body in (b"<html>", b"", b'{"data": 1}', b'{"data": {"secret": ""}}'):
        assert admit(settings, sent({}), body, NOW * 1000).body == body
