"""The way out: deliveries are claimed by lease, and their attempts are settled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from receiver.deliveries import Attempt, Delivery, File, State
from receiver.errors import NotFound
from receiver.stores import rows
from receiver.stores.admission import UNLIMITED, Admission
from receiver.stores.sql import endpoints
from receiver.stores.sql.hook_queues import claimable, lanes
from receiver.stores.sql.session import Session, SqlStoreBase
from receiver.stores.upkeep import Change


class Outbox(SqlStoreBase):
    """See `stores.base.Outbox`."""

    def claim(
        self,
        worker: str,
        now: int,
        lease_until: int,
        limit: int,
        admission: Admission = UNLIMITED,
    ) -> list[Delivery]:
        due_at = self.next_due_at(now)
        if due_at is None or due_at > now or not self._any_may_begin(now, admission):
            return []  # asked before any write: an idle worker costs no sync

        def work(connection: Session) -> list[int]:
            ids = claimable(connection, now, limit, admission)
            claims = [(worker, lease_until, delivery) for delivery in ids]
            connection.executemany(CLAIM, claims)
            return ids

        wanted = self._write(work)
        return sorted(self._deliveries_where(rows.any_of("d.id", wanted), wanted), key=rows.by_id)

    def expired(self, now: int) -> list[Delivery]:
        return self._deliveries_where(_EXPIRED, [now])

    def renew(self, deliveries: Sequence[Delivery], lease_until: int) -> None:
        held = [(lease_until, delivery.id, delivery.attempts) for delivery in deliveries]
        self._write(lambda connection: connection.executemany(_RENEW, held))

    def settle(
        self,
        delivery: Delivery,
        attempt: Attempt,
        state: State,
        due_at: int | None,
        files: Sequence[File] = (),
        change: Change | None = None,
    ) -> bool:
        def work(connection: Session) -> bool:
            ended_at = None if state is State.PENDING else attempt.ended_at
            values = {
                "state": state,
                "due_at": due_at,
                "ended_at": ended_at,
                "id": delivery.id,
                "attempts": delivery.attempts,
                "outcome": attempt.outcome,
                "now": attempt.ended_at,
            }
            if not connection.execute(_SETTLE, values).rowcount:
                return False
            if change is not None:
                endpoints.apply(connection, delivery, change, attempt.ended_at)
            connection.execute(_INSERT_ATTEMPT, (delivery.id, *rows.of_attempt(attempt)))
            for file in files:
                place = (attempt.number, delivery.id, file.media_index, file.url)
                connection.execute(_KEEP_OTHER_PLACE, place)
            made = [(delivery.id, attempt.number, *rows.of_file(file)) for file in files]
            connection.executemany(_UPSERT_FILE, made)
            if ended_at is not None:
                connection.execute(RELEASE_WAITING, (ended_at, delivery.id, ended_at))
            return True

        return self._write(work)

    def redeliver(self, delivery_id: int, now: int) -> None:
        changed = self._write(
            lambda connection: connection.execute(_REDELIVER, (now, delivery_id)).rowcount
        )
        if not changed:
            raise NotFound(f"no delivery {delivery_id} that has ended, or its task was forgotten")

    def next_due_at(self, now: int, admission: Admission = UNLIMITED) -> int | None:
        with self.reading() as connection:
            opening = [
                lane.opens_at(now)
                for lane in lanes(connection)
                if admission.has_slot(lane.hook, timed_out=lane.endpoint.timed_out)
            ]
        return min((at for at in opening if at is not None), default=None)

    def _any_may_begin(self, now: int, admission: Admission) -> bool:
        with self.reading() as connection:
            return any(
                admission.has_slot(lane.hook, timed_out=lane.endpoint.timed_out)
                for lane in lanes(connection)
                if lane.room(now, 1)
            )

    def _deliveries_where(self, where: str, values: Sequence[Any]) -> list[Delivery]:
        with self.reading() as connection:
            found = connection.execute(f"{_DELIVERIES} where {where}", values).fetchall()
        return [rows.delivery(row) for row in found]


# A claimed delivery whose lease ran out is not claimed again: the worker ends its attempt as
# abandoned first, so that one which kills its worker each time dies in the end.
CLAIM = """
update deliveries set state = 'claimed', attempts = attempts + 1, worker = ?, due_at = ?
where id = ? and state = 'pending'
"""

_EXPIRED = "d.state = 'claimed' and d.due_at <= ?"

# The number of attempts is the fence: each claim has its own, so a claim that was lost changes
# nothing. An attempt is abandoned only while its lease is out: its worker may have come back.
_RENEW = "update deliveries set due_at = ? where id = ? and attempts = ? and state = 'claimed'"

_SETTLE = """
update deliveries set state = :state, due_at = :due_at, ended_at = :ended_at, worker = null
where id = :id and attempts = :attempts and state = 'claimed'
  and (:outcome <> 'abandoned' or due_at <= :now)
"""

_INSERT_ATTEMPT = """
insert into attempts (delivery, number, started_at, ended_at, outcome, answer)
values (?, ?, ?, ?, ?, ?)
"""

# Another place, because the output has another type now: the earlier file is still there. Its row
# stays, hidden, so that `forget` removes the file.
_KEEP_OTHER_PLACE = """
update files set thumbnail = null,
  media_index = 'replaced by attempt ' || cast(? as text) || ' ' || media_index
where delivery = ? and media_index = ? and url <> ?
"""

_UPSERT_FILE = """
insert into files (delivery, attempt, media_index, url, sha256, size, content_type, thumbnail)
values (?, ?, ?, ?, ?, ?, ?, ?)
on conflict (delivery, media_index) do update set attempt = excluded.attempt,
  url = excluded.url, sha256 = excluded.sha256, size = excluded.size,
  content_type = excluded.content_type, thumbnail = excluded.thumbnail
"""

# Until the first attempt (at a corrected result: the first since the correction), `due_at` of a
# delivery with a limited wait is the end of that wait. After it, `due_at` is the time of the retry,
# which the end of the awaited delivery does not change.
RELEASE_WAITING = """
update deliveries set due_at = ?
from (select transition, hook from deliveries where id = ?) as ended
where deliveries.transition = ended.transition and deliveries.after = ended.hook
  and deliveries.state = 'pending'
  and (
    deliveries.due_at is null
    or (deliveries.attempts = deliveries.retries_from and deliveries.due_at > ?)
  )
"""

_REDELIVER = """
update deliveries set state = 'pending', due_at = ?, ended_at = null, retries_from = attempts
where id = ? and state in ('delivered', 'dead') and not exists (
  select 1 from transitions tr join forgotten on forgotten.task = tr.task
  where tr.id = deliveries.transition
)
"""

_DELIVERIES = """
select d.*, t.id as task_id, tr.status as status
from deliveries d join transitions tr on tr.id = d.transition join tasks t on t.seq = tr.task
"""
