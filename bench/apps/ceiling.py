"""A Flask app that only returns 200: the cost of the server alone."""

from flask import Flask

app = Flask(__name__)


@app.post("/callbacks/<provider>/<task_id>/<token>")
def callback(provider: str, task_id: str, token: str) -> str:  # noqa: ARG001
    return "ok"
