"""The Flask routes for callbacks. A callback gets a 200 only after it was durably recorded."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, request
from gunicorn.http.errors import ParseException
from structlog.contextvars import bind_contextvars
from werkzeug.exceptions import BadRequest, MethodNotAllowed, RequestEntityTooLarge
from werkzeug.wsgi import get_content_length

from receiver.clock import now_ms, wall_ms
from receiver.config.settings import Settings
from receiver.errors import UnknownCallbackUrl
from receiver.ingest import Ingest
from receiver.providers import kling, legacy
from receiver.serializers.route_spec import RouteSpec, described
from receiver.serializers.schemas import OutcomeDocument
from receiver.signing import callback_urls
from receiver.tasks import Outcome
from receiver.web.admission import (
    INCOMPLETE_BODY,
    MAX_BODY,
    TOO_LONG,
    CallbackRequest,
    admit,
    check_size,
    identify,
)

CALLBACK_SPEC = RouteSpec(
    answers={200: OutcomeDocument},
    refuses=(400, 401, 404, 413, 422, 429),
    body=(kling.Envelope, legacy.Envelope),
)
PROBE_SPEC = RouteSpec(
    answers={200: "text/plain"}, refuses=(400, 401, 404, 413, 429), needs_record=False
)
DOCTOR_SPEC = RouteSpec(
    answers={200: "text/plain"}, refuses=(400, 404, 413, 429), needs_record=False
)
ROUTE = "/callbacks/<provider>/<task_id>/<token>"
BODIES = {
    outcome: f'{{"outcome":"{outcome}"}}\n' for outcome in Outcome
}  # response bodies of status 200


def blueprint(ingest: Ingest, settings: Settings) -> Blueprint:
    """The callback routes. They send no requests and run no hooks."""
    routes = Blueprint("callbacks", __name__)

    # All methods except these and HEAD get a 405. By default, Flask would answer OPTIONS itself.
    only = {"methods": ["POST"], "provide_automatic_options": False}
    probes = {"methods": ["GET"], "provide_automatic_options": False}

    @routes.route(ROUTE, **only)
    @described(CALLBACK_SPEC)
    def with_token(provider: str, task_id: str, token: str) -> Response:
        """A callback that is trusted by its token, and by its signature if that was verified."""
        return accept(CallbackRequest(provider, task_id, token, dict(request.headers)))

    @routes.route("/callbacks/<provider>", **only)
    @described(CALLBACK_SPEC)
    def signed(provider: str) -> Response:
        """A callback that is trusted by its signature alone."""
        return accept(CallbackRequest(provider, None, None, dict(request.headers)))

    @routes.route(ROUTE, **probes)
    @described(PROBE_SPEC)
    def probe_with_token(provider: str, task_id: str, token: str) -> Response:
        """Answer a provider that probes the URL before it uses it. Nothing is recorded."""
        if provider == callback_urls.DOCTOR:
            raise MethodNotAllowed(["POST"])
        identify(settings, CallbackRequest(provider, task_id, token, dict(request.headers)))
        return Response(mimetype="text/plain")

    @routes.route("/callbacks/<provider>", **probes)
    @described(PROBE_SPEC)
    def probe_signed(provider: str) -> Response:
        """Answer a probe of the URL without a token, which has to be signed like a callback."""
        sent = CallbackRequest(provider, None, None, dict(request.headers))
        identify(settings, sent)
        admit(settings, sent, _body(), now_ms(), wall_ms())
        return Response(mimetype="text/plain")

    def accept(sent: CallbackRequest) -> Response:
        """Record the callback. An invalid URL is rejected before the body is read."""
        identify(settings, sent)
        if sent.task_id is not None:
            bind_contextvars(task=sent.task_id)  # the token was valid, so the id may be logged
        callback = admit(settings, sent, _body(), now_ms(), wall_ms())
        return Response(BODIES[ingest.accept(callback)], content_type="application/json")

    doctor_route = routes.route(f"/callbacks/{callback_urls.DOCTOR}/<nonce>/<token>", **only)
    doctor_route(_doctor(settings.callback_secrets))
    return routes


def _doctor(secrets: tuple[str, ...]) -> Callable[[str, str], Response]:
    @described(DOCTOR_SPEC)
    def doctor(nonce: str, token: str) -> Response:
        """The target of the self-test of `receiver doctor`. It records nothing."""
        if not callback_urls.check(secrets, callback_urls.DOCTOR, nonce, token):
            raise UnknownCallbackUrl(
                "wrong token: it matches none of CALLBACK_SECRETS for the doctor", "wrong_token"
            )
        check_size(_body(), dict(request.headers))
        return Response("pong", mimetype="text/plain")

    return doctor


def _body() -> bytes:
    """Read the body. Raises BadRequest, RequestEntityTooLarge."""
    environ = request.environ
    length = get_content_length(environ)
    if length is not None and length >= MAX_BODY:
        raise RequestEntityTooLarge(TOO_LONG)
    try:
        # If the length is known, read directly: Flask's stream would only enforce the limit.
        body: bytes = (
            request.get_data(cache=False) if length is None else environ["wsgi.input"].read(length)
        )
    except (OSError, ValueError, ParseException) as error:
        raise BadRequest(INCOMPLETE_BODY) from error
    return body
