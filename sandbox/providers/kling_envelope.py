"""Kling's envelope and its error codes (Kling API reference, "error codes")."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Response, jsonify, request

from sandbox.providers.request_fields import ApiError

if TYPE_CHECKING:
    from werkzeug.exceptions import HTTPException

CODES = {  # by HTTP status
    400: (1200, 1201, 1300, 1301),
    401: (1000, 1001, 1002, 1003, 1004),
    403: (1103,),
    404: (1202, 1203),
    429: (1100, 1101, 1102, 1302, 1303, 1304),
    500: (5000,),
    503: (5001,),
    504: (5002,),
}
# The beginnings of the documented paths. The sandbox supports only some of the APIs below them.
DOCUMENTED = ("/v1/images/", "/v1/videos/", "/v1/audio/", "/v1/general/", "/account/")
HTTP_STATUS = {code: status for status, codes in CODES.items() for code in codes}


def success(data: dict[str, Any] | list[dict[str, Any]]) -> Response:
    return jsonify(code=0, message="SUCCEED", request_id=str(uuid.uuid4()), data=data)


def refusal(error: ApiError) -> Response:
    """Return the response for an error, whose envelope has no `data`."""
    answer = jsonify(code=error.code, message=error.message, request_id=str(uuid.uuid4()))
    answer.status_code = HTTP_STATUS[error.code]
    return answer


def before_the_api(error: HTTPException) -> Response:
    """Return the response for a call that the sandbox does not support.

    Paths that Kling documents get its envelope with code 1202, other paths the response of its
    framework, which has no `code`.
    """
    if error.code in (404, 405) and request.path.startswith(DOCUMENTED):
        call = f"{request.method} {request.path}"
        return refusal(ApiError(1202, f"the sandbox does not support {call}"))
    status = HTTPStatus(error.code or HTTPStatus.NOT_FOUND)
    now = datetime.now(UTC)
    answer = jsonify(
        timestamp=f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}+0000",
        status=status,
        error=status.phrase,
        message="No message available",
        path=request.path,
    )
    answer.status_code = status
    return answer
