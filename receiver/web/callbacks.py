"""The way in: a provider's callback is 200 only when it is durably on record."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import UnsupportedMediaType

from receiver import providers, signing
from receiver.clock import now_ms
from receiver.errors import UnknownCallbackUrl
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.tasks import Trust

# Never kept: they carry a visitor's or a proxy's secrets, and say nothing of the callback.
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def blueprint(ingest: Ingest, secrets: Sequence[str]) -> Blueprint:
    """The callback routes. They make no outgoing request and reach no hook."""
    routes = Blueprint("callbacks", __name__)

    @routes.post("/callbacks/<provider>/<task_id>/<token>")
    def with_token(provider: str, task_id: str, token: str) -> Response:
        providers.get(provider)
        if not signing.check(secrets, provider, task_id, token):
            raise UnknownCallbackUrl("wrong token")
        if not request.is_json:
            raise UnsupportedMediaType("Send application/json.")
        callback = Callback(
            provider=provider,
            task_id=task_id,
            body=request.get_data(cache=False),
            received_at=now_ms(),
            headers=_headers(),
            trust=Trust.TOKEN,
        )
        return jsonify(outcome=ingest.accept(callback))

    return routes


def _headers() -> dict[str, str]:
    return {name: value for name, value in request.headers if name.lower() not in SECRET_HEADERS}
