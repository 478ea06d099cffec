"""Claims deliveries by lease, and records the results of their attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from receiver.deliveries import Attempt, Delivery, File, State, Subscription
from receiver.endpoints import Limits, Pace
from receiver.errors import NotFound
from receiver.stores.sql import endpoints, rows
from receiver.stores.sql.claims import ClaimedDelivery, load_claims
from receiver.stores.sql.database import Component, QueryResult, Session
from receiver.stores.sql.endpoints import EndpointChange
from receiver.stores.sql.hook_queues import UNLIMITED, Admission, load_queues, select_claimable
from receiver.stores.sql.recording import wait_again


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of the attempt that `delivery` was claimed for.

    `state` is DELIVERED, DEAD, or PENDING with `due_at`. `files` are the files that the attempt
    stored, even if it failed. `change` is applied to the hook's endpoint, and its alert is stored.
    `output` is the object that the hook returned; it is stored if the delivery is DELIVERED.
    """

    delivery: Delivery
    attempt: Attempt
    state: State
    due_at: int | None
    files: Sequence[File] = ()
    change: EndpointChange | None = None
    output: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended_at(self) -> int | None:
        """The time at which the delivery ended; None if it is due again."""
        return None if self.state is State.PENDING else self.attempt.ended_at


class Outbox(Component):
    """Claims deliveries, and records the results of their attempts."""

    def claim(
        self,
        worker: str,
        now: int,
        lease_until: int,
        limit: int,
        admission: Admission = UNLIMITED,
    ) -> list[ClaimedDelivery]:
        """Claim and return up to `limit` due deliveries for which `admission` has a slot.

        Each claim begins an attempt. A trigger counts the deliveries by state.

        No other worker can claim them before `lease_until`. The hook with the fewest running
        deliveries comes first, then the oldest delivery. Hooks that are paused or whose circuit is
        open are skipped; a half-open hook gets one delivery at a time. The limits of a hook apply
        to all workers together.
        """
        if not self._any_may_begin(now, admission):
            return []  # an idle worker only reads, so it does not sync the disk
        return self.exchange((), worker, now, lease_until, limit, admission)[1]

    def exchange(
        self,
        settlements: Sequence[Settlement],
        worker: str,
        now: int,
        lease_until: int,
        limit: int,
        admission: Admission = UNLIMITED,
    ) -> tuple[list[bool], list[ClaimedDelivery]]:
        """Settle the attempts that ended, as `settle` does, and claim deliveries in their place.

        Returns what `settle` returns for each attempt, and what `claim` returns. A worker whose
        slots are all busy needs one transaction for all attempts that ended since the last one.
        """

        def work(session: Session) -> tuple[list[bool], list[ClaimedDelivery]]:
            are_settled = _settle(session, settlements)
            ids = select_claimable(session, now, limit, admission) if limit else []
            session.executemany(CLAIM, [(worker, lease_until, delivery) for delivery in ids])
            if ids:
                self._remove_jobs(session, ids)
            return are_settled, load_claims(session, ids)

        return self._database.write(work)

    def expired(self, now: int) -> list[Delivery]:
        """Return the claimed deliveries whose lease has expired: their worker died or stalled."""
        return self._deliveries("d.state = 'claimed' and d.due_at <= ?", [now])

    def renew(self, deliveries: Sequence[Delivery], lease_until: int) -> None:
        """Extend the leases of these deliveries, except for claims that were lost meanwhile."""
        values = [
            (lease_until, delivery.id, delivery.attempts)
            for delivery in sorted(deliveries, key=lambda delivery: delivery.id)  # as `_settle`
        ]
        self._database.write(lambda session: session.executemany(_RENEW, values))

    def settle(
        self,
        delivery: Delivery,
        attempt: Attempt,
        state: State,
        due_at: int | None,
        files: Sequence[File] = (),
        change: EndpointChange | None = None,
        output: Mapping[str, Any] | None = None,
    ) -> bool:
        """End the attempt that `delivery` was claimed for; see `Settlement`.

        When a delivery ends, those that wait for it become due. Returns False and writes nothing
        if the claim was lost. Triggers count the deliveries by state, and in PostgreSQL announce
        those that become due to the job queue.
        """
        settlement = Settlement(delivery, attempt, state, due_at, files, change, output or {})
        return self._database.write(lambda session: _settle(session, [settlement]))[0]

    def redeliver(
        self, delivery_id: int, now: int, subscriptions: Sequence[Subscription] = ()
    ) -> None:
        """Make a delivery that has ended due again, with all its retries.

        If the delivery that it waited for is open again, it waits for that one, as its hook in
        `subscriptions` does. In PostgreSQL, a trigger announces it to the job queue. Raises
        NotFound, also if its task was forgotten.
        """

        def work(session: Session) -> int:
            changed = session.execute(_REDELIVER, (now, delivery_id)).rowcount
            if changed:
                wait_again(session, [delivery_id], now, subscriptions)
            return changed

        if not self._database.write(work):
            raise NotFound(f"no delivery {delivery_id} that has ended, or its task was forgotten")

    def next_due_at(self, now: int, admission: Admission = UNLIMITED) -> int | None:
        """Return when the next delivery can be claimed for which `admission` has a slot.

        None means that none becomes claimable merely as time passes.
        """
        with self._database.reading() as session:
            times = [
                queue.opens_at(now)
                for queue in load_queues(session, admission.limits, now)
                if admission.has_slot(queue.hook, timed_out=queue.endpoint.timed_out)
            ]
        return min((at for at in times if at is not None), default=None)

    def held(self, limits: Mapping[str, Limits], now: int) -> dict[str, Pace]:
        """Return the pace of each hook whose due deliveries wait only because of its limits."""
        if not limits:
            return {}
        with self._database.reading() as session:
            queues = load_queues(session, limits, now)
        return {queue.hook: queue.pace for queue in queues if queue.pace and queue.is_paced(now)}

    def _any_may_begin(self, now: int, admission: Admission) -> bool:
        with self._database.reading() as session:
            return any(
                admission.has_slot(queue.hook, timed_out=queue.endpoint.timed_out)
                for queue in load_queues(session, admission.limits, now)
                if queue.claimable_count(now, 1)
            )

    def _remove_jobs(self, session: Session, delivery_ids: Sequence[int]) -> None:
        """Remove the jobs that announce deliveries. Does nothing without a job queue."""

    def _deliveries(self, where: str, values: Sequence[Any]) -> list[Delivery]:
        with self._database.reading() as session:
            return rows.deliveries(session, where, values)


def _settle(session: Session, settlements: Sequence[Settlement]) -> list[bool]:
    """End these attempts; see `Outbox.settle`.

    PostgreSQL answers the statements of all attempts in one round trip, because no result is read
    before all of them are sent.
    """
    results: dict[int, QueryResult] = {}
    # The rows are locked in the order of their ids, as by `renew`: no deadlocks.
    for index, settlement in sorted(enumerate(settlements), key=lambda entry: entry[1].delivery.id):
        results[index] = session.execute(
            _SETTLE,
            {
                "state": settlement.state,
                "due_at": settlement.due_at,
                "ended_at": settlement.ended_at,
                "id": settlement.delivery.id,
                "attempts": settlement.delivery.attempts,
                "outcome": settlement.attempt.outcome,
                "now": settlement.attempt.ended_at,
                "output": rows.column_value(settlement.output),
            },
        )
    are_settled = [bool(results[index].fetchall()) for index in range(len(settlements))]
    settled = [one for one, is_settled in zip(settlements, are_settled, strict=True) if is_settled]
    changes = defaultdict(list)
    for one in settled:
        if one.change is not None:
            change = (one.delivery.id, one.change, one.attempt.ended_at)
            changes[one.delivery.hook].append(change)
    for hook in sorted(changes):  # all processes lock them in the same order
        endpoints.apply(session, hook, changes[hook])
    attempts = [(one.delivery.id, *rows.values_of_attempt(one.attempt)) for one in settled]
    session.executemany(_INSERT_ATTEMPT, attempts)
    for one in settled:
        delivery, number = one.delivery.id, one.attempt.number
        for file in one.files:
            session.execute(_HIDE_EARLIER_FILE, (number, delivery, file.media_index, file.url))
        stored = [(delivery, number, *rows.values_of_file(file)) for file in one.files]
        session.executemany(_UPSERT_FILE, stored)
    ended = [(one.ended_at, one.delivery.id, one.ended_at) for one in settled if one.ended_at]
    session.executemany(RELEASE_WAITING, ended)
    return are_settled


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
update deliveries set state = :state, due_at = :due_at, ended_at = :ended_at, worker = null,
  output = case when :state = 'delivered' then :output else output end
where id = :id and attempts = :attempts and state = 'claimed'
  and (:outcome <> 'abandoned' or due_at <= :now)
returning id
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
