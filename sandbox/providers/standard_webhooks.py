"""Signs callbacks according to Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hmac

PREFIX = "whsec_"
SHORTEST_KEY = 24  # bytes


class SecretError(ValueError):
    """The secret is not a valid Standard Webhooks secret."""


class Signer:
    """Signs with a secret.

    Raises SecretError unless it is `whsec_` and Base64 of at least 24 bytes.
    """

    def __init__(self, secret: str) -> None:
        try:
            self._key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            self._key = b""
        if not secret.startswith(PREFIX) or not self._key:
            raise SecretError(f"must be {PREFIX} followed by Base64")
        if len(self._key) < SHORTEST_KEY:
            raise SecretError(
                f"holds {len(self._key)} bytes after decoding, and must hold {SHORTEST_KEY}; "
                "make one with: echo whsec_$(head -c 32 /dev/urandom | base64)"
            )

    def headers(self, message_id: str, sent_at: int, body: bytes) -> dict[str, str]:
        """Return the three signature headers. `sent_at` is in Unix seconds."""
        text = f"{message_id}.{sent_at}.".encode() + body
        digest = base64.b64encode(hmac.digest(self._key, text, "sha256")).decode()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": f"v1,{digest}",
        }
