"""Lists of tasks, callbacks and deliveries, newest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from receiver.deliveries import Delivery, State
from receiver.stores.sql import rows
from receiver.stores.sql.database import LAST, Component
from receiver.stores.sql.list_keys import ListKeys
from receiver.stores.sql.rows import ALWAYS, StoredCallback, TimeRange, from_row
from receiver.tasks import Outcome, Status, Task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows, newest first. `next` is the row before which the next page begins; None at the end."""

    rows: tuple[T, ...]
    next: int | None


class Lists(Component):
    """Lists of rows, newest first.

    Pages are found by row key, so that new rows do not shift them, and in a time that does not
    depend on the size of the record.
    """

    def tasks(
        self,
        *,
        status: Status | None = None,
        provider: str | None = None,
        reference: str | None = None,
        limit: int = 50,
    ) -> list[Task]:
        """Return the newest tasks."""
        page = self.page_of_tasks(
            before=None, limit=limit, status=status, provider=provider, reference=reference
        )
        return list(page.rows)

    def callbacks(
        self, *, task_id: str | None = None, outcome: Outcome | None = None, limit: int = 50
    ) -> list[StoredCallback]:
        """Return the newest callbacks and responses."""
        page = self.page_of_callbacks(before=None, limit=limit, task_id=task_id, outcome=outcome)
        return list(page.rows)

    def deliveries(
        self,
        *,
        task_id: str | None = None,
        hook: str | None = None,
        state: State | None = None,
        limit: int = 50,
    ) -> list[Delivery]:
        """Return the newest deliveries."""
        page = self.page_of_deliveries(
            before=None, limit=limit, task_id=task_id, hook=hook, state=state
        )
        return list(page.rows)

    def page_of_tasks(
        self,
        *,
        before: int | None,
        limit: int,
        status: Status | Sequence[Status] | None = None,
        provider: str | None = None,
        reference: str | None = None,
        account: str | None = None,
        provider_task_id: str | None = None,
        given_up: bool = False,
        created: TimeRange = ALWAYS,
    ) -> Page[Task]:
        """Return a page of tasks. `status` is one status, or several alternatives.

        `provider_task_id` is the provider's id in responses or callbacks. `given_up` replaces
        `status`: only open tasks are returned on which the poller gave up.
        """
        of_task = _given(provider=provider, reference=reference, account=account)
        statuses = (status,) if isinstance(status, Status) else status or ()
        if given_up:
            statuses = [one for one in Status if not one.is_terminal]
        some = () if set(statuses) == set(Status) else statuses  # all statuses need no condition
        with self._database.reading() as session:
            list_keys = ListKeys(session, self._database)
            keys, values = list_keys.tasks(
                of_task,
                some,
                created,
                before,
                limit + 1,
                provider_task_id=provider_task_id,
                given_up=given_up,
            )
            found = session.execute(_TASKS.format(keys=keys), values).fetchall()
        return _page(found, limit, "seq", partial(from_row, Task))

    def page_of_callbacks(
        self,
        *,
        before: int | None,
        limit: int,
        task_id: str | None = None,
        outcome: Outcome | None = None,
        provider: str | None = None,
        reference: str | None = None,
        account: str | None = None,
        received: TimeRange = ALWAYS,
    ) -> Page[StoredCallback]:
        """Return a page of callbacks and responses."""
        of_task = _given(id=task_id, reference=reference, account=account)
        wanted = _given(provider=provider, outcome=outcome)
        with self._database.reading() as session:
            list_keys = ListKeys(session, self._database)
            keys, values = list_keys.callbacks(of_task, wanted, received, before, limit + 1)
            sql = f"{rows.SELECT_CALLBACKS} where c.id in ({keys}) order by c.id desc"
            found = session.execute(sql, values).fetchall()
        return _page(found, limit, "id", rows.callback)

    def page_of_deliveries(
        self,
        *,
        before: int | None,
        limit: int,
        task_id: str | None = None,
        hook: str | None = None,
        state: State | None = None,
        provider: str | None = None,
        reference: str | None = None,
        account: str | None = None,
        moved: TimeRange = ALWAYS,
    ) -> Page[Delivery]:
        """Return a page of deliveries. `moved` limits when their transitions were recorded."""
        of_task = _given(id=task_id, provider=provider, reference=reference, account=account)
        with self._database.reading() as session:
            list_keys = ListKeys(session, self._database)
            keys, values = list_keys.deliveries(of_task, hook, state, moved, before, limit + 1)
            sql = f"{rows.SELECT_DELIVERIES} where d.id in ({keys}) order by d.id desc"
            found = session.execute(sql, values).fetchall()
        return _page(found, limit, "id", partial(from_row, Delivery))

    def page_of_quarantine(self, *, before: int | None, limit: int) -> Page[StoredCallback]:
        """Return a page of the callbacks that could not be interpreted."""
        start = LAST if before is None else before
        found = self._rows(_QUARANTINE, (start, limit + 1))
        return _page(found, limit, "id", rows.callback)


def _given(**wanted: object) -> dict[str, object]:
    return {name: value for name, value in wanted.items() if value is not None}


def _page(found: Sequence[Any], limit: int, key: str, make: Callable[[Any], T]) -> Page[T]:
    """Return the page of the first `limit` rows. The query fetched one more row."""
    following = found[limit - 1][key] if len(found) > limit else None
    return Page(tuple(map(make, found[:limit])), following)


_TASKS = "select * from tasks where seq in ({keys}) order by seq desc"
# The outcome is a literal, because the index of quarantined callbacks is partial.
_QUARANTINE = f"""
{rows.SELECT_CALLBACKS} where c.outcome = 'quarantined' and c.id < ? order by c.id desc limit ?
"""
