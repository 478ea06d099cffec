"""Procrastinate's jobs for deliveries: triggers of the schema insert them, workers fetch them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from psycopg.conninfo import make_conninfo

from receiver.endpoints import Circuit, Endpoint
from receiver.stores.postgres.connecting import CONNECTED_WITHIN, AsyncConnection
from receiver.stores.postgres.database import PostgresDatabase
from receiver.stores.sql.claims import ClaimedDelivery, load_claims
from receiver.stores.sql.database import Session
from receiver.stores.sql.endpoints import load_endpoint
from receiver.stores.sql.hook_queues import (
    ABANDONED,
    PROBED,
    UNLIMITED,
    Admission,
    Candidate,
    load_queues,
)
from receiver.stores.sql.locks import Lock, locked
from receiver.stores.sql.outbox import CLAIM, Outbox
from receiver.stores.sql.pacing import lock_pace, use_paces

if TYPE_CHECKING:
    from procrastinate import App

QUEUE = "deliveries"
TASK = "attempt"  # the job's task; its only argument is `delivery_id`
# The tolerated difference between the clock of the database, by which a job begins, and the clock
# of the machine that set `due_at`.
CLOCKS_APART = 2_000  # ms
RETRY_JOB_AFTER = 2_000  # ms; for deliveries without a slot: see `delivery/worker_slots.py`
ANNOUNCED_AT_ONCE = 1_000  # deliveries of one hook; the next sweep announces more
CONNECTIONS = 4  # of Procrastinate's own pool


class AnnouncedOutbox(Outbox):
    """The outbox whose deliveries have jobs."""

    def _remove_jobs(self, session: Session, delivery_ids: Sequence[int]) -> None:
        """Remove the jobs of deliveries that are claimed without them: they have nothing to do."""
        names = [f"delivery {delivery_id}" for delivery_id in delivery_ids]
        session.execute(_REMOVE_JOBS_OF.format(", ".join("?" * len(names))), names)


class Jobs:
    """Announces deliveries as jobs.

    Triggers of the schema announce a delivery in the commit that makes it due. Jobs may be lost,
    duplicated or late, because the row of the delivery decides what happens.
    """

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    def queue(self) -> App:
        """Return a Procrastinate app for this database; the caller opens it."""
        from procrastinate import App, PsycopgConnector  # noqa: PLC0415 - only a worker needs it

        conninfo = make_conninfo(self._database.url, connect_timeout=CONNECTED_WITHIN)
        kwargs = {"prepare_threshold": None} if self._database.is_pooled() else {}
        return App(
            connector=PsycopgConnector(
                conninfo=conninfo,
                connection_class=AsyncConnection,
                max_size=CONNECTIONS,
                kwargs=kwargs,
            )
        )

    def take(
        self,
        delivery_id: int,
        worker: str,
        now: int,
        lease_until: int,
        admission: Admission = UNLIMITED,
    ) -> ClaimedDelivery | None:
        """Claim this delivery, as `Outbox.claim` does; None if it cannot be attempted now.

        If its hook has no slot, or its limits are used up, all due jobs of the hook are removed, so
        that they do not delay other hooks. Workers later claim these deliveries without jobs. If
        None is returned, a later job, a claim without a job, or the worker with the claim attempts
        it.
        """

        def work(session: Session) -> ClaimedDelivery | None:
            row = session.execute_locked(_DUE, (delivery_id, now + CLOCKS_APART)).fetchone()
            if row is None:
                return None
            hook = row["hook"]
            endpoint = load_endpoint(session, hook)
            if not _may_begin(session, endpoint, now):
                return None
            limits, pace = admission.limits.get(hook), None
            may_begin = admission.has_slot(hook, timed_out=endpoint.timed_out)
            if limits is not None and may_begin:
                pace = lock_pace(session, hook, limits, now)
                may_begin = pace is not None and pace.allowed(now, 1) == 1
            if not may_begin:
                session.execute(_REMOVE_JOBS, (hook, ANNOUNCED_AT_ONCE))
                return None
            abandoned = bool(row["abandoned"])
            if not admission.begin(Candidate(delivery_id, hook, endpoint.timed_out, abandoned)):
                session.execute(_ANNOUNCE_LATER, (now + RETRY_JOB_AFTER, delivery_id))
                return None
            session.execute(CLAIM, (worker, lease_until, delivery_id))
            if pace is not None:
                use_paces(session, {hook: pace}, {hook: 1}, now)
            return load_claims(session, [delivery_id])[0]

        return self._database.write(work)

    def announce_missing(self, now: int, without_jobs: Collection[str] = ()) -> int:
        """Announce due deliveries, and those with an expired lease, that have no job; count them.

        Skips due deliveries of hooks in `without_jobs`; see `take`.
        """

        def work(session: Session) -> int:
            announced = session.execute(_ANNOUNCE_EXPIRED, (now,)).rowcount
            for queue in load_queues(session, {}, now):
                count = queue.claimable_count(now, ANNOUNCED_AT_ONCE)
                if count and queue.hook not in without_jobs:
                    values = (queue.hook, now, count)
                    announced += session.execute(_ANNOUNCE_DUE, values).rowcount
            return announced

        return self._database.write(work)


def _may_begin(session: Session, endpoint: Endpoint, now: int) -> bool:
    """Return whether a delivery of this endpoint may begin now.

    If it would be a probe, the row of the endpoint is locked until the transaction ends.
    """
    circuit = endpoint.circuit(now)
    if circuit is Circuit.HALF_OPEN:
        circuit = load_endpoint(session, endpoint.hook, lock=True).circuit(now)
        probe = session.execute(PROBED, (endpoint.hook,))
        if circuit is Circuit.HALF_OPEN and probe.fetchall():
            return False  # its probe is running
    return circuit not in (Circuit.OPEN, Circuit.PAUSED)


_DUE = locked(
    f"""
select hook, {ABANDONED} as abandoned
from deliveries where id = ? and state = 'pending' and due_at <= ?
""",  # noqa: S608 - contains no input
    Lock.SKIP_LOCKED,
)
# Only the oldest deliveries are read, however many wait.
_JOB = """
insert into procrastinate_jobs (queue_name, task_name, queueing_lock, args)
select '{queue}', '{task}', 'delivery ' || id, jsonb_build_object('delivery_id', id)
from ({waiting}) as waiting
where not exists (
  select 1 from procrastinate_jobs
  where queueing_lock = 'delivery ' || waiting.id and status = 'todo'
)
on conflict do nothing
"""
_ANNOUNCE_LATER = f"""
insert into procrastinate_jobs (queue_name, task_name, queueing_lock, args, scheduled_at)
select '{QUEUE}', '{TASK}', 'delivery ' || id, jsonb_build_object('delivery_id', id),
  to_timestamp(cast(? as bigint) / 1000.0)
from deliveries where id = ?
on conflict do nothing
"""  # noqa: S608 - names of this project
# Jobs that a worker is fetching now are skipped; that worker will not claim their deliveries.
_REMOVE_JOBS = f"""
delete from procrastinate_jobs where id in (
  select job.id from procrastinate_jobs as job
  join deliveries on deliveries.id = cast(job.args ->> 'delivery_id' as bigint)
  where job.status = 'todo' and job.queue_name = '{QUEUE}'
    and (job.scheduled_at is null or job.scheduled_at <= now())
    and deliveries.state = 'pending' and deliveries.hook || '' = ?
  order by job.id limit ?
  for update of job skip locked
)
"""  # noqa: S608 - names of this project
_REMOVE_JOBS_OF = """
delete from procrastinate_jobs where id in (
  select id from procrastinate_jobs where status = 'todo' and queueing_lock in ({})
  order by id for update skip locked
)
"""
_ANNOUNCE_EXPIRED = _JOB.format(
    queue=QUEUE,
    task=TASK,
    waiting="select id from deliveries where state = 'claimed' and due_at <= ?",
)
_ANNOUNCE_DUE = _JOB.format(
    queue=QUEUE,
    task=TASK,
    waiting="""
      select id from deliveries where state = 'pending' and hook = ? and due_at <= ?
      order by due_at limit ?
    """,
)
