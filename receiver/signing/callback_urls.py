"""Creates and checks the token in a callback URL.

`mint` requires only the secret, so code that calls a provider directly can create callback URLs
without the receiver.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from functools import lru_cache

DOCTOR = "doctor"  # takes the place of the provider in the URL that `receiver doctor` tests
# Task ids are part of paths, file names and Message-IDs, so they need no escaping.
TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def mint(secret: str, provider: str, task_id: str) -> str:
    """Return the token (43 URL-safe characters) that proves that we created a callback URL.

    It is valid only for this provider and task. Raises ValueError for an invalid task id.
    """
    if not TASK_ID.fullmatch(task_id):
        raise ValueError(
            f"task id {task_id!r}: use 1 to 64 letters, digits, '-' and '_', "
            "and start with a letter or a digit"
        )
    text = f"callback-url:v1:{provider}:{task_id}".encode()
    keyed = _keyed(secret).copy()
    keyed.update(text)
    return base64.urlsafe_b64encode(keyed.digest()).rstrip(b"=").decode()


@lru_cache(maxsize=16)
def _keyed(secret: str) -> hmac.HMAC:
    """Return an HMAC with this key. It is cached, because setting up the key takes most time."""
    return hmac.new(secret.encode(), digestmod=hashlib.sha256)


def check(secrets: Iterable[str], provider: str, task_id: str, token: str) -> bool:
    """Return whether the token was minted for this provider and task with one of the secrets.

    Every secret is tried, in constant time, so that the duration reveals nothing.
    """
    if not TASK_ID.fullmatch(task_id):
        return False
    given = token.encode("utf-8", "surrogatepass")
    matches = [
        hmac.compare_digest(mint(secret, provider, task_id).encode(), given) for secret in secrets
    ]
    return any(matches)


def callback_url(public_url: str, secret: str, provider: str, task_id: str) -> str:
    """Return the URL to which the provider sends the callbacks of this task."""
    token = mint(secret, provider, task_id)
    return f"{public_url.rstrip('/')}/callbacks/{provider}/{task_id}/{token}"
