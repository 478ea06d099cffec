"""`GET /api/events`: status changes as server-sent events."""

from __future__ import annotations

from flask import Blueprint, Response, request
from marshmallow import Schema, ValidationError, fields, validate

from receiver import providers
from receiver.serializers.route_spec import RouteSpec, described
from receiver.stores.sql.event_log import PATTERN, Position
from receiver.web import problems
from receiver.web.api import StatusField, loaded
from receiver.web.live.feed import EventFeed
from receiver.web.live.listener import HAND_OVER, EventSelection, Listener
from receiver.web.live.on_threads import stream_on_thread, while_needed

MEDIA_TYPE = "text/event-stream"
LAST_EVENT_ID = "Last-Event-ID"
WRONG_ID = "is not an id of this stream; use the `id` of an event, or omit it for new events"
RESUME = "The `id` of the last event that was received; the stream begins with the event after it."


class EventQuery(Schema):
    """The filters of the stream, as for lists of tasks; the status is that of the event."""

    last_event_id = fields.String(
        load_default=None,
        validate=validate.Regexp(PATTERN, error=WRONG_ID),
        metadata={
            "pattern": PATTERN,
            "description": "The header Last-Event-ID, for clients that cannot set headers.",
        },
    )
    task = fields.String(validate=validate.Length(1, 64))
    provider = fields.String(validate=validate.OneOf(sorted(providers.PROVIDERS)))
    status = StatusField()
    reference = fields.String(validate=validate.Length(1, 1000))
    account = fields.String(validate=validate.Length(1, 64))
    provider_task_id = fields.String(validate=validate.Length(1, 1000))


def blueprint(feed: EventFeed) -> Blueprint:
    """Return the route."""
    routes = Blueprint("live", __name__)
    routes.register_error_handler(ValidationError, problems.not_valid)

    @routes.get("/api/events")
    @described(
        RouteSpec(
            answers={200: MEDIA_TYPE},
            query=EventQuery,
            headers={LAST_EVENT_ID: RESUME},
            patterns={LAST_EVENT_ID: PATTERN},
            refuses=(422,),
            example="status=succeeded",
        )
    )
    def events() -> Response:
        """Status changes as server-sent events, in the format of webhooks.

        The stream does not end by itself. Each process serves a limited number of streams; further
        requests get a 503.
        """
        query = loaded(EventQuery())
        text = request.headers.get(LAST_EVENT_ID) or query.pop("last_event_id")
        query.pop("last_event_id", None)
        try:
            after = Position.parse(text) if text else None
        except ValueError:
            raise ValidationError({LAST_EVENT_ID: [WRONG_ID]}) from None
        return stream(feed, feed.listen(EventSelection(**query), after))

    return routes


def stream(feed: EventFeed, listener: Listener) -> Response:
    """Return a response whose body is the text of the listener."""
    if request.method == "HEAD":
        listener.close()
        response = Response(iter(()), mimetype=MEDIA_TYPE)
    elif HAND_OVER in request.environ:
        request.environ[HAND_OVER] = listener  # the event loop sends it
        response = Response(iter(()), mimetype=MEDIA_TYPE)
    else:
        is_needed = while_needed(request.environ, feed.is_serving)
        response = Response(stream_on_thread(listener, is_needed), mimetype=MEDIA_TYPE)
        response.call_on_close(listener.close)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # otherwise nginx buffers the events
    return response
