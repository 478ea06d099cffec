"""Loses or replaces the response to a create request, if the task's scenario requires it."""

from __future__ import annotations

import socket
from contextlib import suppress

from flask import Response, g, request

from sandbox.components import components
from sandbox.engine import CreateRequest, Task
from sandbox.scenarios.faults import AnswerFault

GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"


def accepted(order: CreateRequest) -> Task:
    """Create the task and note it, so that `spoilt` can find the fault of its response.

    Raises TooManyRunningError and ExternalIdTakenError.
    """
    task: Task = components().engine.submit(order)
    g.created = task
    return task


def spoilt(response: Response) -> Response:
    """Return the response with the fault in the scenario of the task that was just created."""
    task: Task | None = g.get("created")
    fault = task.scenario.answer if task else None
    if fault is AnswerFault.ERROR:
        return Response(GATEWAY, 502, mimetype="text/html")
    if fault is AnswerFault.LOST:
        with suppress(OSError):
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return response
