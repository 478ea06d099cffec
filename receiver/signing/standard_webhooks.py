"""Signatures of the Standard Webhooks scheme: signed and verified in one place.

The specification (standardwebhooks.com): headers `webhook-id`, `webhook-timestamp` (Unix seconds)
and `webhook-signature` (space-separated `v1,<base64>`); signed is `{id}.{timestamp}.{body}` by
HMAC-SHA256 with the base64-decoded part of the secret after `whsec_`. Why not the PyPI package:
docs/adr/0001-own-standard-webhooks-verifier.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

from receiver.environment import readers
from receiver.errors import BadSignature

TOLERANCE = 300  # seconds a timestamp may lie in the past or in the future
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
SHORTEST_KEY = 24  # bytes, as the specification demands; longer keys are accepted
MAKE_ONE = (
    'python3 -c "import base64, secrets; '
    "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
)
_VERSION = "v1,"
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


def key_of(secret: str) -> bytes:
    """Return the key in a secret `whsec_<base64>`.

    Raises ValueError if there is none, or if it is so short that signatures could be guessed.
    """
    text = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError("is not whsec_ followed by base64") from None
    if not key:
        raise ValueError("is empty")
    if len(key) < SHORTEST_KEY:
        raise ValueError(
            f"is too short: it holds {len(key)} bytes after decoding, and {SHORTEST_KEY} are needed"
        )
    return key


def read_secrets(text: str) -> tuple[str, ...]:
    """Return the secrets in the text of a setting, separated by commas.

    Raises ValueError with the rest of a sentence that begins with the value; it shows no secret.
    """
    secrets = readers.parts(text)
    if not secrets:
        raise ValueError("contains no secret; copy one from the provider's console")
    for number, secret in enumerate(secrets, 1):
        try:
            key_of(secret)
        except ValueError as error:
            raise ValueError(
                f"cannot be used, because secret {number} {error}; copy it from the provider's "
                f"console, or create a new one there. For a sender of your own, make one with: "
                f"{MAKE_ONE}"
            ) from None
    return secrets


def is_signed(headers: Mapping[str, str]) -> bool:
    """Does the request claim to be signed at all? Header names in lower case."""
    return SIGNATURE in headers


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    digest = _digest(key_of(secret), message_id, str(timestamp), body)
    return _VERSION + base64.b64encode(digest).decode()


def verify(secrets: Iterable[str], headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raises BadSignature unless one of the secrets signed these bytes within five minutes.

    Header names in lower case; `now` in Unix seconds. During a rotation there are two secrets, and
    two signatures: any match suffices.
    """
    message_id, timestamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not message_id or not _SECONDS.fullmatch(timestamp):
        raise BadSignature(f"{ID} or {TIMESTAMP} is missing or malformed", "wrong_signature")
    if abs(now - int(timestamp)) > TOLERANCE:
        age = "old" if now > int(timestamp) else "new"
        raise BadSignature(
            f"the signature is too {age}: {TIMESTAMP} is more than {TOLERANCE} s off our clock",
            "stale_signature",
        )
    given = [
        part.removeprefix(_VERSION).encode("utf-8", "surrogateescape")
        for part in headers.get(SIGNATURE, "").split(" ")
        if part.startswith(_VERSION)
    ]
    expected = [
        base64.b64encode(_digest(key_of(secret), message_id, timestamp, body)) for secret in secrets
    ]
    matches = [hmac.compare_digest(mine, theirs) for mine in expected for theirs in given]
    if not any(matches):
        raise BadSignature("no signature is right for any of the secrets", "wrong_signature")


def _digest(key: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    text = f"{message_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
    return hmac.digest(key, text, hashlib.sha256)
