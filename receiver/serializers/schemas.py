"""The schemas of JSON documents in API responses and deliveries, for OpenAPI and for tests."""

from __future__ import annotations

from functools import partial

from marshmallow import INCLUDE, Schema, fields, validate

from receiver.deliveries import GIVEN_UP, State
from receiver.events import Source
from receiver.tasks import IdSource, Outcome, Status, Trust

TRANSITIONS = (*Status, GIVEN_UP)


def _text(*known: str, allow_none: bool = False) -> fields.String:
    one_of = validate.OneOf(known) if known else None
    return fields.String(required=True, allow_none=allow_none, validate=one_of)


_maybe_text = partial(_text, allow_none=True)
_flag = partial(fields.Boolean, required=True)
_instant = partial(fields.DateTime, required=True)
_maybe_instant = partial(_instant, allow_none=True)
_number = partial(fields.Integer, required=True)


def _evidence() -> fields.String:
    text = "The evidence for the status; null if no message of the provider set it."
    one_of = validate.OneOf(tuple(Trust))
    return fields.String(
        required=True, allow_none=True, validate=one_of, metadata={"description": text}
    )


class Document(Schema):
    """The base of all documents. Clients have to ignore members that later releases add."""

    class Meta:
        unknown = INCLUDE


class TaskDocument(Document):
    """A task in its current state."""

    id = _text()
    provider = _text()
    account = _text()
    provider_task_id = _maybe_text()
    reference = _maybe_text()
    model = _maybe_text()
    status = _text(*Status)
    reason = _maybe_text()
    cost = _maybe_text()
    cost_unit = _maybe_text()
    created_at = _instant()
    given_up_at = _maybe_instant()
    metadata = fields.Dict(required=True, metadata={"description": "Your own data about the task."})


class MediaDocument(Document):
    """One output of a task, and the file to which a download hook saved it."""

    kind = _text()
    index = _text()
    url = _text()
    expires_at = _maybe_instant()
    file = _maybe_text()
    sha256 = _maybe_text()
    size = fields.Integer(required=True, allow_none=True)


class TaskMediaDocument(MediaDocument):
    """The same in the API. `href` is the path of our copy, if it is in a folder of this machine.

    `url` is null if the provider's message was pruned.
    """

    url = _maybe_text()
    href = _maybe_text()


class TaskWithMediaDocument(TaskDocument):
    """A task in its current state, with its outputs."""

    media = fields.List(fields.Nested(TaskMediaDocument), required=True)


class TransitionDocument(Document):
    """A recorded change of a task's status."""

    status = _text(*TRANSITIONS)
    occurred_at = _instant()
    recorded_at = _instant()
    trust = _evidence()
    corrected = _flag()


class CallbackDocument(Document):
    """A stored callback or other message from a provider, with its headers and its body."""

    id = _number()
    task = _maybe_text()
    provider = _text()
    source = _text(*Source)
    trust = _text(*Trust)
    outcome = _text(*Outcome)
    repeats = _number()
    problem = _maybe_text()
    received_at = _instant()
    headers = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    body = _text()


class AttemptDocument(Document):
    """One attempt at a delivery."""

    number = _number()
    started_at = _instant()
    ended_at = _instant()
    outcome = _text("delivered", "failed", "abandoned")
    answer = _text()


class DeliveryDocument(Document):
    """The delivery of one transition to one hook."""

    id = _number()
    task = _text()
    status = _text(*TRANSITIONS)
    hook = _text()
    state = _text(*State)
    attempts = _number()
    after = _maybe_text()
    due_at = _maybe_instant()
    ended_at = _maybe_instant()
    waits_for_missing_hook = fields.Boolean(required=True, allow_none=True)
    output = fields.Dict(
        required=True, metadata={"description": "What a python or command hook returned."}
    )


class AnsweredDeliveryDocument(DeliveryDocument):
    """A delivery with its attempts, and the files that it created."""

    answers = fields.List(fields.Nested(AttemptDocument), required=True)
    files = fields.List(fields.String(), required=True)


class HistoryDocument(TaskWithMediaDocument):
    """A task with everything on record about it."""

    callback_task_id = _maybe_text()
    id_source = _maybe_text(*IdSource)
    trust = _evidence()
    conflict = _flag()
    expects_callback = _flag()
    queries = _number()
    updated_at = _instant()
    deadline_at = _maybe_instant()
    mismatched_at = _maybe_instant()
    forgotten_at = _maybe_instant()
    transitions = fields.List(fields.Nested(TransitionDocument), required=True)
    callbacks = fields.List(fields.Nested(CallbackDocument), required=True)
    deliveries = fields.List(fields.Nested(AnsweredDeliveryDocument), required=True)


class TasksDocument(Document):
    """A page of tasks; `next` is the `cursor` of the next page."""

    tasks = fields.List(fields.Nested(TaskWithMediaDocument), required=True)
    next = _maybe_text()


class DeliveriesDocument(Document):
    """A page of deliveries; `next` is the `cursor` of the next page."""

    deliveries = fields.List(fields.Nested(DeliveryDocument), required=True)
    next = _maybe_text()


class OutcomeDocument(Document):
    """The outcome of a callback."""

    outcome = _text(*Outcome)


class RedeliveryDocument(Document):
    """The numbers of deliveries made due again or created. Unless `done`, repeat the request."""

    redelivered = _number()
    created = _number()
    done = _flag()
    dry_run = _flag()


class AliveDocument(Document):
    """The process is alive."""

    status = _text("ok")


class ReadyDocument(AliveDocument):
    """A write was committed. With the API token, also the state of the deliveries."""

    clock = fields.String()  # only if the clock was set and schedules are not corrected yet
    hooks_file = fields.String()  # only if a process rejected the hooks file at the last SIGHUP
    worker_seen = fields.Boolean()
    deliveries_due = fields.Integer()
    deliveries_dead = fields.Integer()
    backlog_age_seconds = fields.Float()
    counters = fields.Dict()


class FaultDocument(Document):
    """The problem of one field."""

    field = _text()
    detail = _text()


class ProblemDocument(Document):
    """An error response, as a problem document according to RFC 9457."""

    title = _text()
    status = _number()
    detail = _text()
    errors = fields.List(fields.Nested(FaultDocument))
    code = fields.Raw(metadata={"description": "The provider's own code."})
    task = fields.String()
    check = fields.String(metadata={"description": "The check of `/readyz` that failed."})


class EventDocument(Document):
    """The event that hooks receive when the status of a task changes."""

    id = _text()
    type = _text()
    occurred_at = _instant()
    task = fields.Nested(TaskDocument, required=True)
    media = fields.List(fields.Nested(MediaDocument), required=True)
    trust = _evidence()
    corrected = _flag()
