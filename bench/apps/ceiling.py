"""A Flask app that does nothing but answer 200: what the front alone costs."""

from flask import Flask

app = Flask(__name__)


@app.post("/callbacks/<provider>/<task_id>/<token>")
def callback(provider: str, task_id: str, token: str) -> str:  # noqa: ARG001
    return "ok"
