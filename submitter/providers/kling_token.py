"""The token in Kling's Authorization header: a static API key, or a signed JWT."""

from __future__ import annotations

import threading
import warnings
from typing import Protocol

VALID_FOR = 1800  # seconds
VALID_BEFORE = 5  # seconds, in case Kling's clock is behind ours
# A create request can take minutes, so that a token is renewed long before it expires.
RENEW_WHEN_LEFT = 300  # seconds


class TokenSource(Protocol):
    """Provides the tokens of one account; safe to use from several threads."""

    def token(self, now: int) -> str:
        """Return a token that is valid at `now` (Unix seconds) and for a few more minutes."""
        ...

    def renewed(self, rejected: str, now: int) -> str | None:
        """Return another token after Kling rejected this one as not valid now, or None."""
        ...


class ApiKey:
    """A static API key, which Kling accepts as a token (since 2026-06)."""

    def __init__(self, key: str) -> None:
        self._key = key

    def token(self, now: int) -> str:  # noqa: ARG002 - it is always valid
        return self._key

    def renewed(self, rejected: str, now: int) -> str | None:  # noqa: ARG002 - there is no other
        return None


class SignedTokens:
    """Signs JWTs with the secret key, and reuses each one until it is renewed."""

    def __init__(self, access_key: str, secret_key: str) -> None:
        self._access_key = access_key
        self._secret_key = secret_key
        self._lock = threading.Lock()
        self._token = ""
        self._expires_at = 0

    def token(self, now: int) -> str:
        with self._lock:
            left = self._expires_at - now
            # More than VALID_FOR: the clock was set back, and the token is not valid yet.
            if not RENEW_WHEN_LEFT <= left <= VALID_FOR + VALID_BEFORE:
                self._sign(now)
            return self._token

    def renewed(self, rejected: str, now: int) -> str | None:
        with self._lock:
            if self._token == rejected:  # otherwise another thread has renewed it
                self._sign(now)
            return self._token

    def _sign(self, now: int) -> None:
        import jwt  # noqa: PLC0415 - a slow import, which accounts with an API key do not need

        claims = {"iss": self._access_key, "exp": now + VALID_FOR, "nbf": now - VALID_BEFORE}
        with warnings.catch_warnings():
            # Kling chose the length of the key, and its users cannot change it.
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            self._token = jwt.encode(claims, self._secret_key, algorithm="HS256")
        self._expires_at = now + VALID_FOR
