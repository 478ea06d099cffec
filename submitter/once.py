"""One answer for one Idempotency-Key: twins wait for the first, and nothing is paid for twice.

The key's row holds the id of its task before anything is sent. Whoever takes over from a process
that died uses that id again, and an id goes on record once.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from receiver.clock import now_ms
from receiver.deliveries import task_json
from receiver.errors import NotFound
from receiver.stores import Store
from receiver.stores.sql.idempotency import IdempotencyRecord, StoredResponse
from receiver.tasks import Status, Task, new_task_id
from submitter.desk import was_not_accepted
from submitter.refusals import InvalidKey, KeyBusy, KeyReused, Overtaken, Unsettled

KEY = re.compile(r"[ -~]{1,255}")
HOLD = 60_000  # ms; a create takes 20 s at most, and its commits may wait as well
WAIT = 20.0  # seconds that a twin waits for the first one's answer
LOOK_EVERY = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Reply:
    """A task (201), or the provider's refusal (502): what is kept for a key."""

    status: int
    document: dict[str, Any]


def check(key: str) -> None:
    """Raises InvalidKey."""
    if not KEY.fullmatch(key):
        raise InvalidKey({"Idempotency-Key": "use 1 to 255 printable ASCII characters"})


@dataclass(frozen=True, slots=True)
class Once:
    """The keys of one record; `hold` (ms) and `wait` (seconds) are there for tests."""

    store: Store
    hold: int = HOLD
    wait: float = WAIT

    def answer(
        self, key: str, digest: bytes, work: Callable[[IdempotencyRecord], Reply]
    ) -> tuple[Reply, bool]:
        """What `work` replies, or replied to the same request before: then also True.

        `work` ends the hold it is given. Raises what it raises, KeyReused, KeyBusy, and Unsettled
        while nobody knows what became of the first request.
        """
        ends_at = time.monotonic() + self.wait
        while True:
            found = self._found(key, digest)
            if found is not None:
                return found, True
            try:
                held = self._claimed(key, digest)
                if held is not None:
                    return work(held), False
            except Overtaken:
                held = None
            if time.monotonic() >= ends_at:
                raise KeyBusy("the first request with this key is still under way", retry_after=5)
            time.sleep(LOOK_EVERY)

    def end(self, held: IdempotencyRecord, reply: Reply | None) -> None:
        """Keep the reply; or None: how the task then stands will be the answer."""
        kept = None if reply is None else StoredResponse(reply.status, json.dumps(reply.document))
        self.store.idempotency.settle(held, now_ms(), kept)

    def _found(self, key: str, digest: bytes) -> Reply | None:
        """What is known of the answer; None while it is not."""
        kept = self.store.idempotency.find(key, now_ms())
        if kept is None:
            return None
        if kept.digest != digest:
            raise KeyReused("this Idempotency-Key was used for another body; use a new one")
        if kept.answer is not None:
            return Reply(kept.answer.status, json.loads(kept.answer.document))
        return self._stands(kept) if kept.held_until <= now_ms() else None

    def _stands(self, kept: IdempotencyRecord) -> Reply | None:
        """How the task of a holder that is gone stands; None if it never went on record."""
        try:
            return stands(self.store.queries.task(kept.task_id))
        except NotFound:
            return None

    def _claimed(self, key: str, digest: bytes) -> IdempotencyRecord | None:
        now = now_ms()
        return self.store.idempotency.claim(key, digest, new_task_id(now), now, now + self.hold)


def stands(task: Task) -> Reply:
    """The reply that a task on record means. Raises Unsettled while nothing is certain."""
    if task.status is Status.CREATED:
        raise Unsettled(
            "the answer to the first request's create was lost. It may have been accepted, and "
            f"paid for: do not send it again blindly. How it stands: GET /api/tasks/{task.id}",
            {"task": task.id},
        )
    if was_not_accepted(task):
        detail = task.reason or "the provider refused it"
        return Reply(HTTPStatus.BAD_GATEWAY, {"detail": detail, "task": task.id, "code": None})
    return Reply(HTTPStatus.CREATED, task_json(task))
