"""Samples of Appy Pie's messages."""

from __future__ import annotations

import json

from submitter.providers.appypie import AppyPie
from tests.support.providers.base import REASON, Reply, Samples
from tests.support.samples import body, payload
from tests.support.scripted_provider import TOKEN

SAMPLES = Samples(
    open=lambda client: AppyPie(client, TOKEN),
    created=payload("appypie/create.json"),
    created_id="ChBRS2c7DlgAAAAAAXXXX",
    queried=(payload("appypie/query-succeed.json"),),
    queried_id="ChBRS2c7DlgAAAAAAAXXXX",
    succeeded=payload("appypie/query-succeed.json"),
    refused=json.dumps({"code": 400, "message": REASON}).encode(),
    callback=body(),
    without_result=body(task_result={}),
    wrong_input=Reply(status=400, body={"error": "human_image is required"}),
    wrong_key=Reply(status=401, body={"error": "invalid subscription key"}),
    limited=Reply(status=429, body={"error": "rate limit is exceeded"}),
    server_error=Reply(status=500, body={"error": "internal server error"}),
    unknown_id=Reply(status=200, body=payload("appypie/task-not-found.json")),
)
