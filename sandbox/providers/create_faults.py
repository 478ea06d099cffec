"""What becomes of the answer to a create, where a scenario wants it lost or wrong."""

from __future__ import annotations

import socket
from contextlib import suppress

from flask import Response, g, request

from sandbox.components import components
from sandbox.engine import CreateRequest, Task
from sandbox.scenarios.faults import AnswerFault

GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"


def accepted(order: CreateRequest) -> Task:
    """The task of this order; `spoilt` looks at what its answer is to become.

    Raises TooManyRunningError and ExternalIdTakenError.
    """
    task: Task = components().engine.submit(order)
    g.created = task
    return task


def spoilt(response: Response) -> Response:
    """The answer as the scenario of the task that was just created wants it."""
    task: Task | None = g.get("created")
    fault = task.scenario.answer if task else None
    if fault is AnswerFault.ERROR:
        return Response(GATEWAY, 502, mimetype="text/html")
    if fault is AnswerFault.LOST:
        with suppress(OSError):
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return response
