"""Checks the `Authorization` header of requests to Kling's API (Kling API reference, "auth")."""

from __future__ import annotations

import re
import time
from typing import Any

import jwt

from sandbox.providers.request_fields import ApiError

# Public on purpose: they give access to a sandbox only.
ACCESS_KEY = "sandbox-access-key"
SECRET_KEY = "sandbox-secret-key-that-everyone-may-know"  # noqa: S105 - see above
API_KEY = "sandbox-api-key"

BEARER = re.compile(r"Bearer (\S+)")  # exactly one space


def check(header: str | None) -> None:
    """Accept a valid static key or JWT; raise ApiError 1000 to 1004 for anything else."""
    if not header or not header.strip():
        raise ApiError(1001, "Authorization is empty")
    bearer = BEARER.fullmatch(header)
    if bearer is None:
        raise ApiError(1002, "Authorization is invalid: it must be 'Bearer', a space, a token")
    if bearer[1] != API_KEY:
        _check_times(_signed_claims(bearer[1]))


def _signed_claims(token: str) -> dict[str, Any]:
    try:
        head = jwt.get_unverified_header(token)
        claims: dict[str, Any] = jwt.decode(
            token,
            SECRET_KEY,
            algorithms=["HS256"],
            # Errors about the times have their own codes, and are checked after the signature.
            options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
    except jwt.PyJWTError as fault:
        raise ApiError(1000, f"Authentication failed: {fault}") from None
    if head.get("typ") != "JWT":
        raise ApiError(1000, "Authentication failed: the header's typ must be JWT")
    if claims.get("iss") != ACCESS_KEY:
        raise ApiError(1000, "Authentication failed: iss is no access key of this sandbox")
    return claims


def _check_times(claims: dict[str, Any]) -> None:
    now = time.time()
    if _instant(claims, "nbf") > now:
        raise ApiError(1003, "Authorization is not valid yet: nbf is in the future")
    if _instant(claims, "exp") <= now:
        raise ApiError(1004, "Authorization has expired")


def _instant(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ApiError(1000, f"Authentication failed: {name} must be Unix seconds")
    return value
