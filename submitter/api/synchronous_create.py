"""Creates tasks synchronously for the HTTP API: two at a time, each within 20 seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import BoundedSemaphore
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars

from receiver.config.settings import Settings
from receiver.errors import StoreError
from receiver.ingest import Ingest
from receiver.serializers.outputs import task_documents
from receiver.stores.sql.idempotency import IdempotencyRecord
from receiver.tasks import Task, new_task_id
from submitter.api.errors import (
    CreateOutcomeUnknown,
    InvalidRequest,
    ReferenceSubmitted,
    TaskAlreadyRecorded,
    TemporarilyUnavailable,
)
from submitter.api.idempotency import ApiReply, IdempotencyKeys
from submitter.api.request_body import TaskRequest, inputs_of
from submitter.client import BRISK, Persistence, limited
from submitter.errors import (
    AlreadySubmitted,
    ConfigurationError,
    InputError,
    NeverReached,
    OutcomeUnknown,
    ProviderError,
    TryLater,
    WrongInput,
)
from submitter.pictures.inputs import TryOnInputs
from submitter.providers import Provider, open_provider
from submitter.task_creation import TaskCreator

CONCURRENCY = 2  # create requests of one process
# Seconds since the request was read. After a create request without a response, the rest of the
# time is for looking up its task.
FETCHED_WITHIN, CREATED_WITHIN, QUERIED_WITHIN, ANSWERED_WITHIN = 6.0, 14.0, 18.0, 20.0
RETRY_WITHOUT_KEYS = 60.0  # seconds; the operator has to set the keys first

log = structlog.get_logger()
OpenAdapter = Callable[[str, str, Persistence], Provider]


@dataclass(frozen=True, slots=True)
class SynchronousCreator:
    """Creates tasks in a pool of threads, and stops waiting for them after 20 seconds."""

    ingest: Ingest
    settings: Settings
    keys: IdempotencyKeys
    open_adapter: OpenAdapter = open_provider
    _slots: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(CONCURRENCY))
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="create")
    )

    def adapter_for(self, request: TaskRequest) -> Provider:
        """Return the adapter of the account.

        Raises InvalidRequest, and TemporarilyUnavailable if the keys of the account are missing.
        """
        try:
            return self.open_adapter(request.provider, request.account, BRISK)
        except InputError as error:
            raise InvalidRequest({error.field: error.message}) from None
        except ConfigurationError as error:
            raise TemporarilyUnavailable(str(error), retry_after=RETRY_WITHOUT_KEYS) from None

    def create(
        self, adapter: Provider, request: TaskRequest, claim: IdempotencyRecord | None = None
    ) -> ApiReply:
        """Return the task or the provider's rejection, and end the claim on the key.

        Raises InvalidRequest, TemporarilyUnavailable, CreateOutcomeUnknown, and StoreUnavailable
        if the task could not be recorded.
        """
        task_id = claim.task_id if claim else new_task_id()
        if not self._slots.acquire(blocking=False):
            self._release(claim)
            raise TemporarilyUnavailable(f"{CONCURRENCY} tasks are being created already")
        bind_contextvars(task=task_id)
        job = self._pool.submit(
            copy_context().run, self._create_and_end_claim, adapter, request, task_id, claim
        )
        job.add_done_callback(lambda _: self._slots.release())
        try:
            return job.result(ANSWERED_WITHIN)
        except TimeoutError:
            raise _outcome_unknown(
                f"the provider did not respond within {ANSWERED_WITHIN:g} s", task_id
            ) from None

    def _create_and_end_claim(
        self, adapter: Provider, request: TaskRequest, task_id: str, claim: IdempotencyRecord | None
    ) -> ApiReply:
        try:
            reply = self._create(adapter, request, task_id)
        except (InvalidRequest, ReferenceSubmitted, TemporarilyUnavailable, StoreError):
            self._release(claim)
            raise
        except (CreateOutcomeUnknown, TaskAlreadyRecorded):
            self._end(claim, None)
            raise
        self._end(claim, reply)
        return reply

    def _create(self, adapter: Provider, request: TaskRequest, task_id: str) -> ApiReply:
        started_at = time.monotonic()
        inputs = inputs_of(adapter, request, FETCHED_WITHIN)
        elapsed = time.monotonic() - started_at
        if elapsed > FETCHED_WITHIN + 2:
            raise TemporarilyUnavailable("checking the pictures took too long")
        with limited(CREATED_WITHIN - elapsed, QUERIED_WITHIN - elapsed):
            creator = TaskCreator(self.ingest, adapter, self.settings, request.account)
            record = creator.record_once if request.once else creator.record_task
            return _send(creator, record, inputs, task_id)

    def _end(self, claim: IdempotencyRecord | None, reply: ApiReply | None) -> None:
        """End the claim. If that fails, the claim expires."""
        if claim is None:
            return
        try:
            self.keys.end_claim(claim, reply)
        except StoreError as error:
            log.error("the reply could not be stored for its key", error=str(error))

    def _release(self, claim: IdempotencyRecord | None) -> None:
        if claim is not None:
            with contextlib.suppress(StoreError):  # then the claim expires
                self.keys.store.idempotency.release(claim)


def _send(
    creator: TaskCreator,
    record: Callable[[TryOnInputs, str], Task],
    inputs: TryOnInputs,
    task_id: str,
) -> ApiReply:
    try:
        task = record(inputs, task_id)
    except AlreadySubmitted as error:
        raise ReferenceSubmitted(str(error), {"task": error.task_id}) from None
    except ValueError:
        raise TaskAlreadyRecorded("the task of this key is recorded already") from None
    try:
        created = creator.send(task, inputs)
        (document,) = task_documents(creator.ingest.store, [created])
        return ApiReply(HTTPStatus.CREATED, document)
    except ProviderError as error:
        members: dict[str, Any] = {"code": error.code, "task": task_id}
        if isinstance(error, TryLater | NeverReached):
            retry_after = error.retry_after if isinstance(error, TryLater) else None
            raise TemporarilyUnavailable(str(error), members, retry_after) from None
        if isinstance(error, OutcomeUnknown):
            raise CreateOutcomeUnknown(str(error), members) from None
        field = rejected_picture(creator.adapter, error)
        if field is not None:
            members["errors"] = [{"field": field, "detail": error.message}]
            return ApiReply(HTTPStatus.UNPROCESSABLE_ENTITY, {"detail": str(error), **members})
        return ApiReply(HTTPStatus.BAD_GATEWAY, {"detail": str(error), **members})
    except StoreError as error:
        raise _outcome_unknown(f"the database became unavailable ({error})", task_id) from None


def rejected_picture(adapter: Provider, error: ProviderError) -> str | None:
    """Return the field of the picture that the provider rejected; None if it named none."""
    if not isinstance(error, WrongInput):
        return None
    named = (ours for theirs, ours in adapter.picture_fields.items() if theirs in error.message)
    return next(named, None)


def _outcome_unknown(problem: str, task_id: str) -> CreateOutcomeUnknown:
    return CreateOutcomeUnknown(
        f"{problem}. The task may have been accepted and paid for: do not submit it again without "
        f"checking. See GET /api/tasks/{task_id}",
        {"task": task_id},
    )
