"""A receiver as a user might write it: Flask and sqlite3, one commit per request."""

import event_table
from flask import Flask, abort, request

app = Flask(__name__)


@app.post("/callbacks/<provider>/<task_id>/<token>")
def callback(provider: str, task_id: str, token: str) -> dict[str, str]:
    if not event_table.is_ours(provider, task_id, token):
        abort(404)
    return {"outcome": event_table.keep(task_id, request.get_data())}
