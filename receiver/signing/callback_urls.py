"""The token in a callback URL: minted and checked here, and nowhere else.

`mint` needs nothing but the secret, so that people who call a provider with their own code can
make callback URLs offline.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from functools import lru_cache

DOCTOR = "doctor"  # stands where a provider does, in the URL by which `receiver doctor` tests us
# A task id stands in a path, in file names and in Message-IDs: nothing in it may need escaping.
TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def mint(secret: str, provider: str, task_id: str) -> str:
    """The token (43 URL-safe characters) that proves a callback URL was made by us.

    It is bound to the provider and the task. Raises ValueError for an id that cannot stand in a
    path.
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
    """The key set up once: that takes longer than the rest."""
    return hmac.new(secret.encode(), digestmod=hashlib.sha256)


def check(secrets: Iterable[str], provider: str, task_id: str, token: str) -> bool:
    """Was this token minted for this provider and task with one of the secrets?

    Every secret is tried, in constant time each, so that the time tells nothing.
    """
    if not TASK_ID.fullmatch(task_id):
        return False
    given = token.encode("utf-8", "surrogatepass")
    matches = [
        hmac.compare_digest(mint(secret, provider, task_id).encode(), given) for secret in secrets
    ]
    return any(matches)


def callback_url(public_url: str, secret: str, provider: str, task_id: str) -> str:
    """Where the provider is to send the callbacks of this task."""
    token = mint(secret, provider, task_id)
    return f"{public_url.rstrip('/')}/callbacks/{provider}/{task_id}/{token}"
