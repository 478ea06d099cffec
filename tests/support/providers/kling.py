"""Samples of Kling's messages: a task, and the error codes of its envelope."""

from __future__ import annotations

import json
from collections.abc import Mapping

from receiver.signing.standard_webhooks import ID, SIGNATURE, TIMESTAMP, sign
from submitter.providers.kling import ApiKey, Kling
from tests.support.providers.base import REASON, Reply, Samples
from tests.support.samples import body, payload
from tests.support.scripted_provider import TOKEN

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


def enveloped(task: bytes) -> bytes:
    """Return a task in the envelope of a response."""
    return json.dumps({"code": 0, "data": json.loads(task)}).encode()


def error(http_status: int, code: int) -> Reply:
    """Return a response with an error code."""
    document = {"code": code, "message": "the provider's message", "request_id": "r-1"}
    return Reply(status=http_status, body=document)


def signed(content: bytes, at: int) -> Mapping[str, str]:
    return {ID: "msg_1", TIMESTAMP: str(at), SIGNATURE: sign(SECRET, "msg_1", at, content)}


SAMPLES = Samples(
    open=lambda client: Kling(client, ApiKey(TOKEN)),
    created=payload("kling/create-try-on.json"),
    created_id="CjikY2gHPbcAAAAABI5n9g",
    queried=(payload("kling/query-processing.json"),),
    queried_id="822953089408827433",
    succeeded=enveloped(body()),
    refused=json.dumps({"code": 400, "message": REASON}).encode(),
    callback=body(),
    without_result=body(task_result={}),
    wrong_input=error(400, 1201),
    wrong_key=error(401, 1000),
    limited=error(429, 1303),
    server_error=error(500, 5000),
    unknown_id=error(404, 1203),
    empty_list={"code": 0, "data": []},
    sign=signed,
    secrets=SECRET,
)
