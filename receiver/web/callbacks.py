"""The Flask routes for callbacks, and the rules by which a callback is accepted.

The rules (`admit`) are also used by the ASGI app, which handles most callbacks without Flask. A
callback gets a 200 only after it was durably recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from flask import Blueprint, Response, request
from gunicorn.http.errors import ParseException
from structlog.contextvars import bind_contextvars
from werkzeug.exceptions import BadRequest, MethodNotAllowed, RequestEntityTooLarge
from werkzeug.sansio.utils import get_content_length

from receiver import providers
from receiver.clock import now_ms, wall_ms
from receiver.config.settings import Settings
from receiver.errors import BadSignature, UnknownCallbackUrl
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.serializers.route_spec import RouteSpec, described
from receiver.serializers.schemas import OutcomeDocument
from receiver.signing import callback_urls, standard_webhooks
from receiver.tasks import Outcome, Trust
from receiver.text import content_encoding, limits
from receiver.text.display import redacted

_SIGNATURE_FORMAT = (
    "One or more signatures, separated by spaces: `v1,` and the Base64 of the HMAC-SHA256 of "
    "`<webhook-id>.<webhook-timestamp>.<body>`."
)
SIGNATURE = {
    standard_webhooks.ID: ("The id of the message; repetitions have the same one.", "^[!-~]+$"),
    standard_webhooks.TIMESTAMP: ("When it was sent, in Unix seconds.", "^[0-9]{1,12}$"),
    standard_webhooks.SIGNATURE: (
        _SIGNATURE_FORMAT,
        "^v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)*$",
    ),
}
CALLBACK_SPEC = RouteSpec(
    answers={200: OutcomeDocument},
    refuses=(400, 401, 404, 413, 422, 429),
    body=providers.callback_schemas(),
    signature=SIGNATURE,
    example={"task_id": "8283…", "task_status": "processing"},
)
PROBE_SPEC = RouteSpec(
    answers={200: "text/plain"},
    refuses=(400, 401, 404, 413, 429),
    signature=SIGNATURE,
    needs_record=False,
)
DOCTOR_SPEC = RouteSpec(
    answers={200: "text/plain"}, refuses=(400, 404, 413, 429), needs_record=False
)
ROUTE = "/callbacks/<provider>/<task_id>/<token>"
ROUTE_WITHOUT_TOKEN = "/callbacks/<provider>"  # noqa: S105 - a route
INCOMPLETE_BODY = "The body is incomplete, or its chunks are malformed."
TOO_LONG = f"The body has more than {limits.MAX_BODY} bytes."
_STORABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
# Such headers contain secrets of a visitor, a proxy or the provider, nothing about the callback.
_SECRET_NAME = re.compile(
    r"auth|cookie|token|secret|passw|credential|session|signature|api-?key|access-?key|csrf|jwt",
    re.IGNORECASE,
)
# A callback path, in any encoding that proxies use; its last part is the token.
_CALLBACK_PATH = re.compile(r"callbacks\W", re.IGNORECASE)
# The bodies of responses with status 200.
BODIES = {outcome: f'{{"outcome":"{outcome}"}}\n' for outcome in Outcome}


def blueprint(ingest: Ingest, settings: Settings) -> Blueprint:
    """Return the callback routes. They send no requests and run no hooks."""
    routes = Blueprint("callbacks", __name__)

    @described(CALLBACK_SPEC)
    def receive(provider: str, task_id: str | None = None, token: str | None = None) -> Response:
        """Receive a callback. It has a token in its URL, or a valid signature, or both."""
        sent = CallbackRequest(provider, task_id, token, dict(request.headers))
        identify(settings, sent)  # rejects an invalid URL before the body is read
        if task_id is not None:
            bind_contextvars(task=task_id)  # the token was valid, so the id may be logged
        callback = admit(settings, sent, _body())
        outcome = ingest.accept(callback)
        return Response(BODIES[outcome], content_type="application/json")

    @described(PROBE_SPEC)
    def probe(provider: str, task_id: str | None = None, token: str | None = None) -> Response:
        """Answer a provider that probes the URL before it uses it.

        Nothing is recorded. Without a token, the probe has to be signed like a callback.
        """
        if provider == callback_urls.DOCTOR and task_id is not None:
            raise MethodNotAllowed(["POST"])
        sent = CallbackRequest(provider, task_id, token, dict(request.headers))
        identify(settings, sent)
        if task_id is None:
            admit(settings, sent, _body())
        return Response(mimetype="text/plain")

    # All methods except these and HEAD get a 405. By default, Flask would answer OPTIONS itself.
    only_post: dict[str, Any] = {"methods": ["POST"], "provide_automatic_options": False}
    only_get: dict[str, Any] = {"methods": ["GET"], "provide_automatic_options": False}
    for name, route in (("with_token", ROUTE), ("signed", ROUTE_WITHOUT_TOKEN)):
        routes.add_url_rule(route, name, receive, **only_post)
        routes.add_url_rule(route, f"probe_{name}", probe, **only_get)

    @routes.route(f"/callbacks/{callback_urls.DOCTOR}/<nonce>/<token>", **only_post)
    @described(DOCTOR_SPEC)
    def doctor(nonce: str, token: str) -> Response:
        """Answer the self-test of `receiver doctor`. Nothing is recorded."""
        secrets = settings.callback_secrets
        if not callback_urls.check(secrets, callback_urls.DOCTOR, nonce, token):
            raise UnknownCallbackUrl(
                "wrong token from receiver doctor: it matches none of CALLBACK_SECRETS",
                "wrong_token",
            )
        check_size(_body(), dict(request.headers))
        return Response("pong", mimetype="text/plain")

    return routes


def _body() -> bytes:
    """Read the body. Raises BadRequest, RequestEntityTooLarge."""
    environ = request.environ
    length = get_content_length(
        environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")
    )
    if length is not None and length > limits.MAX_BODY:
        raise RequestEntityTooLarge(TOO_LONG)
    try:
        if length is None:
            # werkzeug truncates a chunked body at its limit; one more byte makes that visible.
            request.max_content_length = limits.MAX_BODY + 1
            return request.get_data(cache=False)
        # If the length is known, read directly: Flask's stream would only enforce the limit.
        body: bytes = environ["wsgi.input"].read(length)
    except (OSError, ValueError, ParseException) as error:
        raise BadRequest(INCOMPLETE_BODY) from error
    return body


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


def admit(
    settings: Settings,
    sent: CallbackRequest,
    body: bytes,
    now: int | None = None,
    wall: int | None = None,
) -> Callback:
    """Return the callback if it may be recorded.

    `now` is its arrival time in milliseconds UTC. The time of a signature is compared with `wall`,
    the arrival time according to this machine. Both default to the present.

    Raises the errors of `identify` and `check_size`, and BadSignature if the signature is wrong.
    The Content-Type is ignored. Whether a compressed body can be decompressed is checked later,
    after the body is stored.
    """
    secrets = identify(settings, sent)
    check_size(body, sent.headers)
    received_at = now_ms() if now is None else now
    verification = providers.get(sent.provider).verification
    trust = Trust.TOKEN
    if secrets and verification is not None:
        arrived_at = wall or now or wall_ms()
        verification.verify(_lowered(sent.headers), body, secrets, arrived_at / 1000)
        trust = Trust.SIGNED if verification.covers_body else Trust.TOKEN
    callback = Callback(
        provider=sent.provider,
        task_id=sent.task_id,
        body=body,
        received_at=received_at,
        headers=stored_headers(sent.headers.items(), sent.token),
        trust=trust,
    )
    return providers.without_secrets(callback)


def identify(settings: Settings, sent: CallbackRequest) -> tuple[str, ...]:
    """Check the URL. Return the secrets, one of which must have signed the body, if it is signed.

    This check does not need the body, so invalid requests are rejected before it is read. Raises
    UnknownCallbackUrl, or BadSignature if a required signature is missing.
    """
    adapter = providers.get(sent.provider)
    if not adapter.has_callbacks:
        raise UnknownCallbackUrl(f"{sent.provider} has no callbacks", "unknown_provider")
    verification = adapter.verification
    secrets = settings.webhook_secrets.get(sent.provider, ())
    is_signed = (
        verification is not None
        and bool(secrets)
        and verification.is_signed(_lowered(sent.headers))
    )
    if sent.task_id is not None:
        if not callback_urls.check(
            settings.callback_secrets, sent.provider, sent.task_id, sent.token or ""
        ):
            raise UnknownCallbackUrl(
                "wrong token: it matches none of CALLBACK_SECRETS for this provider and task",
                "wrong_token",
            )
        if secrets and not is_signed and verification is not None and verification.is_mandatory:
            raise BadSignature(f"not signed, but {sent.provider} signs every callback", "unsigned")
        # Without secrets, signatures are not checked: this allows deleting all of a provider's
        # secrets while tasks are running.
        return secrets if is_signed else ()
    if verification is None or not verification.covers_body:
        raise UnknownCallbackUrl("the URL has no token, and the body is not signed", "no_secret")
    if not secrets:
        raise UnknownCallbackUrl(
            f"the URL has no token, and no secret is set for {sent.provider}", "no_secret"
        )
    if not is_signed:
        raise BadSignature("not signed, and the URL has no token", "unsigned")
    return secrets


def check_size(body: bytes, headers: Mapping[str, str]) -> None:
    """Raise RequestEntityTooLarge, or BadRequest if the body is incomplete.

    The names in `headers` are capitalised as in `CallbackRequest`.
    """
    if len(body) > limits.MAX_BODY:
        raise RequestEntityTooLarge(TOO_LONG)
    length = get_content_length(headers.get("Content-Length"), headers.get("Transfer-Encoding"))
    if length not in (None, len(body)):
        raise BadRequest("The body is incomplete: it is shorter than its Content-Length.")


def stored_headers(headers: Iterable[tuple[str, str]], token: str | None) -> dict[str, str]:
    """Return the headers that are stored with a callback: few, short, and without secrets.

    `token` is the one in the path of the request.
    """
    stored: dict[str, str] = {}
    characters_left = limits.MAX_STORED_CHARACTERS
    for name, value in headers:
        size = len(name) + len(value)
        # The encoding is needed to parse the stored body again.
        is_encoding = name.lower() == content_encoding.HEADER.lower()
        fits = is_encoding or (len(stored) < limits.MAX_STORED_HEADERS and size <= characters_left)
        if fits and len(value) <= limits.MAX_STORED_HEADER and _is_storable(name):
            decoded, redacted_value = _read(value)
            if redacted_value is not None and not (token and token in decoded):
                stored[content_encoding.HEADER if is_encoding else name] = redacted_value
                characters_left -= size
    return stored


# Most headers are the same in every callback of a provider, so the results are cached.
@lru_cache(maxsize=1024)
def _is_storable(name: str) -> bool:
    return _STORABLE_NAME.fullmatch(name) is not None and not _SECRET_NAME.search(name)


@lru_cache(maxsize=1024)
def _read(value: str) -> tuple[str, str | None]:
    """Return the decoded value, and the value to store; None if it contains a callback path."""
    decoded = unquote(unquote(value))  # a proxy may have encoded it once more
    return decoded, None if _CALLBACK_PATH.search(decoded + " ") else redacted(value)


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
