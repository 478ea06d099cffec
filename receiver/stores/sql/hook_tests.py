"""Test events that were asked for: a row for each hook, taken by lease."""

from __future__ import annotations

from receiver.stores import rows
from receiver.stores.hook_tests import GIVEN_UP_ON, MOST_TRIES, HookTest, HookTestOutcome
from receiver.stores.sql.session import Session, SqlStoreBase


class Trials(SqlStoreBase):
    """See `stores.trials.Trials`."""

    def ask_trial(self, hook: str, status: str, now: int) -> bool:
        values = (hook, status, now, now)
        return self._write(lambda connection: connection.execute(_ASK, values).rowcount == 1)

    def take_trials(self, now: int, again_at: int) -> list[HookTest]:
        with self.reading() as connection:
            if connection.execute(_WAITING, (now,)).fetchone() is None:
                return []  # asked before any write: no trial costs no sync

        def work(connection: Session) -> list[HookTest]:
            connection.execute(_GIVE_UP, (now, GIVEN_UP_ON, now, MOST_TRIES))
            found = connection.execute(_TAKE, (again_at, now)).fetchall()
            return sorted(map(rows.trial, found), key=lambda trial: (trial.asked_at, trial.hook))

        return self._write(work)

    def hold_trial(self, trial: HookTest, again_at: int) -> None:
        self._write(lambda connection: connection.execute(_HOLD, (again_at, *_held(trial))))

    def end_trial(self, trial: HookTest, outcome: HookTestOutcome, answer: str, now: int) -> bool:
        values = (now, outcome, answer, *_held(trial))
        return self._write(lambda connection: connection.execute(_END, values).rowcount == 1)

    def trials(self) -> list[HookTest]:
        with self.reading() as connection:
            found = connection.execute("select * from trials order by hook").fetchall()
        return [rows.trial(row) for row in found]


def _held(trial: HookTest) -> tuple[str, int, int]:
    """Tells one taking of it from every other."""
    return trial.hook, trial.asked_at, trial.tries


_ASK = """
insert into trials (hook, status, asked_at, again_at) values (?, ?, ?, ?)
on conflict (hook) do update set status = excluded.status, asked_at = excluded.asked_at,
  again_at = excluded.again_at, tries = 0, ended_at = null, outcome = null, answer = ''
where trials.ended_at is not null
"""
_WAITING = "select 1 from trials where again_at <= ? limit 1"
_GIVE_UP = """
update trials set again_at = null, outcome = 'failed', ended_at = ?, answer = ?
where again_at <= ? and tries >= ?
"""
_TAKE = "update trials set tries = tries + 1, again_at = ? where again_at <= ? returning *"
_HOLD = """
update trials set again_at = ?
where hook = ? and asked_at = ? and tries = ? and again_at is not null
"""
_END = """
update trials set again_at = null, ended_at = ?, outcome = ?, answer = ?
where hook = ? and asked_at = ? and tries = ? and again_at is not null
"""
