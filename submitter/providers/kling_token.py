"""The token in Kling's Authorization header: a static API key, or a JWT that is signed in time."""

from __future__ import annotations

import threading
import warnings
from typing import Protocol

VALID_FOR = 1800  # seconds
VALID_BEFORE = 5  # seconds; for a clock at Kling that is behind ours
# A create may be under way for minutes. (A client that renews only at the end fails now and then.)
RENEW_WHEN_LEFT = 300  # seconds


class TokenSource(Protocol):
    """Where a token comes from."""

    def token(self, now: int) -> str:
        """A token that is good at `now` (seconds) and for some minutes more."""
        ...

    def renewed(self, refused: str, now: int) -> str | None:
        """Another token after this one was refused as not valid now; None if there is no other."""
        ...


class ApiKey:
    """A static key, used as it is (since 2026-06)."""

    def __init__(self, key: str) -> None:
        self._key = key

    def token(self, now: int) -> str:  # noqa: ARG002 - it is good at any time
        return self._key

    def renewed(self, refused: str, now: int) -> str | None:  # noqa: ARG002 - there is only one
        return None


class SignedTokens:
    """Signs JWTs with the secret key and keeps the last one; safe to use from many threads."""

    def __init__(self, access_key: str, secret_key: str) -> None:
        self._access_key = access_key
        self._secret_key = secret_key
        self._lock = threading.Lock()
        self._token = ""
        self._expires_at = 0

    def token(self, now: int) -> str:
        with self._lock:
            left = self._expires_at - now
            # More than there can be: the clock was set back, and the token is not valid yet.
            if not RENEW_WHEN_LEFT <= left <= VALID_FOR + VALID_BEFORE:
                self._sign(now)
            return self._token

    def renewed(self, refused: str, now: int) -> str | None:
        with self._lock:
            if self._token == refused:  # else another thread has signed a new one already
                self._sign(now)
            return self._token

    def _sign(self, now: int) -> None:
        import jwt  # noqa: PLC0415 - a slow import, and most accounts have an API key

        claims = {"iss": self._access_key, "exp": now + VALID_FOR, "nbf": now - VALID_BEFORE}
        with warnings.catch_warnings():
            # How long the key is was Kling's decision, not our user's.
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            self._token = jwt.encode(claims, self._secret_key, algorithm="HS256")
        self._expires_at = now + VALID_FOR
