"""The Flask routes for callbacks. A callback gets a 200 only after it was durably recorded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from flask import Blueprint, Response, request
from gunicorn.http.errors import ParseException
from structlog.contextvars import bind_contextvars
from werkzeug.exceptions import BadRequest, MethodNotAllowed, RequestEntityTooLarge
from werkzeug.wsgi import get_content_length

from receiver.config.settings import Settings
from receiver.errors import UnknownCallbackUrl
from receiver.ingest import Ingest
from receiver.providers import callback_schemas
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
    body=callback_schemas(),
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
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_-]+)+")  # nothing to normalize
_INVISIBLE = "\u200b\u2060\ufeff"  # not spaces according to Unicode


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
    routes.add_url_rule(ROUTE, "with_token", receive, **only_post)
    routes.add_url_rule(ROUTE_WITHOUT_TOKEN, "signed", receive, **only_post)
    routes.add_url_rule(ROUTE, "probe_with_token", probe, **only_get)
    routes.add_url_rule(ROUTE_WITHOUT_TOKEN, "probe_signed", probe, **only_get)

    @routes.route(f"/callbacks/{callback_urls.DOCTOR}/<nonce>/<token>", **only_post)
    @described(DOCTOR_SPEC)
    def doctor(nonce: str, token: str) -> Response:
        """Answer the self-test of `receiver doctor`. Nothing is recorded."""
        secrets = settings.callback_secrets
        if not callback_urls.check(secrets, callback_urls.DOCTOR, nonce, token):
            raise UnknownCallbackUrl(
                "wrong token: it matches none of CALLBACK_SECRETS for the doctor", "wrong_token"
            )
        check_size(_body(), dict(request.headers))
        return Response("pong", mimetype="text/plain")

    return routes


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
        path = environ.get("PATH_INFO", "")
        if not _PLAIN_PATH.fullmatch(path):
            decoded = path.encode("latin-1").decode("utf-8", "replace")
            normalized_path = normalized(decoded)
            if normalized_path != decoded:
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
