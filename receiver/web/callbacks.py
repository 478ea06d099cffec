"""The Flask routes for callbacks. A callback gets a 200 only after it was durably recorded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from flask import Blueprint, Response, request
from gunicorn.http.errors import ParseException
from structlog.contextvars import bind_contextvars
from werkzeug.exceptions import BadRequest, MethodNotAllowed, RequestEntityTooLarge
from werkzeug.wsgi import get_content_length

from receiver.config.settings import Settings
from receiver.errors import UnknownCallbackUrl
from receiver.ingest import Ingest
from receiver.providers import kling, legacy
from receiver.serializers.route_spec import RouteSpec, described
from receiver.serializers.schemas import OutcomeDocument
from receiver.signing import callback_urls
from receiver.tasks import Outcome
from receiver.text import limits
from receiver.web.admission import (
    INCOMPLETE_BODY,
    TOO_LONG,
    CallbackRequest,
    admit,
    check_size,
    identify,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

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
ROUTE_WITHOUT_TOKEN = "/callbacks/<provider>"  # noqa: S105 - a route
# The bodies of responses with status 200.
BODIES = {outcome: f'{{"outcome":"{outcome}"}}\n' for outcome in Outcome}

PART_COUNTS = (2, 4)  # of a callback path: with the provider, or the provider, task and token
# A query or fragment whose first character was percent-encoded or is missing.
_APPENDED = re.compile(r"[?&#;]")
_INVISIBLE = "\u200b\u2060\ufeff"  # not spaces according to Unicode


def blueprint(ingest: Ingest, settings: Settings) -> Blueprint:
    """Return the callback routes. They send no requests and run no hooks."""
    routes = Blueprint("callbacks", __name__)

    # All methods except these and HEAD get a 405. By default, Flask would answer OPTIONS itself.
    only_post = {"methods": ["POST"], "provide_automatic_options": False}
    only_get = {"methods": ["GET"], "provide_automatic_options": False}

    @routes.route(ROUTE, **only_post)
    @described(CALLBACK_SPEC)
    def with_token(provider: str, task_id: str, token: str) -> Response:
        """A callback that is trusted by its token, and by its signature if that was verified."""
        return receive(CallbackRequest(provider, task_id, token, dict(request.headers)))

    @routes.route(ROUTE_WITHOUT_TOKEN, **only_post)
    @described(CALLBACK_SPEC)
    def signed(provider: str) -> Response:
        """A callback that is trusted by its signature alone."""
        return receive(CallbackRequest(provider, None, None, dict(request.headers)))

    def receive(sent: CallbackRequest) -> Response:
        """Admit, parse and record the callback, and respond with its outcome."""
        identify(settings, sent)  # rejects an invalid URL before the body is read
        if sent.task_id is not None:
            bind_contextvars(task=sent.task_id)  # the token was valid, so the id may be logged
        callback = admit(settings, sent, _body())
        outcome = ingest.accept(callback)
        return Response(BODIES[outcome], content_type="application/json")

    @routes.route(ROUTE, **only_get)
    @described(PROBE_SPEC)
    def probe_with_token(provider: str, task_id: str, token: str) -> Response:
        """Answer a provider that probes the URL before it uses it. Nothing is recorded."""
        if provider == callback_urls.DOCTOR:
            raise MethodNotAllowed(["POST"])
        identify(settings, CallbackRequest(provider, task_id, token, dict(request.headers)))
        return Response(mimetype="text/plain")

    @routes.route(ROUTE_WITHOUT_TOKEN, **only_get)
    @described(PROBE_SPEC)
    def probe_signed(provider: str) -> Response:
        """Answer a probe of the URL without a token, which has to be signed like a callback."""
        sent = CallbackRequest(provider, None, None, dict(request.headers))
        identify(settings, sent)
        admit(settings, sent, _body())
        return Response(mimetype="text/plain")

    doctor_route = routes.route(f"/callbacks/{callback_urls.DOCTOR}/<nonce>/<token>", **only_post)
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


class CallbackPaths:
    """WSGI middleware that normalizes callback paths which a sender or a proxy has altered."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        normalized_path = normalized(path)
        if normalized_path != path:
            environ["PATH_INFO"] = normalized_path
        return self._app(environ, start_response)


def normalized(path: str) -> str:
    """Return the path of a callback without additions; return any other path unchanged.

    Removes repeated and trailing slashes, spaces around each part, and a query after the token.
    Decodes remaining percent-encodings. The provider, the task and the token do not change, because
    they never contain such characters.
    """
    if "callbacks" not in path:
        return path
    plain = _APPENDED.split(unquote(path), maxsplit=1)[0]
    parts = [part.strip().strip(_INVISIBLE).strip() for part in plain.split("/")]
    parts = [part for part in parts if part]
    rejoined = "/" + "/".join(parts)
    is_callback = len(parts) in PART_COUNTS and parts[0] == "callbacks" and rejoined.isascii()
    return rejoined if is_callback else path
