"""Idempotency keys: who is at work for one, for which task, and what was answered."""

from __future__ import annotations

import hashlib

from receiver.stores import rows
from receiver.stores.base import IdempotencyRecord, StoredResponse
from receiver.stores.sql.session import Session, SqlStoreBase

KEPT_FOR = 86_400_000  # ms
_ERASED = "sha256:"


def erased_key(key: str) -> str:
    """Return what replaces the key of a forgotten task: it recognises the key, and nothing else."""
    if key.startswith(_ERASED):
        return key
    return _ERASED + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class Keys(SqlStoreBase):
    """See `stores.base.Keys`."""

    def key(self, key: str, now: int) -> IdempotencyRecord | None:
        with self.reading() as connection:
            row = connection.execute(_KEY, (key, erased_key(key), now - KEPT_FOR)).fetchone()
        return None if row is None else rows.kept(row)

    def claim_key(
        self, key: str, digest: bytes, task_id: str, now: int, held_until: int
    ) -> IdempotencyRecord | None:
        def work(connection: Session) -> IdempotencyRecord | None:
            connection.execute(_FORGET_OLD, (now - KEPT_FOR,))
            if connection.execute(_IS_ERASED, (erased_key(key),)).fetchone() is not None:
                return None
            row = connection.execute(
                _CLAIM,
                {"key": key, "digest": digest, "task": task_id, "now": now, "until": held_until},
            ).fetchone()
            return None if row is None else rows.kept(row)

        return self._write(work)

    def settle_key(self, held: IdempotencyRecord, now: int, answer: StoredResponse | None) -> None:
        status, document = (answer.status, answer.document) if answer else (None, None)
        values = (status, document, now, held.key, held.held_until)
        self._write(lambda connection: connection.execute(_SETTLE, values))

    def release_key(self, held: IdempotencyRecord) -> None:
        values = (held.key, held.held_until)
        self._write(lambda connection: connection.execute(_RELEASE, values))


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
