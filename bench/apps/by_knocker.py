"""Knocker behind Flask, as in its documentation: the app has the route, Knocker the inbox."""

import json
import os

import event_table
import knocker
from flask import Flask, abort, request

app = Flask(__name__)
inbox = knocker.open(os.environ["BENCH_DATABASE"])
inbox.add_endpoint(name="kling", path="/callbacks/kling")


@app.post("/callbacks/<provider>/<task_id>/<token>")
def callback(provider: str, task_id: str, token: str) -> tuple[dict[str, bool], int]:
    if not event_table.is_ours(provider, task_id, token):
        abort(404)
    body = request.get_data()
    key = f"{task_id}:{json.loads(body)['task_status']}"
    kept = inbox.receive(endpoint="kling", body=body, headers=dict(request.headers), dedupe_key=key)
    return {"duplicate": kept.duplicate}, kept.status_code
