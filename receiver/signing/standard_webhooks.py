"""Signs and verifies messages by the Standard Webhooks scheme.

According to the specification (standardwebhooks.com), a message has the headers `webhook-id`,
`webhook-timestamp` (Unix seconds) and `webhook-signature` (`v1,<base64>`, several separated by
spaces). The signature is the HMAC-SHA256 of `{id}.{timestamp}.{body}`. Its key is the secret
without `whsec_`, decoded from base64. docs/adr/0001-own-standard-webhooks-verifier.md explains why
we do not use the PyPI package.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

from receiver.errors import BadSignature

TOLERANCE = 300  # seconds between a timestamp and the present, in either direction
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
SHORTEST_KEY = 24  # bytes, according to the specification
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
            f"is too short: it has {len(key)} bytes after decoding, and {SHORTEST_KEY} are required"
        )
    return key


def is_signed(headers: Mapping[str, str]) -> bool:
    """Return whether the request has a signature, valid or not. Header names are in lower case."""
    return SIGNATURE in headers


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`."""
    digest = _digest(key_of(secret), message_id, str(timestamp), body)
    return _VERSION + base64.b64encode(digest).decode()


def verify(secrets: Iterable[str], headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raise BadSignature unless the body was signed with one of the secrets, within 5 minutes.

    The header names are in lower case; `now` is in Unix seconds. During a rotation of secrets, a
    message may have several signatures: one valid signature is enough.
    """
    message_id, timestamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not message_id or not _SECONDS.fullmatch(timestamp):
        raise BadSignature(f"{ID} or {TIMESTAMP} is missing or malformed", "wrong_signature")
    if abs(now - int(timestamp)) > TOLERANCE:
        age = "old" if now > int(timestamp) else "new"
        raise BadSignature(
            f"the signature is too {age}: "
            f"{TIMESTAMP} differs from our time by more than {TOLERANCE} s",
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
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in given]
    if not any(matches):
        raise BadSignature("no signature is valid for any of the secrets", "wrong_signature")


def _digest(key: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    text = f"{message_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
    return hmac.digest(key, text, hashlib.sha256)
