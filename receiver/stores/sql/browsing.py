"""Pages of the record with what belongs to their rows."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.deliveries import Attempt, Delivery, File
from receiver.errors import NotFound
from receiver.events import Callback
from receiver.stores import rows
from receiver.stores.base import Page, StoredCallback, TimeRange
from receiver.stores.overview import Picture
from receiver.stores.sql.lists import Lists
from receiver.stores.sql.session import LAST, SqlStoreBase
from receiver.tasks import Status, Task


class Browsing(SqlStoreBase):
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
        of_task = {column: value for column, value in wanted.items() if value is not None}
        some = () if set(statuses) == set(Status) else statuses
        with self.reading() as connection:
            lists = Lists(connection, self._pages)
            keys, values = lists.tasks(of_task, some, TimeRange(since, until), before, limit + 1)
            found = connection.execute(_TASKS.format(keys=keys), values).fetchall()
        following = found[limit - 1]["seq"] if len(found) > limit else None
        return Page(tuple(map(rows.task, found[:limit])), following)

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


_TASKS = "select * from tasks where seq in ({keys}) order by seq desc"
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
