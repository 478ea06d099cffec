"""Error responses as RFC 9457 problem documents, with one table of errors and HTTP statuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, g, request
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException

from receiver import errors
from receiver.text.display import json_ascii

log = structlog.get_logger()
_STATUS: dict[type[Exception], HTTPStatus] = {
    errors.BadSignature: HTTPStatus.UNAUTHORIZED,
    errors.BodyTooLong: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.NotJson: HTTPStatus.BAD_REQUEST,
    errors.NotTheProtocol: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TooManyListeners: HTTPStatus.SERVICE_UNAVAILABLE,
}
MEDIA_TYPE = "application/problem+json"
NOTHING_HERE = "Nothing is served at this address."
NOT_STORED = "The callback could not be stored; send it again later."
UNAVAILABLE = "The record is unavailable; retry later."
INTERNAL_ERROR = "Internal error; the log of the web process has the details."


def register(error: type[Exception], status: HTTPStatus) -> None:
    """Answer this error with this status. Used by packages that add routes of their own.

    Call this before `create_app`. An error may have `retry_after` (seconds), and `members`, which
    are added to its document besides title, status and detail.
    """
    _STATUS[error] = status


def problem(
    status: int,
    detail: str,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a response with a problem document."""
    title = HTTPStatus(status).phrase
    document = {"title": title, "status": int(status), "detail": detail, **(members or {})}
    response = Response(json_ascii(document, sort_keys=True), status, mimetype=MEDIA_TYPE)
    response.headers.update(headers or {})
    return response


def invalid(faults: Mapping[str, str]) -> Response:
    """Return a 422 that names the fault of each field."""
    listed = [{"field": field, "detail": detail} for field, detail in sorted(faults.items())]
    detail = "; ".join(f"{fault['field']}: {fault['detail']}" for fault in listed)
    return problem(422, detail, {"errors": listed})


def not_valid(error: ValidationError) -> Response:
    """Return a 422 for data that a schema rejected."""
    messages: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return invalid({name: " ".join(map(str, texts)) for name, texts in messages.items()})


def record_unavailable(error: errors.StoreUnavailable, *, is_callback: bool) -> Response:
    """Log the error, and return a response for it, usually a 503."""
    log.error("the record is unavailable", error=str(error))
    return _response_to(error, NOT_STORED if is_callback else UNAVAILABLE)


def install(app: Flask) -> None:
    """Answer every error of this application with a problem document.

    `g.refusal` is set to the reason, even if the response does not state it. If the sender was not
    authenticated, `g.unproven` is set to the reason in one word. `g.store_failed` is set if the
    record was unavailable.
    """
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(errors.CallbackReceiverError, _on_known_error)
    app.register_error_handler(errors.UnknownCallbackUrl, _nothing_here)
    for error in _STATUS:
        app.register_error_handler(error, _on_known_error)
    app.register_error_handler(Exception, _on_unexpected_error)


def _nothing_here(error: Exception) -> Response:
    """Return the same bytes for an unknown path, an unknown provider and a wrong token."""
    g.refusal = str(error) if isinstance(error, errors.UnknownCallbackUrl) else "unknown path"
    g.unproven = getattr(error, "kind", None)
    return problem(404, NOTHING_HERE)


def _on_http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if status == HTTPStatus.NOT_FOUND:
        return _nothing_here(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem(status, INTERNAL_ERROR)
    g.refusal = error.description or HTTPStatus(status).phrase
    headers = {
        name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")
    }
    return problem(status, g.refusal, headers=headers)


def _on_known_error(error: Exception) -> Response:
    if isinstance(error, errors.StoreUnavailable):
        g.store_failed = True
        return record_unavailable(error, is_callback=request.path.startswith("/callbacks"))
    if _status_of(error) is HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("an error has no HTTP status", error=repr(error))
        return problem(500, INTERNAL_ERROR)
    g.refusal = str(error)
    g.unproven = getattr(error, "kind", None)
    return _response_to(error, str(error))


def _on_unexpected_error(error: Exception) -> Response:
    """Log the error. Flask's own log line would contain the path, and so the token."""
    log.error("a request failed", exc_info=error)
    return problem(500, INTERNAL_ERROR)


def _response_to(error: Exception, detail: str) -> Response:
    response = problem(_status_of(error), detail, getattr(error, "members", None))
    retry_after: float | None = getattr(error, "retry_after", None)
    if retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(retry_after))
    return response


def _status_of(error: Exception) -> HTTPStatus:
    statuses = (_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    return next(statuses, HTTPStatus.INTERNAL_SERVER_ERROR)
