"""Creates tasks for callers who wait: two at once, each answered within 20 seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from http import HTTPStatus
from threading import BoundedSemaphore

import structlog
from structlog.contextvars import bind_contextvars

from receiver.config.settings import Settings
from receiver.deliveries import task_json
from receiver.errors import StoreError
from receiver.ingest import Ingest
from receiver.stores.sql.idempotency import IdempotencyRecord
from receiver.tasks import new_task_id
from submitter import uploads
from submitter.client import BRISK, Persistence, bounded
from submitter.desk import Desk
from submitter.errors import (
    ConfigurationError,
    InputError,
    NeverReached,
    OutcomeUnknown,
    ProviderError,
    TryLater,
)
from submitter.once import Once, Reply
from submitter.orders import Order
from submitter.providers import Provider, open_provider
from submitter.refusals import InvalidRequest, NotNow, Overtaken, Unknown
from submitter.uploads import Upload

AT_ONCE = 2  # creates of one process
# Seconds since the request was read. What is left after the create is for looking it up.
FETCHED_WITHIN, CREATED_WITHIN, ASKED_WITHIN, ANSWERED_WITHIN = 6.0, 14.0, 18.0, 20.0
LATER = 5.0  # seconds, where the other side did not say
KEYS_LATER = 60.0  # seconds; somebody has to set them first

log = structlog.get_logger()
Opens = Callable[[str, str, Persistence], Provider]


class Window:
    """Where the API hands its orders in."""

    def __init__(
        self, ingest: Ingest, settings: Settings, once: Once, opens: Opens = open_provider
    ) -> None:
        self._ingest = ingest
        self._settings = settings
        self._once = once
        self._opens = opens
        self._slots = BoundedSemaphore(AT_ONCE)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="create")

    def room(self, upload: Upload) -> Provider:
        """The provider's room. Raises InvalidRequest, and NotNow where keys are missing."""
        try:
            return self._opens(upload.provider, upload.account, BRISK)
        except InputError as error:
            raise InvalidRequest({error.field: error.message}) from None
        except ConfigurationError as error:
            raise NotNow(str(error), retry_after=KEYS_LATER) from None

    def create(
        self, room: Provider, upload: Upload, held: IdempotencyRecord | None = None
    ) -> Reply:
        """The task, or the provider's refusal; ends the hold on the key, if there is one.

        Raises InvalidRequest, NotNow, Unknown, and StoreUnavailable if it could not be recorded.
        """
        task_id = held.task_id if held else new_task_id()
        if not self._slots.acquire(blocking=False):
            self._release(held)
            raise NotNow(f"{AT_ONCE} tasks are being created already", retry_after=LATER)
        bind_contextvars(task=task_id)
        job = self._pool.submit(copy_context().run, self._job, room, upload, task_id, held)
        job.add_done_callback(lambda _: self._slots.release())
        return _in_time(job, task_id)

    def _job(
        self, room: Provider, upload: Upload, task_id: str, held: IdempotencyRecord | None
    ) -> Reply:
        try:
            reply = self._made(room, upload, task_id)
        except (InvalidRequest, NotNow, StoreError):
            self._release(held)
            raise
        except (Unknown, Overtaken):
            self._end(held, None)
            raise
        self._end(held, reply)
        return reply

    def _made(self, room: Provider, upload: Upload, task_id: str) -> Reply:
        begun_at = time.monotonic()
        order = uploads.order(room, upload, FETCHED_WITHIN)
        took = time.monotonic() - begun_at
        if took > FETCHED_WITHIN + 2:
            raise NotNow("looking at the pictures took too long", retry_after=LATER)
        with bounded(CREATED_WITHIN - took, ASKED_WITHIN - took):
            return self._sent(room, upload, order, task_id)

    def _sent(self, room: Provider, upload: Upload, order: Order, task_id: str) -> Reply:
        desk = Desk(self._ingest, room, self._settings, upload.account)
        try:
            task = desk.put_on_record(order, task_id)
        except ValueError:
            raise Overtaken("its task is on record already") from None
        try:
            return Reply(HTTPStatus.CREATED, task_json(desk.send(task, order)))
        except (TryLater, NeverReached) as error:
            after = getattr(error, "retry_after", None) or LATER
            raise NotNow(str(error), _members(error, task_id), after) from None
        except OutcomeUnknown as error:
            raise Unknown(str(error), _members(error, task_id)) from None
        except ProviderError as error:
            members = _members(error, task_id)
            return Reply(HTTPStatus.BAD_GATEWAY, {"detail": str(error), **members})
        except StoreError as error:
            raise _unknown(f"the record became unavailable ({error})", task_id) from None

    def _end(self, held: IdempotencyRecord | None, reply: Reply | None) -> None:
        """The answer stands without it: a hold that is not ended runs out."""
        if held is None:
            return
        try:
            self._once.end(held, reply)
        except StoreError as error:
            log.error("the answer could not be kept for its key", error=str(error))

    def _release(self, held: IdempotencyRecord | None) -> None:
        if held is not None:
            with contextlib.suppress(StoreError):  # it runs out
                self._once.store.idempotency.release(held)


def _in_time(job: Future[Reply], task_id: str) -> Reply:
    try:
        return job.result(ANSWERED_WITHIN)
    except TimeoutError:
        raise _unknown(f"not answered within {ANSWERED_WITHIN:g} s", task_id) from None


def _members(error: ProviderError, task_id: str) -> dict[str, object]:
    return {"code": error.code, "task": task_id}


def _unknown(why: str, task_id: str) -> Unknown:
    return Unknown(
        f"{why}. It may have been accepted, and paid for: do not send it again blindly. How it "
        f"stands: GET /api/tasks/{task_id}",
        {"task": task_id},
    )
