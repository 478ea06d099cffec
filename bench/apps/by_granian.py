"""Our web process as an ASGI app for Granian: the same handler, with another HTTP server."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from receiver.web.server.callback_app import CallbackApp
from receiver.web.server.flask_bridge import FlaskBridge
from receiver.web.server.gunicorn import post_worker_init, threads
from wsgi import app as flask_app

handler = flask_app.extensions["callbacks"]
callback_app = CallbackApp(handler, FlaskBridge(cast("Any", flask_app), threads))


class Connection:
    """The part of our connection that the app uses for incomplete requests."""

    was_aborted = has_ended = False

    def allow_long_body(self) -> None:
        """Do nothing, because Granian does not limit bodies."""


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve one request; attach the handler to the event loop before the first one."""
    if scope["type"] == "lifespan":
        await receive()
        handler.serve_in(asyncio.get_running_loop())
        post_worker_init(None)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    scope["state"] = {"connection": Connection()}
    await callback_app(scope, receive, send)
