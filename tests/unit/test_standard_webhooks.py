"""A provider's signature covers the raw bytes, expires, and may use any of several secrets."""

from __future__ import annotations

import base64
import json
import shlex

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from receiver.cli import main
from receiver.errors import BadSignature
from receiver.signing.standard_webhooks import MAKE_ONE, key_of, sign, verify
from tests.support.samples import payload

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
OTHER = "whsec_" + base64.b64encode(b"another secret of 24 b..").decode()
BODY = payload("kling/signature-vector.json")
HEADERS = json.loads(payload("kling/signature-vector.headers.json"))
SENT = int(HEADERS["webhook-timestamp"])


def headers(**changed: str) -> dict[str, str]:
    return {**HEADERS, **{f"webhook-{name}": value for name, value in changed.items()}}


def test_klings_published_vector_is_accepted() -> None:
    assert len(BODY) == 109
    assert sign(SECRET, HEADERS["webhook-id"], SENT, BODY) == HEADERS["webhook-signature"]
    verify([SECRET], HEADERS, BODY, SENT)


def test_one_valid_signature_for_one_of_the_secrets_is_enough() -> None:
    both = f"{sign(OTHER, '1', SENT, BODY)} {sign(SECRET, '1', SENT, BODY)}"
    verify([SECRET], headers(id="1", signature=both), BODY, SENT)
    verify([OTHER, SECRET], HEADERS, BODY, SENT)
    verify([SECRET], headers(signature=f"v2,abc junk {HEADERS['webhook-signature']}"), BODY, SENT)


@pytest.mark.parametrize("away", [-300, -1, 0, 1, 300])
def test_timestamps_within_five_minutes_are_accepted(away: int) -> None:
    verify([SECRET], HEADERS, BODY, SENT + away)


@pytest.mark.parametrize("away", [-301, 301, 86_400])
def test_an_expired_signature_is_refused(away: int) -> None:
    with pytest.raises(BadSignature, match="300 s"):
        verify([SECRET], HEADERS, BODY, SENT + away)


@pytest.mark.parametrize(
    ("given", "body"),
    [
        (HEADERS, BODY + b" "),
        (HEADERS, json.dumps(json.loads(BODY)).encode()),  # the same document in other bytes
        (headers(id="9876543211"), BODY),
        (headers(timestamp=str(SENT + 1)), BODY),
        (headers(timestamp=f"{SENT}.0"), BODY),
        (headers(timestamp=f" {SENT}"), BODY),
        (headers(timestamp="NaN"), BODY),
        (headers(timestamp="1e9"), BODY),
        (headers(timestamp="-1"), BODY),
        (headers(timestamp="9" * 400), BODY),
        (headers(timestamp="١٧٨١٠٨٠٧٩٤"), BODY),
        (headers(signature=""), BODY),
        (headers(signature="v1,"), BODY),
        (headers(signature="v1"), BODY),
        (headers(signature=HEADERS["webhook-signature"][3:]), BODY),
        (headers(signature="v1," + "A" * 44), BODY),
        (headers(signature="v1,ä\udcff"), BODY),
        (headers(signature="v2," + HEADERS["webhook-signature"][3:]), BODY),
        (headers(id="", timestamp=""), BODY),
        ({}, BODY),
    ],
)
def test_any_other_signature_is_refused(given: dict[str, str], body: bytes) -> None:
    with pytest.raises(BadSignature):
        verify([SECRET], given, body, SENT)


def test_another_secret_does_not_verify() -> None:
    with pytest.raises(BadSignature):
        verify([OTHER], HEADERS, BODY, SENT)
    with pytest.raises(BadSignature):
        verify([], HEADERS, BODY, SENT)


@given(st.text(), st.text(), st.text(), st.binary())
def test_no_header_causes_an_unexpected_error(
    message_id: str, timestamp: str, signature: str, body: bytes
) -> None:
    given_headers = headers(id=message_id, timestamp=timestamp, signature=signature)
    with pytest.raises(BadSignature):
        verify([SECRET], given_headers, body, SENT)


@given(st.binary(min_size=24), st.text(min_size=1), st.integers(0, 10**12 - 1), st.binary())
def test_our_own_signature_is_accepted(
    key: bytes, message_id: str, timestamp: int, body: bytes
) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    try:
        message_id.encode()
    except UnicodeEncodeError:
        return
    given_headers = headers(
        id=message_id, timestamp=str(timestamp), signature=sign(secret, message_id, timestamp, body)
    )
    verify([secret], given_headers, body, timestamp)


@pytest.mark.parametrize("secret", ["whsec_", "", "whsec_!!!", "whsec_ä", "not base64 at all"])
def test_a_secret_without_a_key_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^is "):
        key_of(secret)


@pytest.mark.parametrize("length", [1, 8, 16, 22, 23])
def test_a_key_that_could_be_guessed_is_refused(length: int) -> None:
    secret = base64.b64encode(b"k" * length).decode()
    for given_secret in (f"whsec_{secret}", secret, f"whsec_{secret.rstrip('=')}"):
        with pytest.raises(ValueError, match=f"too short: it has {length} bytes .* and 24 are"):
            key_of(given_secret)
    with pytest.raises(ValueError, match="too short"):
        verify([f"whsec_{secret}"], HEADERS, BODY, SENT)


@pytest.mark.parametrize("length", [24, 25, 32, 64, 65])
def test_a_key_of_24_bytes_or_more_is_accepted(length: int) -> None:
    assert key_of("whsec_" + base64.b64encode(b"k" * length).decode()) == b"k" * length


def test_the_command_in_error_messages_creates_a_valid_secret() -> None:
    program, *words = shlex.split(MAKE_ONE)
    assert program == "receiver"
    made, other = (CliRunner().invoke(main, words).stdout.strip() for _ in range(2))
    assert made.startswith("whsec_")
    assert len(key_of(made)) == 32
    assert made != other


def test_padding_may_be_omitted() -> None:
    assert key_of(SECRET.rstrip("=")) == key_of(SECRET)
