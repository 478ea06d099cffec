"""Samples of Modellix's messages."""

from __future__ import annotations

import json

from submitter.providers.modellix import Modellix
from tests.support.providers.base import REASON, Reply, Samples
from tests.support.samples import payload
from tests.support.scripted_provider import TOKEN

TASK = {"task_id": "1", "status": "success", "resources": ["https://cdn.example/0.png"]}
EMPTY = {**TASK, "resources": []}

SAMPLES = Samples(
    open=lambda client: Modellix(client, TOKEN),
    repeats_creates=False,
    created=payload("modellix/create.json"),
    created_id="task-vto-v15-abc123",
    queried=(payload("modellix/query-success.json"),),
    queried_id="task-vto-v15-abc123",
    succeeded=json.dumps({"code": 0, "data": TASK}).encode(),
    refused=json.dumps({"code": 400, "message": REASON}).encode(),
    without_result=json.dumps({"code": 0, "data": EMPTY}).encode(),
    wrong_input=Reply(status=400, body=payload("modellix/error-400.json")),
    wrong_key=Reply(status=401, body={"code": 401, "message": "Unauthorized: invalid key"}),
    limited=Reply(status=429, body={"code": 429, "message": "Too many requests: 100 a minute"}),
    server_error=Reply(status=503, body={"code": 503, "message": "Unavailable: maintenance"}),
    unknown_id=Reply(status=404, body={"code": 404, "message": "Not found: no such task"}),
)
