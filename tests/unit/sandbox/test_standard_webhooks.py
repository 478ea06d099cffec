"""The sandbox signs callbacks as in the test vector that Kling published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.providers.standard_webhooks import SecretError, Signer
from sandbox.server import Behaviour

PAYLOADS = Path(__file__).parents[2] / "payloads" / "kling"
SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


def test_the_signature_equals_the_published_vector() -> None:
    headers = json.loads((PAYLOADS / "signature-vector.headers.json").read_bytes())
    body = (PAYLOADS / "signature-vector.json").read_bytes()
    assert Signer(SECRET).headers("9876543210", 1_781_080_794, body) == {
        name: headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    }


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "whsec_ü", SECRET[6:]])
def test_an_invalid_secret_is_refused_before_anything_starts(secret: str) -> None:
    with pytest.raises(SecretError, match="must be whsec_"):
        Behaviour(webhook_secret=secret)


@pytest.mark.parametrize("secret", ["whsec_AA==", "whsec_c2FuZGJveA==", "whsec_" + "a" * 28])
def test_a_secret_that_is_too_short_for_a_receiver_is_refused(secret: str) -> None:
    with pytest.raises(SecretError, match="must hold 24; make one with"):
        Behaviour(webhook_secret=secret)
