"""Idempotency keys: a request that is sent again makes no second task."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.rows import Row


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What a request was answered; `document` is JSON."""

    status: int
    document: str


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """What is on record of an idempotency key. `answer` None: the request is, or was, under way."""

    key: str
    digest: bytes  # of the request's body
    task_id: str  # of the one task that may be made for this key, whoever makes it
    held_until: int  # until then one holder is at work; the value tells holders apart
    answer: StoredResponse | None = None


KEPT_FOR = 86_400_000  # ms

_ERASED = "sha256:"


def erased_key(key: str) -> str:
    """Return what replaces the key of a forgotten task: it recognises the key, and nothing else."""
    if key.startswith(_ERASED):
        return key
    return _ERASED + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class IdempotencyKeys(Component):
    """Idempotency keys of requests to the API."""

    def find(self, key: str, now: int) -> IdempotencyRecord | None:
        """What is on record of this key; None if nothing is, or it is older than a day."""
        with self._database.reading() as session:
            row = session.execute(_KEY, (key, erased_key(key), now - KEPT_FOR)).fetchone()
        return None if row is None else _record(row)

    def claim(
        self, key: str, digest: bytes, task_id: str, now: int, held_until: int
    ) -> IdempotencyRecord | None:
        """Hold this key until then; None if somebody else holds it, or it was answered.

        A hold that ran out unanswered is taken over with the body and the task id it had: that id
        can go on record once, so that two holders never make two tasks. Old keys are deleted.
        """

        def work(session: Session) -> IdempotencyRecord | None:
            session.execute(_FORGET_OLD, (now - KEPT_FOR,))
            if session.execute(_IS_ERASED, (erased_key(key),)).fetchone() is not None:
                return None
            row = session.execute(
                _CLAIM,
                {"key": key, "digest": digest, "task": task_id, "now": now, "until": held_until},
            ).fetchone()
            return None if row is None else _record(row)

        return self._database.write(work)

    def settle(self, held: IdempotencyRecord, now: int, answer: StoredResponse | None) -> None:
        """Keep what was answered; with None, only let go. Nothing happens if the hold was lost."""
        status, document = (answer.status, answer.document) if answer else (None, None)
        values = (status, document, now, held.key, held.held_until)
        self._database.write(lambda session: session.execute(_SETTLE, values))

    def release(self, held: IdempotencyRecord) -> None:
        """Forget the key: nothing came of it. Nothing happens if the hold was lost."""
        values = (held.key, held.held_until)
        self._database.write(lambda session: session.execute(_RELEASE, values))


def _record(row: Row) -> IdempotencyRecord:
    answered = row["status"] is not None
    return IdempotencyRecord(
        key=row["key"],
        digest=bytes(row["digest"]),
        task_id=row["task"],
        held_until=row["held_until"],
        answer=StoredResponse(row["status"], row["answer"]) if answered else None,
    )


_KEY = "select * from idempotency_keys where key in (?, ?) and created_at > ?"

_IS_ERASED = "select 1 from idempotency_keys where key = ?"

_FORGET_OLD = "delete from idempotency_keys where created_at <= ?"

# The condition is the deduplication: a hold is taken over only once it has run out unanswered, and
# by one only, since it then holds again.
_CLAIM = """
insert into idempotency_keys (key, digest, task, created_at, held_until)
values (:key, :digest, :task, :now, :until)
on conflict (key) do update set held_until = excluded.held_until
  where idempotency_keys.status is null and idempotency_keys.held_until <= :now
    and idempotency_keys.digest = excluded.digest
returning *
"""

_SETTLE = """
update idempotency_keys set status = ?, answer = ?, held_until = ?
where key = ? and held_until = ? and status is null
"""

_RELEASE = "delete from idempotency_keys where key = ? and held_until = ? and status is null"
