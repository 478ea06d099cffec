"""Kling's envelope and its error codes (Kling API reference, "error codes")."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify

HTTP_STATUS = {
    1000: 401,
    1001: 401,
    1002: 401,
    1003: 401,
    1004: 401,
    1100: 429,
    1101: 429,
    1102: 429,
    1103: 403,
    1200: 400,
    1201: 400,
    1202: 404,
    1203: 404,
    1300: 400,
    1301: 400,
    1302: 429,
    1303: 429,
    1304: 429,
    5000: 500,
    5001: 503,
    5002: 504,
}


class KlingError(Exception):
    """One of Kling's errors. The code determines the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def success(data: dict[str, Any] | list[dict[str, Any]]) -> Response:
    return jsonify(code=0, message="SUCCEED", request_id=str(uuid.uuid4()), data=data)


def refusal(error: KlingError) -> Response:
    """Return the response for an error, whose envelope has no `data`."""
    answer = jsonify(code=error.code, message=error.message, request_id=str(uuid.uuid4()))
    answer.status_code = HTTP_STATUS[error.code]
    return answer


def framework_error(status: int, reason: str, path: str) -> Response:
    """Return the response of Kling's framework for requests that do not reach the API: without
    a `code`.
    """
    now = datetime.now(UTC)
    answer = jsonify(
        timestamp=f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}+0000",
        status=status,
        error=reason,
        message="No message available",
        path=path,
    )
    answer.status_code = status
    return answer
