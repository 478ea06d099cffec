"""The way out: deliveries are claimed by lease, and their attempts are settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from receiver.deliveries import Attempt, Delivery, File, Notice, State
from receiver.errors import NotFound
from receiver.events import Callback
from receiver.stores.sql import endpoints, rows
from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.endpoints import EndpointChange
from receiver.stores.sql.hook_queues import UNLIMITED, Admission, claimable, load_queues


@dataclass(frozen=True, slots=True)
class NoticeSource:
    """What a delivery is about: the task, its move, the message it rests on, the files so far."""

    notice: Notice
    callback: Callback | None
    is_forgotten: bool = False  # nothing may be told of the task any more


class Outbox(Component):
    """Claims deliveries and settles their attempts."""

    def claim(
        self,
        worker: str,
        now: int,
        lease_until: int,
        limit: int,
        admission: Admission = UNLIMITED,
    ) -> list[Delivery]:
        """Claim up to `limit` due deliveries that have a slot; each claim begins an attempt.

        No other worker can claim them before `lease_until`. The hook with the fewest running
        deliveries comes first, then the oldest delivery. Hooks that are paused or whose circuit is
        open are skipped; a half-open hook gets one delivery at a time.
        """
        due_at = self.next_due_at(now)
        if due_at is None or due_at > now or not self._any_may_begin(now, admission):
            return []  # asked before any write: an idle worker costs no sync

        def work(session: Session) -> list[int]:
            ids = claimable(session, now, limit, admission)
            claims = [(worker, lease_until, delivery) for delivery in ids]
            session.executemany(CLAIM, claims)
            return ids

        wanted = self._database.write(work)
        return sorted(self._deliveries(rows.any_of("d.id", wanted), wanted), key=rows.by_id)

    def expired(self, now: int) -> list[Delivery]:
        """Claimed deliveries whose lease ran out: their worker died or stalled."""
        return self._deliveries("d.state = 'claimed' and d.due_at <= ?", [now])

    def renew(self, deliveries: Sequence[Delivery], lease_until: int) -> None:
        """Hold on to these deliveries; one that was lost meanwhile stays lost."""
        held = [(lease_until, delivery.id, delivery.attempts) for delivery in deliveries]
        self._database.write(lambda session: session.executemany(_RENEW, held))

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
        made, even if it failed. When a delivery ends, those that wait for it become due. `change`
        is applied to the hook's endpoint, and its alert is stored. Returns False and writes nothing
        if the claim was lost.
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
            session.execute(_INSERT_ATTEMPT, (delivery.id, *rows.of_attempt(attempt)))
            for file in files:
                place = (attempt.number, delivery.id, file.media_index, file.url)
                session.execute(_KEEP_OTHER_PLACE, place)
            made = [(delivery.id, attempt.number, *rows.of_file(file)) for file in files]
            session.executemany(_UPSERT_FILE, made)
            if ended_at is not None:
                session.execute(RELEASE_WAITING, (ended_at, delivery.id, ended_at))
            return True

        return self._database.write(work)

    def notice_source(self, delivery: Delivery) -> NoticeSource:
        """What the delivery is about. Raises NotFound."""
        with self._database.reading() as session:
            task = session.execute(_TASK, (delivery.task_id,)).fetchone()
            if task is None:
                raise NotFound(f"no task {delivery.task_id}")
            row = session.execute(_TRANSITION_OF, (delivery.id,)).fetchone()
            files = session.execute(_FILES_OF_TRANSITION, (row["id"],)).fetchall()
            callback = session.execute(_CALLBACK, (row["callback"],)).fetchone()
        notice = Notice(
            rows.task(task),
            rows.transition(row),
            files=tuple(map(rows.file, files)),
            made=tuple(
                rows.file(row)
                for row in files
                if row["delivery"] == delivery.id and row["attempt"] > delivery.retries_from
            ),
        )
        source = None if callback is None else rows.callback(callback).callback
        return NoticeSource(notice, source, is_forgotten=row["closed_at"] is not None)

    def redeliver(self, delivery_id: int, now: int) -> None:
        """Make a delivery that ended due again, with a fresh set of retries.

        Raises NotFound, also if its task was forgotten.
        """
        changed = self._database.write(
            lambda session: session.execute(_REDELIVER, (now, delivery_id)).rowcount
        )
        if not changed:
            raise NotFound(f"no delivery {delivery_id} that has ended, or its task was forgotten")

    def next_due_at(self, now: int, admission: Admission = UNLIMITED) -> int | None:
        """When the next delivery of a hook with a slot can be claimed; None: not by itself."""
        with self._database.reading() as session:
            opening = [
                lane.opens_at(now)
                for lane in load_queues(session)
                if admission.has_slot(lane.hook, timed_out=lane.endpoint.timed_out)
            ]
        return min((at for at in opening if at is not None), default=None)

    def _any_may_begin(self, now: int, admission: Admission) -> bool:
        with self._database.reading() as session:
            return any(
                admission.has_slot(lane.hook, timed_out=lane.endpoint.timed_out)
                for lane in load_queues(session)
                if lane.room(now, 1)
            )

    def _deliveries(self, where: str, values: Sequence[Any]) -> list[Delivery]:
        with self._database.reading() as session:
            return rows.deliveries(session, where, values)


# A claimed delivery whose lease ran out is not claimed again: the worker ends its attempt as
# abandoned first, so that one which kills its worker each time dies in the end.
CLAIM = """
update deliveries set state = 'claimed', attempts = attempts + 1, worker = ?, due_at = ?
where id = ? and state = 'pending'
"""

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
