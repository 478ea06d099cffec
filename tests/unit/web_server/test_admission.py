"""Only provider, credentials and size decide whether a callback is accepted."""

from __future__ import annotations

import gzip
import socket
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from receiver import providers
from receiver.config.settings import Settings
from receiver.errors import BadSignature, UnknownCallbackUrl
from receiver.signing.callback_urls import mint
from receiver.signing.standard_webhooks import TOLERANCE, sign
from receiver.tasks import Trust
from receiver.text.limits import MAX_BODY
from receiver.web.callbacks import CallbackRequest, admit, check_size, identify
from tests.support.samples import SECRET, body

KEY, NEW_KEY, OTHER_KEY = ("whsec_" + text * 8 for text in ("a2V5", "bmV3", "bm90"))
NOW = 1_765_519_851_000
JSON = {"Content-Type": "application/json"}
BODY = body()
WITHOUT_KEY = Settings("sqlite://", (SECRET, "an older secret of ours"))
WITH_KEY = replace(WITHOUT_KEY, webhook_secrets={"kling": (KEY, NEW_KEY)})
WITH_EMPTY_KEYS = replace(WITHOUT_KEY, webhook_secrets={"kling": ()})
BOTH = {"without a key": WITHOUT_KEY, "with a key": WITH_KEY}


def token(provider: str = "kling", task: str = "task-1", secret: str = SECRET) -> str:
    return mint(secret, provider, task)


def sent(**more: Any) -> CallbackRequest:
    return replace(CallbackRequest("kling", "task-1", token(), JSON), **more)


def signed(
    key: str = KEY, raw: bytes = BODY, at: int = NOW // 1000, **more: Any
) -> CallbackRequest:
    headers = {"Webhook-Id": "m", "Webhook-Timestamp": str(at)}
    headers["Webhook-Signature"] = sign(key, "m", at, raw)
    return sent(headers={**JSON, **headers}, **more)


def unaddressed(request: CallbackRequest) -> CallbackRequest:
    """Return the same request for the address of the provider, which has no token."""
    return replace(request, task_id=None, token=None)


@dataclass(frozen=True)
class Refused:
    """The expected refusal; `kind` is the reason that the error states."""

    error: type[Exception]
    kind: str | None = None
    at_the_address: bool = True  # so that the body need not have arrived


WRONG_TOKEN = Refused(UnknownCallbackUrl, "wrong_token")
UNKNOWN = Refused(UnknownCallbackUrl, "unknown_provider")
NO_SECRET = Refused(UnknownCallbackUrl, "no_secret")
UNSIGNED = Refused(BadSignature, "unsigned")
STALE = Refused(BadSignature, "stale_signature", at_the_address=False)
WRONG_SIGNATURE = Refused(BadSignature, "wrong_signature", at_the_address=False)

TOKENS: dict[str, tuple[CallbackRequest, Trust | Refused]] = {
    "the token": (sent(), Trust.TOKEN),
    "of an older secret": (sent(token=token(secret="an older secret of ours")), Trust.TOKEN),
    "of another secret": (sent(token=token(secret="another secret")), WRONG_TOKEN),
    "of another task": (sent(token=token(task="task-2")), WRONG_TOKEN),
    "of another provider": (sent(token=token("appypie")), WRONG_TOKEN),
    "a shorter one": (sent(token=token()[:-1]), WRONG_TOKEN),
    "a longer one": (sent(token=token() + "x"), WRONG_TOKEN),
    "none": (sent(token=""), WRONG_TOKEN),
    "not ASCII": (sent(token="\N{GRINNING FACE}"), WRONG_TOKEN),
    "for another known provider": (sent(provider="appypie"), WRONG_TOKEN),
    "an unknown provider": (sent(provider="nobody", token=token("nobody")), UNKNOWN),
    "no provider": (sent(provider="", token=token("")), UNKNOWN),
    "a provider without callbacks": (sent(provider="modellix", token=token("modellix")), UNKNOWN),
    "without a task, for an unknown provider": (unaddressed(sent(provider="nobody")), UNKNOWN),
    "without a task, for one without callbacks": (unaddressed(sent(provider="modellix")), UNKNOWN),
}
SIGNATURES: dict[str, tuple[Settings, CallbackRequest, Trust | Refused]] = {
    "with the key": (WITH_KEY, signed(), Trust.SIGNED),
    "with the new key": (WITH_KEY, signed(NEW_KEY), Trust.SIGNED),
    "with another key": (WITH_KEY, signed(OTHER_KEY), WRONG_SIGNATURE),
    "of another body": (WITH_KEY, signed(raw=b"{}"), WRONG_SIGNATURE),
    "of the maximum age": (WITH_KEY, signed(at=NOW // 1000 - TOLERANCE), Trust.SIGNED),
    "too old": (WITH_KEY, signed(at=NOW // 1000 - TOLERANCE - 1), STALE),
    "too new": (WITH_KEY, signed(at=NOW // 1000 + TOLERANCE + 1), STALE),
    "with a wrong token": (WITH_KEY, signed(token=token(task="x")), WRONG_TOKEN),
    "any, without a key": (WITHOUT_KEY, signed(OTHER_KEY), Trust.TOKEN),
    "any, with all keys deleted": (WITH_EMPTY_KEYS, signed(OTHER_KEY), Trust.TOKEN),
    "none, with a token": (WITH_KEY, sent(), Trust.TOKEN),
    "without a token": (WITH_KEY, unaddressed(signed()), Trust.SIGNED),
    "a wrong one, without a token": (WITH_KEY, unaddressed(signed(OTHER_KEY)), WRONG_SIGNATURE),
    "by nothing": (WITH_KEY, unaddressed(sent()), UNSIGNED),
    "without a token and a key": (WITHOUT_KEY, unaddressed(signed()), NO_SECRET),
    "without a token, with all keys deleted": (WITH_EMPTY_KEYS, unaddressed(signed()), NO_SECRET),
    "without a token, of another provider": (
        WITH_KEY,
        unaddressed(signed(provider="appypie")),
        NO_SECRET,
    ),
}
TYPES = (
    "application/json",
    "application/json; charset=utf-8",
    "application/cloudevents+json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/octet-stream",
    "json",
    "; charset",
    "\xe9\xff",
    "",
)


def test_a_signature_is_checked_with_the_clock_of_this_machine() -> None:
    """The time of receipt comes from the clock of the record, possibly that of another machine."""
    request = signed(at=NOW // 1000)
    later = NOW + 2 * TOLERANCE * 1000
    assert admit(WITH_KEY, request, BODY, later, NOW).received_at == later
    with pytest.raises(BadSignature):
        admit(WITH_KEY, request, BODY, NOW, later)


def kind_of(error: BaseException) -> str | None:
    return getattr(error, "kind", None)


@pytest.fixture(autouse=True)
def _no_input_or_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function is called in an event loop, where input and output would block."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("input or output")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("time.sleep", refuse)


def check(settings: Settings, request: CallbackRequest, expected: Trust | Refused) -> None:
    if isinstance(expected, Trust):
        identify(settings, request)
        assert admit(settings, request, BODY, NOW).trust is expected
        return
    with pytest.raises(expected.error) as found:
        admit(settings, request, BODY, NOW)
    assert kind_of(found.value) == expected.kind
    if expected.at_the_address:
        with pytest.raises(expected.error) as found:
            identify(settings, request)
        assert kind_of(found.value) == expected.kind
    else:
        identify(settings, request)  # the body has to arrive first


@pytest.mark.parametrize("settings", BOTH.values(), ids=BOTH)
@pytest.mark.parametrize(("request_", "expected"), TOKENS.values(), ids=TOKENS)
def test_the_address_decides(
    settings: Settings, request_: CallbackRequest, expected: Trust | Refused
) -> None:
    check(settings, request_, expected)


@pytest.mark.parametrize(("settings", "request_", "expected"), SIGNATURES.values(), ids=SIGNATURES)
def test_the_signature_decides(
    settings: Settings, request_: CallbackRequest, expected: Trust | Refused
) -> None:
    check(settings, request_, expected)


@pytest.mark.parametrize("name", sorted(providers.PROVIDERS))
def test_a_provider_is_accepted_if_it_has_callbacks(name: str) -> None:
    request = sent(provider=name, token=token(name))
    check(WITHOUT_KEY, request, Trust.TOKEN if providers.get(name).has_callbacks else UNKNOWN)


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_header_names_may_have_any_letter_case(spelling: Any) -> None:
    request = signed()
    headers = {spelling(name): value for name, value in request.headers.items()}
    headers = {**headers, **JSON}
    assert admit(WITH_KEY, replace(request, headers=headers), BODY, NOW).trust is Trust.SIGNED


@pytest.mark.parametrize("headers", [{}, *({"Content-Type": kind} for kind in TYPES)])
def test_any_content_type_is_accepted(headers: dict[str, str]) -> None:
    assert admit(WITHOUT_KEY, sent(headers=headers), BODY, NOW).body == BODY


@pytest.mark.parametrize("codings", ["gzip", "x-gzip, deflate", "br", "identity"])
@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_the_content_encoding_is_stored_and_the_body_not_decompressed(
    codings: str, spelling: Any
) -> None:
    """Nothing is decompressed for a sender that has not been authenticated."""
    many = {f"X-{number}": "v" * (999 if number < 20 else 5) for number in range(80)}
    request = sent(headers={**many, spelling("Content-Encoding"): codings})
    callback = admit(WITHOUT_KEY, request, b"not compressed", NOW)
    assert callback.headers["Content-Encoding"] == codings
    assert callback.body == b"not compressed"


def test_a_signature_covers_the_compressed_body(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(BODY)
    headers = {"Content-Encoding": "gzip"}
    right, wrong = signed(raw=packed), signed(raw=BODY)
    monkeypatch.setattr(zlib, "decompressobj", lambda *_: pytest.fail("the body was decompressed"))
    for request in (right, unaddressed(right)):
        encoded = replace(request, headers={**request.headers, **headers})
        assert admit(WITH_KEY, encoded, packed, NOW).trust is Trust.SIGNED
    for request in (wrong, unaddressed(wrong)):
        encoded = replace(request, headers={**request.headers, **headers})
        with pytest.raises(BadSignature):
            admit(WITH_KEY, encoded, packed, NOW)


@pytest.mark.parametrize(
    ("size", "headers", "error"),
    [
        (0, {}, None),
        (MAX_BODY, {}, None),
        (MAX_BODY + 1, {}, RequestEntityTooLarge),
        (MAX_BODY + 1, {"Content-Length": "5"}, RequestEntityTooLarge),
        (5, {"Content-Length": "5"}, None),
        (4, {"Content-Length": "5"}, BadRequest),
        (6, {"Content-Length": "5"}, BadRequest),
        (0, {"Content-Length": "5"}, BadRequest),
        (5, {"Transfer-Encoding": "chunked"}, None),
    ],
)
@pytest.mark.parametrize("settings", BOTH.values(), ids=BOTH)
def test_the_size_decides(
    settings: Settings, size: int, headers: dict[str, str], error: type[Exception] | None
) -> None:
    raw, request = b"x" * size, sent(headers={**JSON, **headers})
    if error is None:
        check_size(raw, headers)
        assert admit(settings, request, raw, NOW).body == raw
        return
    with pytest.raises(error):
        check_size(raw, headers)
    with pytest.raises(error):
        admit(settings, request, raw, NOW)


def test_of_several_problems_the_address_is_reported_first() -> None:
    """A sender with a wrong address learns nothing else."""
    request = sent(token="wrong", headers={"Content-Type": "text/plain"})
    with pytest.raises(UnknownCallbackUrl):
        admit(WITH_KEY, request, b"x" * (MAX_BODY + 1), NOW)
    with pytest.raises(RequestEntityTooLarge):
        admit(WITH_KEY, signed(OTHER_KEY), b"x" * (MAX_BODY + 1), NOW)


def test_a_callback_contains_the_body_and_the_harmless_headers() -> None:
    headers = {**JSON, "User-Agent": "kling", "Cookie": "a=b", "X-Url": f"/callbacks/x {token()}"}
    callback = admit(WITHOUT_KEY, sent(headers=headers), BODY, NOW)
    assert (callback.provider, callback.task_id) == ("kling", "task-1")
    assert (callback.body, callback.received_at) == (BODY, NOW)
    assert callback.headers == {**JSON, "User-Agent": "kling"}


def test_a_refusal_never_contains_a_token() -> None:
    for request, expected in TOKENS.values():
        if isinstance(expected, Refused):
            with pytest.raises(expected.error) as found:
                admit(WITHOUT_KEY, request, BODY, NOW)
            assert not request.token or request.token not in str(found.value)


def test_a_refused_provider_name_that_may_be_a_secret_is_not_shown() -> None:
    secret = token()
    with pytest.raises(UnknownCallbackUrl) as found:
        identify(WITHOUT_KEY, sent(provider=secret))
    assert secret not in str(found.value)


def test_a_short_body_is_refused_with_the_text_of_docs_operating() -> None:
    with pytest.raises(BadRequest, match="The body is incomplete"):
        check_size(b"{}", {"Content-Length": "5"})
