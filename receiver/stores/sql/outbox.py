"""Claims deliveries by lease, and records the results of their attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from receiver.deliveries import Attempt, Delivery, File, Notice, State, Transition
from receiver.errors import NotFound
from receiver.events import Callback
from receiver.stores.sql import endpoints, rows
from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.endpoints import EndpointChange
from receiver.stores.sql.hook_queues import UNLIMITED, Admission, load_queues, select_claimable
from receiver.stores.sql.rows import from_row
from receiver.tasks import Task


@dataclass(frozen=True, slots=True)
class NoticeSource:
    """The task of a delivery with its transition and files, and the message that reported it."""

    notice: Notice
    callback: Callback | None
    is_forgotten: bool = False  # nothing may be sent about the task


class Outbox(Component):
    """Claims deliveries, and records the results of their attempts."""

    def claim(
        self,
        worker: str,
        now: int,
        lease_until: int,
        limit: int,
        admission: Admission = UNLIMITED,
    ) -> list[Delivery]:
        """Claim and return up to `limit` due deliveries for which `admission` has a slot.

        Each claim begins an attempt. A trigger counts the deliveries by state.

        No other worker can claim them before `lease_until`. The hook with the fewest running
        deliveries comes first, then the oldest delivery. Hooks that are paused or whose circuit is
        open are skipped; a half-open hook gets one delivery at a time.
        """
        due_at = self.next_due_at(now)
        if due_at is None or due_at > now or not self._any_may_begin(now, admission):
            return []  # an idle worker only reads, so it does not sync the disk

        def work(session: Session) -> list[int]:
            ids = select_claimable(session, now, limit, admission)
            claims = [(worker, lease_until, delivery) for delivery in ids]
            session.executemany(CLAIM, claims)
            return ids

        claimed = self._database.write(work)
        return self._deliveries(f"{rows.any_of('d.id', claimed)} order by d.id", claimed)

    def expired(self, now: int) -> list[Delivery]:
        """Return the claimed deliveries whose lease has expired: their worker died or stalled."""
        return self._deliveries("d.state = 'claimed' and d.due_at <= ?", [now])

    def renew(self, deliveries: Sequence[Delivery], lease_until: int) -> None:
        """Extend the leases of these deliveries, except for claims that were lost meanwhile."""
        values = [(lease_until, delivery.id, delivery.attempts) for delivery in deliveries]
        self._database.write(lambda session: session.executemany(_RENEW, values))

    def settle(
        self,
        delivery: Delivery,
        attempt: Attempt,
        state: State,
        due_at: int | None,
        files: Sequence[File] = (),
        change: EndpointChange | None = None,
    ) -> bool:
        """End the attempt that `delivery` was claimed for.

        `state` is DELIVERED, DEAD, or PENDING with `due_at`. `files` are the files that the attempt
        stored, even if it failed. When a delivery ends, those that wait for it become due. `change`
        is applied to the hook's endpoint, and its alert is stored. Returns False and writes nothing
        if the claim was lost. Triggers count the deliveries by state, and in PostgreSQL announce
        those that become due to the job queue.
        """

        def work(session: Session) -> bool:
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
            if not session.execute(_SETTLE, values).rowcount:
                return False
            if change is not None:
                endpoints.apply(session, delivery, change, attempt.ended_at)
            session.execute(_INSERT_ATTEMPT, (delivery.id, *rows.values_of_attempt(attempt)))
            for file in files:
                url = (attempt.number, delivery.id, file.media_index, file.url)
                session.execute(_HIDE_EARLIER_FILE, url)
            stored = [(delivery.id, attempt.number, *rows.values_of_file(file)) for file in files]
            session.executemany(_UPSERT_FILE, stored)
            if ended_at is not None:
                session.execute(RELEASE_WAITING, (ended_at, delivery.id, ended_at))
            return True

        return self._database.write(work)

    def notice_source(self, delivery: Delivery) -> NoticeSource:
        """Return the rows from which the notice of a delivery is built. Raises NotFound."""
        with self._database.reading() as session:
            task = session.execute(_TASK, (delivery.task_id,)).fetchone()
            if task is None:
                raise NotFound(f"no task {delivery.task_id}")
            row = session.execute(_TRANSITION_OF, (delivery.id,)).fetchone()
            files = session.execute(_FILES_OF_TRANSITION, (row["id"],)).fetchall()
            callback = session.execute(_CALLBACK, (row["callback"],)).fetchone()
        notice = Notice(
            from_row(Task, task),
            from_row(Transition, row),
            files=tuple(from_row(File, file) for file in files),
            made=tuple(
                from_row(File, file)
                for file in files
                if file["delivery"] == delivery.id and file["attempt"] > delivery.retries_from
            ),
        )
        source = None if callback is None else rows.callback(callback).callback
        return NoticeSource(notice, source, is_forgotten=row["closed_at"] is not None)

    def redeliver(self, delivery_id: int, now: int) -> None:
        """Make a delivery that has ended due again, with all its retries.

        In PostgreSQL, a trigger announces it to the job queue. Raises NotFound, also if its task
        was forgotten.
        """
        changed = self._database.write(
            lambda session: session.execute(_REDELIVER, (now, delivery_id)).rowcount
        )
        if not changed:
            raise NotFound(f"no delivery {delivery_id} that has ended, or its task was forgotten")

    def next_due_at(self, now: int, admission: Admission = UNLIMITED) -> int | None:
        """Return when the next delivery can be claimed for which `admission` has a slot.

        None means that none becomes claimable merely as time passes.
        """
        with self._database.reading() as session:
            times = [
                queue.opens_at(now)
                for queue in load_queues(session)
                if admission.has_slot(queue.hook, timed_out=queue.endpoint.timed_out)
            ]
        return min((at for at in times if at is not None), default=None)

    def _any_may_begin(self, now: int, admission: Admission) -> bool:
        with self._database.reading() as session:
            return any(
                admission.has_slot(queue.hook, timed_out=queue.endpoint.timed_out)
                for queue in load_queues(session)
                if queue.claimable_count(now, 1)
            )

    def _deliveries(self, where: str, values: Sequence[Any]) -> list[Delivery]:
        with self._database.reading() as session:
            return rows.deliveries(session, where, values)


# A claimed delivery whose lease has expired is not claimed again before its attempt has ended as
# abandoned, so that a delivery that kills its worker each time eventually becomes a dead letter.
CLAIM = """
update deliveries set state = 'claimed', attempts = attempts + 1, worker = ?, due_at = ?
where id = ? and state = 'pending'
"""

# Each claim has its own number of attempts, so a lost claim changes nothing. An attempt is recorded
# as abandoned only if its lease is still expired, because its worker may have renewed it.
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

# If a file of the same output has another URL now, for example because its type differs, the
# earlier file still exists. Its row is hidden and stays on record, so that `forget` removes the
# file.
_HIDE_EARLIER_FILE = """
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

# Until the first attempt (of a corrected result: the first one since the correction), `due_at` of a
# delivery with a limited wait is the end of that wait. Afterwards it is the time of the retry,
# which stays the same when the awaited delivery ends.
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

_TASK = "select * from tasks where id = ?"
_CALLBACK = f"{rows.SELECT_CALLBACKS} where c.id = ?"
_TRANSITION_OF = """
select tr.*, forgotten.closed_at
from transitions tr join deliveries d on d.transition = tr.id
left join forgotten on forgotten.task = tr.task
where d.id = ?
"""

_FILES_OF_TRANSITION = """
select f.* from files f join deliveries d on d.id = f.delivery
where d.transition = ? and substr(f.media_index, 1, 9) <> 'replaced '
order by f.delivery, f.media_index
"""
