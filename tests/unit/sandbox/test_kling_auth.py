"""Each invalid authorization of Kling's API has its own error code."""

from __future__ import annotations

import time
import warnings
from typing import Any

import jwt
import pytest

from sandbox.providers import kling_auth
from sandbox.providers.kling_auth import ACCESS_KEY, API_KEY, SECRET_KEY
from sandbox.providers.kling_envelope import HTTP_STATUS
from sandbox.providers.request_fields import ApiError

NOW = int(time.time())


def token(secret: str = SECRET_KEY, algorithm: str = "HS256", typ: str = "JWT", **more: Any) -> str:
    claims = {"iss": ACCESS_KEY, "exp": NOW + 1800, "nbf": NOW - 5, **more}
    present = {name: value for name, value in claims.items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about short keys, which are intended here
        return jwt.encode(present, secret, algorithm, headers={"typ": typ})


@pytest.mark.parametrize("header", [f"Bearer {API_KEY}", f"Bearer {token()}"])
def test_the_static_key_and_a_signed_token_are_accepted(header: str) -> None:
    kling_auth.check(header)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, 1001),
        ("", 1001),
        ("  ", 1001),
        (API_KEY, 1002),
        (f"bearer {API_KEY}", 1002),
        (f"Bearer  {API_KEY}", 1002),
        (f"Bearer\t{API_KEY}", 1002),
        (f"Bearer {API_KEY} ", 1002),
        (f"Basic {API_KEY}", 1002),
        ("Bearer ", 1002),
        ("Bearer another-key", 1000),
        (f"Bearer {token(secret='x' * 40)}", 1000),
        (f"Bearer {token(algorithm='HS384')}", 1000),
        (f"Bearer {token(secret='', algorithm='none')}", 1000),
        (f"Bearer {token(typ='at+jwt')}", 1000),
        (f"Bearer {token(iss='another-account')}", 1000),
        (f"Bearer {token(iss=None)}", 1000),
        (f"Bearer {token(exp=None)}", 1000),
        (f"Bearer {token(nbf=None)}", 1000),
        (f"Bearer {token(nbf=NOW + 3600)}", 1003),
        (f"Bearer {token(exp=NOW - 1)}", 1004),
        (f"Bearer {token(exp=NOW - 1, secret='x' * 40)}", 1000),
    ],
)
def test_every_mistake_has_its_own_code(header: str | None, code: int) -> None:
    with pytest.raises(ApiError) as refused:
        kling_auth.check(header)
    assert refused.value.code == code
    assert HTTP_STATUS[code] == 401


def test_an_invalid_token_with_a_valid_format_is_refused() -> None:
    with pytest.raises(ApiError):
        kling_auth.check(f"Bearer {token()[:-2]}xx")
