"""Decides whether a callback is accepted, by its URL, its credentials and its size.

Used by the Flask view, and by the ASGI app that handles most callbacks without Flask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.sansio.utils import get_content_length

from receiver import providers
from receiver.config.settings import Settings
from receiver.errors import BadSignature, UnknownCallbackUrl
from receiver.events import Callback
from receiver.signing import callback_urls, standard_webhooks
from receiver.tasks import Trust
from receiver.text.redaction import redacted_path
from receiver.web import headers

MAX_BODY = 256 * 1024  # bytes as received; real callbacks have a few kB
INCOMPLETE_BODY = "The body is incomplete, or its chunks are malformed."
TOO_LONG = f"Send less than {MAX_BODY} bytes."


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """The parts of a callback request other than its body.

    `task_id` and `token` come from the URL; both are None for a URL without a token. The names in
    `headers` are capitalised as in Flask, such as `Content-Type`.
    """

    provider: str
    task_id: str | None
    token: str | None
    headers: Mapping[str, str]


def identify(settings: Settings, sent: CallbackRequest) -> tuple[str, ...]:
    """Check the URL. Returns the secrets, one of which must have signed the body, if it is signed.

    This check does not need the body, so invalid requests are rejected before it is read. Raises
    UnknownCallbackUrl, or BadSignature if a required signature is missing.
    """
    _check_provider(sent.provider)
    secrets = settings.webhook_secrets.get(sent.provider, ())
    is_signed = bool(secrets) and standard_webhooks.is_signed(_lowered(sent))
    if sent.task_id is not None:
        if not callback_urls.check(
            settings.callback_secrets, sent.provider, sent.task_id, sent.token or ""
        ):
            raise UnknownCallbackUrl(
                "wrong token: it matches none of CALLBACK_SECRETS for this provider and task",
                "wrong_token",
            )
        # Without secrets, signatures are not checked: this allows deleting all of a provider's
        # secrets while tasks are running.
        return secrets if is_signed else ()
    if not secrets:
        raise UnknownCallbackUrl(
            f"the URL has no token, and no secret is set for {sent.provider}", "no_secret"
        )
    if not is_signed:
        raise BadSignature("not signed, and the URL has no token", "unsigned")
    return secrets


def admit(
    settings: Settings, sent: CallbackRequest, body: bytes, now: int, wall: int | None = None
) -> Callback:
    """Return the callback if it may be recorded. `now` is its arrival time in milliseconds UTC.

    `wall` is the same by this machine's clock, with which the time of a signature is compared.

    Raises the errors of `identify` and `check_size`, and BadSignature if the signature is wrong.
    The Content-Type is ignored. Whether a compressed body can be decompressed is checked later,
    after the body is stored.
    """
    secrets = identify(settings, sent)
    check_size(body, sent.headers)
    if secrets:
        arrived_at = now if wall is None else wall
        standard_webhooks.verify(secrets, _lowered(sent), body, arrived_at / 1000)
    return Callback(
        provider=sent.provider,
        task_id=sent.task_id,
        body=body,
        received_at=now,
        headers=headers.stored_headers(sent.headers.items(), sent.token),
        trust=Trust.SIGNED if secrets else Trust.TOKEN,
    )


def check_size(body: bytes, sent: Mapping[str, str]) -> None:
    """Raises RequestEntityTooLarge, or BadRequest if the body is incomplete.

    `sent` contains the headers, as in `Sent`.
    """
    if len(body) >= MAX_BODY:
        raise RequestEntityTooLarge(TOO_LONG)
    length = get_content_length(sent.get("Content-Length"), sent.get("Transfer-Encoding"))
    if length not in (None, len(body)):
        raise BadRequest("The body is incomplete: it is shorter than its Content-Length.")


def _lowered(sent: CallbackRequest) -> dict[str, str]:
    return headers.lowered(sent.headers.items())


def _check_provider(provider: str) -> None:
    if provider not in providers.PROVIDERS:
        shown = redacted_path("/" + provider)[1:]
        raise UnknownCallbackUrl(f'unknown provider "{shown}"', "unknown_provider")
    if not providers.get(provider).has_callbacks:
        raise UnknownCallbackUrl(f"{provider} has no callbacks", "unknown_provider")
