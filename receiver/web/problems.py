"""Errors as RFC 9457 problem documents; the one table from an error to its HTTP status."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, g, request
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException

from receiver.errors import (
    BadSignature,
    BodyTooLong,
    CallbackReceiverError,
    NotFound,
    NotJson,
    NotTheProtocol,
    StoreUnavailable,
    UnknownCallbackUrl,
)
from receiver.text.display import json_ascii

log = structlog.get_logger()
_STATUS: dict[type[Exception], HTTPStatus] = {
    BadSignature: HTTPStatus.UNAUTHORIZED,
    BodyTooLong: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    NotFound: HTTPStatus.NOT_FOUND,
    NotJson: HTTPStatus.BAD_REQUEST,
    NotTheProtocol: HTTPStatus.UNPROCESSABLE_ENTITY,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
NOTHING_HERE = "Nothing is served at this address."
NOT_STORED = "The callback could not be stored now; send it again later."
BROKEN = "Something broke here; the log of the web process says what."


def register(error: type[Exception], status: HTTPStatus) -> None:
    """Answer this error with this status; for packages that add routes of their own.

    To be called before the application is made. An error may carry `retry_after` (seconds), and
    `members`: what its document holds besides title, status and detail.
    """
    _STATUS[error] = status


MEDIA_TYPE = "application/problem+json"


def document(status: int, detail: str, members: Mapping[str, Any] | None = None) -> str:
    """One problem document."""
    phrase = HTTPStatus(status).phrase
    return json_ascii(
        {"title": phrase, "status": int(status), "detail": detail, **(members or {})},
        sort_keys=True,
    )


def problem(
    status: int,
    detail: str,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response with one problem document."""
    response = Response(document(status, detail, members), status, mimetype=MEDIA_TYPE)
    response.headers.update(headers or {})
    return response


def invalid(faults: Mapping[str, str]) -> Response:
    """A 422 that names each field's fault."""
    errors = [{"field": field, "detail": detail} for field, detail in sorted(faults.items())]
    detail = "; ".join(f"{error['field']}: {error['detail']}" for error in errors)
    return problem(422, detail, {"errors": errors})


def not_valid(error: ValidationError) -> Response:
    """The 422 of what a schema refused."""
    messages: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return invalid({name: " ".join(map(str, texts)) for name, texts in messages.items()})


def install(app: Flask) -> None:
    """Answer every error of this application with a problem document.

    Why a request is refused stands in `g.refusal`, also where the answer does not tell;
    `g.unproven` is one word for it, where the sender did not prove who it is.
    """
    app.register_error_handler(HTTPException, _of_http)
    app.register_error_handler(CallbackReceiverError, _of_ours)
    app.register_error_handler(UnknownCallbackUrl, _nothing_here)
    for error in _STATUS:
        app.register_error_handler(error, _of_ours)
    app.register_error_handler(Exception, _unforeseen)


def _nothing_here(error: Exception) -> Response:
    """What an unknown path, an unknown provider and a wrong token get: the same bytes."""
    g.refusal = str(error) if isinstance(error, UnknownCallbackUrl) else "unknown path"
    g.unproven = getattr(error, "kind", None)
    return problem(404, NOTHING_HERE)


def _of_http(error: HTTPException) -> Response:
    status = error.code or 500
    if status == HTTPStatus.NOT_FOUND:
        return _nothing_here(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem(status, BROKEN)
    g.refusal = error.description or HTTPStatus(status).phrase
    response = problem(status, error.description or HTTPStatus(status).phrase)
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _of_ours(error: Exception) -> Response:
    statuses = (_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    status = next(statuses, HTTPStatus.INTERNAL_SERVER_ERROR)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("unforeseen", error=repr(error))
        return problem(status, BROKEN)
    g.refusal = _detail(error)
    g.unproven = getattr(error, "kind", None)
    response = problem(status, g.refusal, getattr(error, "members", None))
    retry_after: float | None = getattr(error, "retry_after", None)
    if retry_after is not None:
        response.headers["Retry-After"] = seconds(retry_after)
    return response


def seconds(retry_after: float) -> str:
    """The value of Retry-After: whole seconds."""
    return str(math.ceil(retry_after))


def _unforeseen(error: Exception) -> Response:
    """What nobody thought of. Flask's own log line would hold the path, and so the token."""
    log.error("a request broke", exc_info=error)
    return problem(500, BROKEN)


def _detail(error: Exception) -> str:
    if not isinstance(error, StoreUnavailable):
        return str(error)
    log.error("the record is unavailable", error=str(error))
    g.store_failed = True
    if request.path.startswith("/callbacks"):
        return NOT_STORED
    return "The record is unavailable now; try again later."
