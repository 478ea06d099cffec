"""The sandbox signs as Kling's published vector has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.providers.standard_webhooks import SecretError, Signer
from sandbox.server import Behaviour

PAYLOADS = Path(__file__).parents[2] / "payloads" / "kling"
SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


def test_the_published_vector_comes_out() -> None:
    headers = json.loads((PAYLOADS / "signature-vector.headers.json").read_bytes())
    body = (PAYLOADS / "signature-vector.json").read_bytes()
    assert Signer(SECRET).headers("9876543210", 1_781_080_794, body) == {
        name: headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    }


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "whsec_ü", SECRET[6:]])
def test_what_is_no_secret_is_refused_before_anything_starts(secret: str) -> None:
    with pytest.raises(SecretError, match="must be whsec_"):
        Behaviour(webhook_secret=secret)


@pytest.mark.parametrize("secret", ["whsec_AA==", "whsec_c2FuZGJveA==", "whsec_" + "a" * 28])
def test_a_secret_that_a_receiver_would_refuse_as_too_short_is_refused(secret: str) -> None:
    with pytest.raises(SecretError, match="must hold 24; make one with"):
        Behaviour(webhook_secret=secret)
