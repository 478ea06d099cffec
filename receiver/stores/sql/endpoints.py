"""The endpoints of hooks: their circuit breakers, alerts about them, and test events for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from receiver.endpoints import Alert, AlertKind, Circuit, Endpoint
from receiver.stores.sql.database import Component, Session
from receiver.stores.sql.locks import Lock, locked
from receiver.stores.sql.rows import Row, from_row

EndpointChange = Callable[[Endpoint], tuple[Endpoint, AlertKind | None]]
"""The effect of an attempt on its endpoint, and the alert that follows from it."""

MOST_TRIES = 3  # attempts to send a test event, if the workers that send it die

GIVEN_UP_ON = f"{MOST_TRIES} workers died or stalled while they sent this test event"


class HookTestOutcome(StrEnum):
    """The outcome of a test event."""

    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class HookTest:
    """The newest test event for a hook. `ended_at` is None until it has been sent."""

    hook: str
    status: str  # of the event
    asked_at: int
    tries: int = 0  # how many times a worker claimed it
    ended_at: int | None = None
    outcome: HookTestOutcome | None = None
    answer: str = ""  # the response of the endpoint, or the error


ALERTS_KEPT_FOR = 86_400_000  # ms; an alert that could not be sent by then is dropped


class Endpoints(Component):
    """The state of each hook's endpoint, and the newest test event for it."""

    def all(self) -> list[Endpoint]:
        """Return the endpoints that fail, or are paused or disabled, by hook; the others work."""
        found = self._rows("select * from endpoints order by hook")
        return [from_row(Endpoint, row) for row in found]

    def of(self, hook: str) -> Endpoint:
        """Return the endpoint of a hook; a working one if it is not on record."""
        with self._database.reading() as session:
            return endpoint_of(session.execute(_SELECT, (hook,)).fetchone(), hook)

    def pause(self, hook: str, now: int) -> None:
        """Keep the deliveries of this hook waiting until `resume`; this uses up no attempts."""
        self._database.write(lambda session: session.execute(_PAUSE, (hook, now)))

    def resume(self, hook: str, now: int | None = None) -> bool:
        """Close the circuit of this hook. Returns False if it was closed.

        With `now`, retries of its deliveries become due at that time unless they are due earlier.
        Deliveries that wait for another hook continue to wait. In PostgreSQL, triggers announce the
        waiting deliveries to the job queue.
        """

        def work(session: Session) -> bool:
            was_closed = load_endpoint(session, hook).circuit(0) is Circuit.CLOSED
            if now is not None:
                session.execute(_RETRY_NOW, (now, hook, now))
            session.execute("delete from endpoints where hook = ?", (hook,))
            return not was_closed

        return self._database.write(work)

    def take_alerts(self, now: int, again_at: int) -> list[Alert]:
        """Return the alerts to send. Each is returned again at `again_at` unless it was sent."""
        if self._row(_ALERTS_DUE, (now,)) is None:
            return []  # without an alert, nothing is written, so the disk is not synced

        def work(session: Session) -> list[Alert]:
            session.execute("delete from alerts where at < ?", (now - ALERTS_KEPT_FOR,))
            found = session.execute(_TAKE_ALERTS, (again_at, now)).fetchall()
            return sorted((from_row(Alert, row) for row in found), key=lambda alert: alert.id)

        return self._database.write(work)

    def alert_sent(self, alert_id: int) -> None:
        """Delete an alert that was sent."""
        self._database.write(
            lambda session: session.execute("delete from alerts where id = ?", (alert_id,))
        )

    def request_test(self, hook: str, status: str, now: int) -> bool:
        """Request a test event from the workers. Returns False if an earlier one has not ended."""
        values = (hook, status, now, now)
        return self._database.write(
            lambda session: session.execute(_REQUEST_TEST, values).rowcount == 1
        )

    def claim_tests(self, now: int, again_at: int) -> list[HookTest]:
        """Claim and return the waiting test events, oldest first, each for one worker.

        Another worker can claim one again at `again_at`. A test event that was claimed MOST_TRIES
        times without a result has failed.
        """
        if self._row(_TEST_WAITS, (now,)) is None:
            return []  # read first, because a write costs a sync

        def work(session: Session) -> list[HookTest]:
            session.execute(_FAIL_TESTS, (now, GIVEN_UP_ON, now, MOST_TRIES))
            found = session.execute(_CLAIM_TESTS, (again_at, now)).fetchall()
            tests = [from_row(HookTest, row) for row in found]
            return sorted(tests, key=lambda test: (test.asked_at, test.hook))

        return self._database.write(work)

    def renew_test(self, test: HookTest, again_at: int) -> None:
        """Extend the claim on a test event. Does nothing if the claim was lost."""
        self._database.write(
            lambda session: session.execute(_RENEW_TEST, (again_at, *_claim(test)))
        )

    def end_test(self, test: HookTest, outcome: HookTestOutcome, answer: str, now: int) -> bool:
        """Store the outcome of a test event.

        Returns False if it has ended or the claim was lost.
        """
        values = (now, outcome, answer, *_claim(test))
        return self._database.write(
            lambda session: session.execute(_END_TEST, values).rowcount == 1
        )

    def tests(self) -> list[HookTest]:
        """Return the newest test event of each hook, by hook."""
        found = self._rows("select * from trials order by hook")
        return [from_row(HookTest, row) for row in found]


def load_endpoint(session: Session, hook: str, *, lock: bool = False) -> Endpoint:
    """Return the endpoint of this hook, and optionally lock its row."""
    if lock:
        found = session.execute_locked(_SELECT_AND_LOCK, (hook,))
    else:
        found = session.execute(_SELECT, (hook,))
    return endpoint_of(found.fetchone(), hook)


def apply(session: Session, hook: str, changes: Sequence[tuple[int, EndpointChange, int]]) -> None:
    """Apply the changes of attempts, in their order, to the endpoint of their hook.

    Each change comes with the id of its delivery, and the time. A new text in `said` came from this
    delivery and belongs to its task. The name is locked as well as the row, because there is no row
    before the first failure.
    """
    session.lock_name(f"endpoint {hook}")
    row = session.execute_locked(_SELECT_AND_LOCK, (hook,)).fetchone()
    stored = endpoint = endpoint_of(row, hook)
    task = None if row is None else row["said_task"]
    for delivery_id, change, now in changes:
        before = endpoint
        endpoint, kind = change(before)
        if endpoint.said and endpoint.said != before.said:
            task = session.execute(_TASK_OF, (delivery_id,)).fetchone()["task"]
        if kind is not None:
            said = before.said if kind is AlertKind.RECOVERED else endpoint.said
            session.execute(_INSERT_ALERT, (hook, kind, now, said, now, task))
    if endpoint == stored:
        return
    if endpoint == Endpoint(hook):
        session.execute("delete from endpoints where hook = ?", (hook,))
        return
    session.execute(_PUT, {**asdict(endpoint), "timed_out": int(endpoint.timed_out)})
    if endpoint.said:
        session.execute("update endpoints set said_task = ? where hook = ?", (task, hook))


def endpoint_of(row: Row | None, hook: str) -> Endpoint:
    """Return the endpoint in a row; a working one without a row, or if its columns are null."""
    return Endpoint(hook) if row is None or row["hook"] is None else from_row(Endpoint, row)


def _claim(test: HookTest) -> tuple[str, int, int]:
    """Return the values that identify one claim of a test event."""
    return test.hook, test.asked_at, test.tries


_SELECT = "select * from endpoints where hook = ?"

_SELECT_AND_LOCK = locked(_SELECT, Lock.ROWS)

_PUT = """
insert into endpoints (hook, failures, failing_since, openings, retry_at, paused_at,
  disabled_at, said, timed_out)
values (:hook, :failures, :failing_since, :openings, :retry_at, :paused_at, :disabled_at, :said,
  :timed_out)
on conflict (hook) do update set failures = excluded.failures,
  failing_since = excluded.failing_since, openings = excluded.openings,
  retry_at = excluded.retry_at, paused_at = excluded.paused_at,
  disabled_at = excluded.disabled_at, said = excluded.said, timed_out = excluded.timed_out
"""

_PAUSE = """
insert into endpoints (hook, paused_at) values (?, ?)
on conflict (hook) do update set paused_at = coalesce(endpoints.paused_at, excluded.paused_at)
"""

_TASK_OF = """
select tr.task from deliveries d join transitions tr on tr.id = d.transition where d.id = ?
"""

_RETRY_NOW = """
update deliveries set due_at = ?
where state = 'pending' and hook = ? and due_at > ?
  and (after is null or attempts > retries_from)
"""

_INSERT_ALERT = """
insert into alerts (hook, kind, at, said, due_at, said_task) values (?, ?, ?, ?, ?, ?)
"""

_ALERTS_DUE = "select 1 from alerts where due_at <= ? limit 1"

_TAKE_ALERTS = "update alerts set due_at = ? where due_at <= ? returning *"

_REQUEST_TEST = """
insert into trials (hook, status, asked_at, again_at) values (?, ?, ?, ?)
on conflict (hook) do update set status = excluded.status, asked_at = excluded.asked_at,
  again_at = excluded.again_at, tries = 0, ended_at = null, outcome = null, answer = ''
where trials.ended_at is not null
"""

_TEST_WAITS = "select 1 from trials where again_at <= ? limit 1"

_FAIL_TESTS = """
update trials set again_at = null, outcome = 'failed', ended_at = ?, answer = ?
where again_at <= ? and tries >= ?
"""

_CLAIM_TESTS = "update trials set tries = tries + 1, again_at = ? where again_at <= ? returning *"

_RENEW_TEST = """
update trials set again_at = ?
where hook = ? and asked_at = ? and tries = ? and again_at is not null
"""

_END_TEST = """
update trials set again_at = null, ended_at = ?, outcome = ?, answer = ?
where hook = ? and asked_at = ? and tries = ? and again_at is not null
"""
