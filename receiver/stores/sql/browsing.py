"""Pages of the record with what belongs to their rows."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest

from receiver.deliveries import Attempt, Delivery, File
from receiver.errors import NotFound
from receiver.events import Callback
from receiver.stores import rows
from receiver.stores.base import Page, StoredCallback
from receiver.stores.overview import Picture
from receiver.stores.sql.session import LAST, Rooms, Row, Session
from receiver.tasks import Status, Task


class Browsing(Rooms):
    """See `stores.overview.Browsing`."""

    def page_of_standing(
        self,
        statuses: Sequence[Status],
        *,
        before: int | None,
        limit: int,
        provider: str | None = None,
        reference: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Page[Task]:
        wanted = {"provider": provider, "reference": reference}
        found: list[Row] = []
        with self.reading() as connection:
            end = before if until is None else min(before or LAST, _row_at(connection, until))
            for status in statuses:
                query = self._pages.of_tasks({**wanted, "status": status}, end, limit + 1)
                found += connection.execute(*query).fetchall()
        newest = nlargest(limit + 1, found, key=lambda row: int(row["seq"]))
        # Row keys are in the order of arrival: after one that is too old, all are.
        young = [row for row in newest if since is None or row["created_at"] >= since]
        more = len(newest) > limit and len(young) == len(newest)
        return Page(tuple(map(rows.task, young[:limit])), young[limit - 1]["seq"] if more else None)

    def tasks_by_id(self, task_ids: Sequence[str]) -> dict[str, Task]:
        sql = f"select * from tasks where {rows.any_of('id', task_ids)}"  # noqa: S608 - of rows
        with self.reading() as connection:
            return {row["id"]: rows.task(row) for row in connection.execute(sql, task_ids)}

    def pictures(self, task_ids: Sequence[str]) -> dict[str, list[Picture]]:
        pictures: dict[str, list[Picture]] = {}
        with self.reading() as connection:
            sql = _PICTURES.format(where=rows.any_of("t.id", task_ids))
            for row in connection.execute(sql, task_ids):
                has_thumbnail = bool(row["has_thumbnail"])
                picture = Picture(row["task_id"], row["delivery"], rows.file(row), has_thumbnail)
                pictures.setdefault(picture.task_id, []).append(picture)
        return pictures

    def picture(self, delivery: int, media_index: str) -> File:
        with self.reading() as connection:
            row = connection.execute(_PICTURE, (delivery, media_index)).fetchone()
        if row is None:
            raise NotFound(f"no file {media_index} of delivery {delivery}")
        return rows.file(row)

    def results(self, task_ids: Sequence[str]) -> dict[str, Callback]:
        with self.reading() as connection:
            sql = _RESULTS.format(where=rows.any_of("t.id", task_ids))
            found = connection.execute(sql, task_ids).fetchall()
        return {row["task_id"]: rows.callback(row).callback for row in found}

    def attempts(self, deliveries: Sequence[Delivery]) -> dict[int, tuple[Attempt, ...]]:
        ids = [delivery.id for delivery in deliveries]
        sql = f"select * from attempts where {rows.any_of('delivery', ids)} {_IN_ORDER}"  # noqa: S608
        with self.reading() as connection:
            return rows.grouped(connection.execute(sql, ids), rows.attempt)

    def page_of_quarantine(self, *, before: int | None, limit: int) -> Page[StoredCallback]:
        start = LAST if before is None else before
        with self.reading() as connection:
            found = connection.execute(_QUARANTINE, (start, limit + 1)).fetchall()
        following = found[limit - 1]["id"] if len(found) > limit else None
        return Page(tuple(map(rows.callback, found[:limit])), following)


def _row_at(connection: Session, instant: int) -> int:
    """The row key of the first task created then or later: halving finds it along the keys."""
    low = 0
    row = connection.execute("select max(seq) as seq from tasks").fetchone()
    high = int(row["seq"] or 0) + 1
    while low < high:
        middle = (low + high) // 2
        following = connection.execute(_FROM, (middle,)).fetchone()
        if following is None or following["created_at"] >= instant:
            high = middle
        else:
            low = int(following["seq"]) + 1
    return low


_FROM = "select seq, created_at from tasks where seq >= ? order by seq limit 1"
_IN_ORDER = "order by delivery, number"
_PICTURES = """
select t.id as task_id, f.delivery, f.media_index, f.url, f.sha256, f.size, f.content_type,
  null as thumbnail, f.thumbnail is not null as has_thumbnail
from tasks t join transitions tr on tr.task = t.seq join deliveries d on d.transition = tr.id
join files f on f.delivery = d.id
where {where} and substr(f.media_index, 1, 9) <> 'replaced ' order by f.delivery, f.media_index
"""
_PICTURE = "select * from files where delivery = ? and media_index = ?"
_RESULTS = """
select c.*, t.id as task_id from tasks t
join transitions tr on tr.task = t.seq and tr.status = 'succeeded'
join callbacks c on c.id = tr.callback
where {where}
"""
# The state is written out: the index of what is in quarantine serves no outcome to be named later.
_QUARANTINE = """
select c.*, t.id as task_id from callbacks c left join tasks t on t.seq = c.task
where c.outcome = 'quarantined' and c.id < ? order by c.id desc limit ?
"""
