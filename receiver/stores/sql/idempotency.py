"""Idempotency keys: a request that is sent again creates no second task."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.rows import Row


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The response to a request; `document` is JSON."""

    status: int
    document: str


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """An idempotency key and its request. `answer` is None until the request was answered."""

    key: str
    digest: bytes  # of the request's body
    task_id: str  # of the one task that may be created for this key
    held_until: int  # when the claim expires; the value identifies the claim
    answer: StoredResponse | None = None


KEPT_FOR = 86_400_000  # ms

_ERASED = "sha256:"


def erased_key(key: str) -> str:
    """Return the digest that replaces the key of a forgotten task, to recognise the key later."""
    if key.startswith(_ERASED):
        return key
    return _ERASED + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class IdempotencyKeys(Component):
    """Idempotency keys of requests to the API."""

    def find(self, key: str, now: int) -> IdempotencyRecord | None:
        """Return the record of this key; None if there is none, or it is older than a day."""
        row = self._row(_KEY, (key, erased_key(key), now - KEPT_FOR))
        return None if row is None else _record(row)

    def claim(
        self, key: str, digest: bytes, task_id: str, now: int, held_until: int
    ) -> IdempotencyRecord | None:
        """Claim this key until `held_until`; None if it is claimed already or was answered.

        An expired claim of a request with the same body is taken over, with its task id: that id
        can be stored only once, so two claims never create two tasks. Deletes keys older than a
        day.
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
        """Store the answer and end the claim; with None, only end the claim.

        Does nothing if the claim was lost.
        """
        status, document = (answer.status, answer.document) if answer else (None, None)
        values = (status, document, now, held.key, held.held_until)
        self._database.write(lambda session: session.execute(_SETTLE, values))

    def release(self, held: IdempotencyRecord) -> None:
        """Delete the key, because no task was created. Does nothing if the claim was lost."""
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

# The condition prevents duplicates: only an expired claim without an answer is taken over, and only
# once, because it is then no longer expired.
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
