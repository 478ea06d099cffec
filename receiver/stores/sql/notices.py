"""Reads the notices of transitions, to which filters of hooks are applied."""

from __future__ import annotations

from collections.abc import Sequence

from receiver import providers
from receiver.deliveries import Notice, Transition
from receiver.errors import RequestRefused
from receiver.events import Callback, Media, Source
from receiver.stores.sql import rows
from receiver.stores.sql.database import Session
from receiver.stores.sql.rows import from_row
from receiver.tasks import Task


def load_notices(session: Session, transitions: Sequence[int]) -> dict[int, Notice]:
    """Return the notices of these transitions, by row key, with the media from their messages.

    There are no media if the message was pruned or can no longer be parsed.
    """
    if not transitions:
        return {}
    found = [
        session.execute(sql.format(rows.any_of("tr.id", transitions)), transitions).fetchall()
        for sql in (_TRANSITIONS, _TASKS, _MESSAGES)
    ]
    tasks = {row["seq"]: from_row(Task, row) for row in found[1]}
    messages = {row["transition"]: rows.callback(row).callback for row in found[2]}
    return {
        row["id"]: Notice(
            tasks[row["task"]], from_row(Transition, row), _media(messages.get(row["id"]))
        )
        for row in found[0]
    }


def _media(message: Callback | None) -> tuple[Media, ...]:
    if message is None or message.source is Source.CREATE or not message.body:
        return ()
    try:
        return providers.parse(message).media
    except RequestRefused:
        return ()


_TRANSITIONS = "select tr.* from transitions tr where {0} order by tr.id"

_TASKS = "select * from tasks where seq in (select tr.task from transitions tr where {0})"

_MESSAGES = """
select c.*, t.id as task_id, tr.id as transition
from transitions tr join callbacks c on c.id = tr.callback left join tasks t on t.seq = c.task
where {0}
"""
