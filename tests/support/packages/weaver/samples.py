"""Samples of Weaver's messages; a test copies this module to those of the other providers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from receiver.providers import PROVIDERS as RECEIVING
from submitter.providers import PROVIDERS
from tests.support.providers.base import REASON, Reply, Samples
from tests.support.scripted_provider import TOKEN

SECRETS = "weaver-secret-of-the-tests"
ECHOED = "a-secret-that-weaver-repeats"


def response(status: str, **more: Any) -> bytes:
    task = {"task_id": "w-1", "status": status, "config": {"webhook": {"secret": ECHOED}}, **more}
    return json.dumps({"code": 200, "message": "success", "data": task}).encode()


def callback(**more: Any) -> bytes:
    task = {"task_id": "w-1", "status": "Completed", "config": {"webhook": {"secret": ECHOED}}}
    return json.dumps({"timestamp": 1, "data": task | more}).encode()


def signed(content: bytes, at: int) -> Mapping[str, str]:
    incoming: Any = __import__(type(RECEIVING["weaver"]).__module__, fromlist=["signature"])
    return {
        "x-weaver-timestamp": str(at),
        "x-weaver-signature": incoming.signature(SECRETS, str(at), content),
    }


def error(status: int, message: str = "what it says") -> Reply:
    return Reply(status=status, body={"code": status, "message": message, "data": None})


SAMPLES = Samples(
    open=lambda client: PROVIDERS["weaver"](client, TOKEN),  # type: ignore[call-arg]
    created=response("pending"),
    created_id="w-1",
    queried=(response("Processing"),),
    queried_id="w-1",
    succeeded=response("completed", output="https://cdn.example/0.png"),
    refused=json.dumps({"code": 400, "message": REASON}).encode(),
    callback=callback(output=["https://cdn.example/0.png"]),
    without_result=callback(output=None),
    wrong_input=error(400),
    wrong_key=error(401),
    limited=error(429),
    server_error=error(503),
    unknown_id=error(404),
    sign=signed,
    secrets=SECRETS,
    secret=ECHOED,
)
