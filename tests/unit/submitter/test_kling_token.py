"""The claims of Kling's tokens, and when a new token is signed."""

import threading

import jwt

from submitter.providers.kling import ApiKey, SignedTokens

SECRET = "a-secret-key-that-is-32-bytes-long"
NOW = 1_800_000_000


def claims(token: str) -> dict[str, object]:
    return jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_signature": True,
        "verify_exp": False, "verify_nbf": False})  # fmt: skip


def test_the_claims_are_those_in_klings_documentation() -> None:
    token = SignedTokens("my-access-key", SECRET).token(NOW)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert claims(token) == {"iss": "my-access-key", "exp": NOW + 1800, "nbf": NOW - 5}


def test_a_token_is_reused_until_less_than_five_minutes_are_left() -> None:
    tokens = SignedTokens("my-access-key", SECRET)
    first = tokens.token(NOW)
    assert tokens.token(NOW + 1500) == first
    later = tokens.token(NOW + 1501)
    assert claims(later)["exp"] == NOW + 1501 + 1800


def test_a_new_token_is_signed_after_the_clock_was_set_back() -> None:
    tokens = SignedTokens("my-access-key", SECRET)
    tokens.token(NOW)
    assert claims(tokens.token(NOW - 3600))["nbf"] == NOW - 3605


def test_a_refused_token_is_replaced_once_for_all_of_its_users() -> None:
    tokens = SignedTokens("my-access-key", SECRET)
    refused = tokens.token(NOW)
    another = tokens.renewed(refused, NOW + 10)
    assert another != refused
    assert tokens.renewed(refused, NOW + 20) == another


def test_many_threads_get_one_token() -> None:
    tokens = SignedTokens("my-access-key", SECRET)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(tokens.token(NOW + n))) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_a_short_secret_signs_without_a_warning() -> None:
    assert SignedTokens("my-access-key", "short").token(NOW)


def test_an_api_key_is_used_unchanged_and_cannot_be_renewed() -> None:
    tokens = ApiKey("static-key")
    assert tokens.token(NOW) == "static-key"
    assert tokens.renewed("static-key", NOW) is None
