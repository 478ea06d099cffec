"""Errors as RFC 9457 problem documents; the one table from an error to its HTTP status."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from flask import Flask, Response, json
from werkzeug.exceptions import HTTPException

from receiver.errors import (
    BadSignature,
    CallbackReceiverError,
    NotFound,
    NotJson,
    NotTheProtocol,
    StoreUnavailable,
    UnknownCallbackUrl,
)

log = structlog.get_logger()
_STATUS: dict[type[Exception], HTTPStatus] = {
    BadSignature: HTTPStatus.UNAUTHORIZED,
    NotFound: HTTPStatus.NOT_FOUND,
    NotJson: HTTPStatus.BAD_REQUEST,
    NotTheProtocol: HTTPStatus.UNPROCESSABLE_ENTITY,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
NOTHING_HERE = "Nothing is served at this address."


def register(error: type[Exception], status: HTTPStatus) -> None:
    """Answer this error with this status; for packages that add routes of their own."""
    _STATUS[error] = status


def problem(status: int, detail: str, **headers: str) -> Response:
    """One problem document."""
    document = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    response = Response(json.dumps(document), status, mimetype="application/problem+json")
    response.headers.update(headers)
    return response


def install(app: Flask) -> None:
    """Answer every error of this application with a problem document."""
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(CallbackReceiverError, _of_ours)
    app.register_error_handler(UnknownCallbackUrl, _nothing_here)


def _nothing_here(_: Exception) -> Response:
    """What an unknown path, an unknown provider and a wrong token get: the same bytes."""
    return problem(404, NOTHING_HERE)


def _of_http(error: HTTPException) -> Response:
    status = error.code or 500
    if status == HTTPStatus.NOT_FOUND:
        return _nothing_here(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem(status, "Something broke here; the log of the web process says what.")
    response = problem(status, error.description or HTTPStatus(status).phrase)
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _of_ours(error: CallbackReceiverError) -> Response:
    statuses = (_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    status = next(statuses, HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, StoreUnavailable):
        log.error("not stored", error=str(error))
        detail = "The callback could not be stored now; send it again later."
        return problem(status, detail, **{"Retry-After": str(error.retry_after)})
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("unforeseen", error=repr(error))
        return problem(status, "Something broke here; the log of the web process says what.")
    return problem(status, str(error))
