"""Creates and verifies Standard Webhooks signatures (standardwebhooks.com).

A request has the headers `webhook-id`, `webhook-timestamp` (Unix seconds) and `webhook-signature`
(one or more `v1,<base64>`, separated by spaces). A signature is the HMAC-SHA256 of
`{id}.{timestamp}.{body}`; its key is the base64-decoded part of the secret after `whsec_`.
docs/adr/0001-own-standard-webhooks-verifier.md explains why we do not use the PyPI package.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from secrets import token_bytes

from receiver.errors import BadSignature

TOLERANCE = 300  # seconds that a timestamp may be in the past or in the future
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
SHORTEST_KEY = 24  # bytes, as the specification requires; longer keys are accepted
MAKE_ONE = "receiver hooks secret"  # the command
_VERSION = "v1,"
_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)


def new_secret() -> str:
    """Return a secret `whsec_<base64>` with a random key of 32 bytes."""
    return f"whsec_{base64.b64encode(token_bytes(32)).decode()}"


def key_of(secret: str) -> bytes:
    """Return the key in a secret `whsec_<base64>`; the prefix is optional.

    Raises ValueError if there is no key, or if it is so short that signatures could be guessed.
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
    """Return whether the request claims to be signed. Header names are in lower case."""
    return SIGNATURE in headers


def sign(secret: str, message_id: str, timestamp: int | str, body: bytes) -> str:
    """Return the value of `webhook-signature`. Raises ValueError for an unusable secret."""
    signed = f"{message_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
    digest = hmac.digest(key_of(secret), signed, hashlib.sha256)
    return _VERSION + base64.b64encode(digest).decode()


def verify(secrets: Iterable[str], headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raise BadSignature unless one of the secrets signed this body within five minutes.

    Header names are in lower case; `now` is in Unix seconds. During a rotation, a request may have
    two signatures, and there may be two secrets: any match suffices.
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
        part.encode("utf-8", "surrogateescape")
        for part in headers.get(SIGNATURE, "").split(" ")
        if part.startswith(_VERSION)
    ]
    expected = [sign(secret, message_id, timestamp, body).encode() for secret in secrets]
    # Every pair is compared, so that the duration does not depend on which one matches.
    matches = [hmac.compare_digest(mine, theirs) for mine in expected for theirs in given]
    if not any(matches):
        raise BadSignature("the signature matches none of the secrets", "wrong_signature")
