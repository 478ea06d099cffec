"""A bounded trace of refused requests."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.stores import rows
from receiver.stores.sql.session import Session, SqlStoreBase
from receiver.stores.upkeep import Rejection

KEPT = 1_000  # rows


class Refusals(SqlStoreBase):
    """See `stores.upkeep.Refusals`."""

    def note_rejections(self, found: Sequence[Rejection]) -> None:
        newest = [rows.of_rejection(rejection) for rejection in found[-KEPT:]]

        def work(connection: Session) -> None:
            connection.executemany(_INSERT, newest)
            connection.execute(_FORGET_OLD, (KEPT,))

        self._write(work)

    def rejections(self, limit: int = 50) -> list[Rejection]:
        with self.reading() as connection:
            found = connection.execute(_NEWEST, (limit,)).fetchall()
        return list(map(rows.rejection, found))


_INSERT = """
insert into rejections (at, address, reason, method, path, count) values (?, ?, ?, ?, ?, ?)
"""
_FORGET_OLD = "delete from rejections where id <= (select max(id) from rejections) - ?"
_NEWEST = "select * from rejections order by id desc limit ?"
