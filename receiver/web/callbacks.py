"""The way in: a provider's callback is 200 only when it is durably on record."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flask import Blueprint, Response, request
from gunicorn.http.errors import ParseException
from structlog.contextvars import bind_contextvars
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.wsgi import get_content_length

from receiver import providers, signing, standard_webhooks
from receiver.clock import now_ms
from receiver.described import Description, described
from receiver.documents import OutcomeDocument
from receiver.errors import BadSignature, UnknownCallbackUrl
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.providers import kling, legacy
from receiver.redaction import redacted_path
from receiver.settings import Settings
from receiver.tasks import Trust
from receiver.web import headers
from receiver.web.ordinary import BODIES

TAKES = Description(
    answers={200: OutcomeDocument},
    refuses=(400, 401, 404, 413, 415, 422, 429),
    body=(kling.Envelope, legacy.Envelope),
)
PONGS = Description(answers={200: "text/plain"}, refuses=(400, 404, 413, 429), needs_record=False)
ROUTE = "/callbacks/<provider>/<task_id>/<token>"
LONGEST_CALLBACK = 256 * 1024  # bytes; real ones are a few kB


def blueprint(ingest: Ingest, settings: Settings) -> Blueprint:
    """The callback routes. They make no outgoing request and reach no hook."""
    routes = Blueprint("callbacks", __name__)

    # What is not a POST gets the same 405, whoever asks; Flask would answer OPTIONS by itself.
    only = {"methods": ["POST"], "provide_automatic_options": False}

    @routes.route(ROUTE, **only)
    @described(TAKES)
    def with_token(provider: str, task_id: str, token: str) -> Response:
        """A callback, trusted by its token; by its signature, where one comes and we hold a key."""
        _must_call_back(provider)
        if not signing.check(settings.callback_secrets, provider, task_id, token):
            raise UnknownCallbackUrl(
                "wrong token: none of CALLBACK_SECRETS made it for this provider and task",
                "wrong_token",
            )
        bind_contextvars(task=task_id)  # now it is known to be ours, and may stand in the log
        return accept(provider, task_id, signers(settings, provider, request.headers), token)

    @routes.route("/callbacks/<provider>", **only)
    @described(TAKES)
    def signed(provider: str) -> Response:
        """A callback that is trusted by its signature alone."""
        _must_call_back(provider)
        secrets = settings.webhook_secrets.get(provider, ())
        if not secrets:
            raise UnknownCallbackUrl(
                f"without a token, and no secret is set for {provider}", "no_secret"
            )
        return accept(provider, None, secrets)

    def accept(
        provider: str, task_id: str | None, secrets: tuple[str, ...], token: str | None = None
    ) -> Response:
        """Record the callback; with secrets, only if one of them signed it.

        What cannot be right is refused before its body is read.
        """
        if secrets and not standard_webhooks.is_signed(headers.lowered(request.headers)):
            raise BadSignature("not signed, and the address has no token", "unsigned")
        body = _body()
        if secrets:
            named = headers.lowered(request.headers)
            standard_webhooks.verify(secrets, named, body, now_ms() / 1000)
        if not request.is_json:
            raise UnsupportedMediaType("Send application/json.")
        callback = Callback(
            provider=provider,
            task_id=task_id,
            body=body,
            received_at=now_ms(),
            headers=headers.kept(request.headers, token),
            trust=Trust.SIGNED if secrets else Trust.TOKEN,
        )
        return Response(BODIES[ingest.accept(callback)], content_type="application/json")

    of_doctor = routes.route(f"/callbacks/{signing.DOCTOR}/<nonce>/<token>", **only)
    of_doctor(_doctor(settings.callback_secrets))
    return routes


def signers(settings: Settings, provider: str, sent: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The secrets, one of which must have signed a callback that has the right token; often none.

    `sent`: its headers. A provider whose secrets were all deleted goes on unsigned, also for
    running tasks.
    """
    secrets = settings.webhook_secrets.get(provider, ())
    return secrets if secrets and standard_webhooks.is_signed(headers.lowered(sent)) else ()


def _doctor(secrets: tuple[str, ...]) -> Callable[[str, str], Response]:
    @described(PONGS)
    def doctor(nonce: str, token: str) -> Response:
        """The self-test of `receiver doctor`: did a callback get through? Nothing is recorded."""
        if not signing.check(secrets, signing.DOCTOR, nonce, token):
            raise UnknownCallbackUrl(
                "wrong token: none of CALLBACK_SECRETS made it for the doctor", "wrong_token"
            )
        _body()
        return Response("pong", mimetype="text/plain")

    return doctor


def _must_call_back(provider: str) -> None:
    if provider not in providers.PROVIDERS:
        shown = redacted_path("/" + provider)[1:]
        raise UnknownCallbackUrl(f'unknown provider "{shown}"', "unknown_provider")
    if not providers.get(provider).has_callbacks:
        raise UnknownCallbackUrl(f"{provider} has no callbacks", "unknown_provider")


def _body() -> bytes:
    """The whole body, or a refusal: nothing cut short is ever kept."""
    environ = request.environ
    length = get_content_length(environ)
    try:
        # A length that is given needs no stream that counts.
        is_known = length is not None and length < LONGEST_CALLBACK
        body = environ["wsgi.input"].read(length) if is_known else request.get_data(cache=False)
    except (OSError, ValueError, ParseException) as error:
        raise BadRequest("The body broke off, or its chunks are malformed.") from error
    if len(body) >= LONGEST_CALLBACK:
        # A chunked body that is longer arrives here cut at the limit, as if it had ended.
        raise RequestEntityTooLarge(f"Send less than {LONGEST_CALLBACK} bytes.")
    if length not in (None, len(body)):
        raise BadRequest("The body is shorter than its Content-Length.")
    return body
