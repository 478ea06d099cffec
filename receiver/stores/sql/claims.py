"""Claimed deliveries, with everything from the record that their attempts need."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from receiver.deliveries import Delivery, File, Notice, Transition
from receiver.endpoints import Endpoint
from receiver.events import Callback
from receiver.stores.sql import rows
from receiver.stores.sql.database import Session
from receiver.stores.sql.endpoints import endpoint_of
from receiver.stores.sql.rows import Row, from_row
from receiver.tasks import Task


@dataclass(frozen=True, slots=True)
class NoticeSource:
    """The rows from which the notice of a delivery is built.

    They are converted by the properties, so that a damaged row concerns only its own delivery.
    """

    delivery: Row  # with its transition
    task: Row
    files: tuple[Row, ...]  # of all deliveries of the transition
    outputs: tuple[Row, ...]  # the deliveries of the transition whose hooks returned an output
    message: Row | None  # the callback or response that reported the transition

    @property
    def is_forgotten(self) -> bool:
        """Whether the task is being forgotten, so that nothing may be sent about it."""
        return self.delivery["closed_at"] is not None

    @property
    def message_id(self) -> int | None:
        """The row key of the message; deliveries of the same transition have the same one."""
        return None if self.message is None else int(self.message["id"])

    @property
    def callback(self) -> Callback | None:
        """The message that reported the transition; None for `given_up`."""
        return None if self.message is None else rows.callback(self.message).callback

    @property
    def notice(self) -> Notice:
        """The notice without its outputs, which have to be parsed from the message."""
        delivery = self.delivery
        return Notice(
            from_row(Task, self.task),
            from_row(Transition, delivery),
            files=tuple(from_row(File, file) for file in self.files),
            made=tuple(
                from_row(File, file)
                for file in self.files
                if file["delivery"] == delivery["id"] and file["attempt"] > delivery["retries_from"]
            ),
            outputs=self._outputs,
        )

    @property
    def _outputs(self) -> dict[str, Mapping[str, Any]]:
        """The outputs of other hooks, by hook; empty unless the hook waits for another one.

        Outputs of hooks that it does not wait for may or may not be present. They are not removed,
        because the hook may wait for one of them through another hook.
        """
        if self.delivery["after"] is None:
            return {}
        return {
            row["hook"]: rows.json_object(row["output"])
            for row in self.outputs
            if row["hook"] != self.delivery["hook"]
        }


@dataclass(frozen=True, slots=True)
class ClaimedDelivery(Delivery):
    """A delivery whose attempt has begun, as it was when it was claimed."""

    endpoint: Endpoint = field(kw_only=True, compare=False)
    source: NoticeSource = field(kw_only=True, compare=False, repr=False)


def load_claims(session: Session, delivery_ids: Sequence[int]) -> list[ClaimedDelivery]:
    """Return these deliveries by id, with the data for their attempts, read for all together."""
    if not delivery_ids:
        return []
    places = ", ".join("?" * len(delivery_ids))
    # In PostgreSQL, they share a round trip, because no result is read before all are sent.
    found = [
        session.execute(sql.format(places), delivery_ids)
        for sql in (_DELIVERIES, _TASKS, _MESSAGES, _FILES, _OUTPUTS, _ENDPOINTS)
    ]
    deliveries, tasks, callbacks, files, outputs, endpoints = [one.fetchall() for one in found]
    task_of = {row["seq"]: row for row in tasks}
    message_of = {row["id"]: row for row in callbacks}
    endpoint_of_hook = {row["hook"]: row for row in endpoints}
    files_of, outputs_of = _by_transition(files), _by_transition(outputs)
    return [
        from_row(
            ClaimedDelivery,
            row,
            endpoint=endpoint_of(endpoint_of_hook.get(row["hook"]), row["hook"]),
            source=NoticeSource(
                row,
                task_of[row["task"]],
                tuple(files_of[row["transition"]]),
                tuple(outputs_of[row["transition"]]),
                message_of.get(row["callback"]),
            ),
        )
        for row in deliveries
    ]


def _by_transition(found: Iterable[Row]) -> defaultdict[int, list[Row]]:
    groups = defaultdict(list)
    for row in found:
        groups[row["transition"]].append(row)
    return groups


_DELIVERIES = """
select d.*, t.id as task_id, tr.task, tr.callback, tr.status, tr.occurred_at, tr.recorded_at,
  tr.trust, tr.corrected, tr.revision, forgotten.closed_at
from deliveries d join transitions tr on tr.id = d.transition join tasks t on t.seq = tr.task
left join forgotten on forgotten.task = tr.task
where d.id in ({0}) order by d.id
"""

_TASKS = """
select * from tasks where seq in (
  select tr.task from transitions tr join deliveries d on d.transition = tr.id where d.id in ({0})
)
"""

_MESSAGES = """
select c.*, t.id as task_id from callbacks c left join tasks t on t.seq = c.task where c.id in (
  select tr.callback from transitions tr join deliveries d on d.transition = tr.id
  where d.id in ({0})
)
"""

_FILES = """
select f.*, d.transition from files f join deliveries d on d.id = f.delivery
where d.transition in (select transition from deliveries where id in ({0}))
  and substr(f.media_index, 1, 9) <> 'replaced '
order by f.delivery, f.media_index
"""

# The outputs for deliveries of hooks that wait; `forget` and `prune` erase outputs.
_OUTPUTS = """
select transition, hook, output from deliveries
where transition in (select transition from deliveries where id in ({0}) and after is not null)
  and output is not null
order by id
"""

_ENDPOINTS = "select * from endpoints where hook in (select hook from deliveries where id in ({0}))"
