"""Finds a task by an id, by the beginning or end of our id, or by a reference.

Commands that erase data do not use it, because they accept only complete ids and references.
"""

from __future__ import annotations

from receiver.errors import AmbiguousName, NotFound
from receiver.stores import Store
from receiver.tasks import Task
from receiver.text.display import counted, one_line, rfc3339

ELLIPSIS = "…"  # the first character of an abbreviated id in a table
MOST_LISTED = 10
LONGEST_NAME = 100  # characters of the name that an error shows


def find_task(store: Store, name: str) -> Task:
    """Return the task with this id (ours or the provider's), reference, or part of our id.

    A complete match outranks a partial one. Raises NotFound, AmbiguousName and StoreUnavailable.
    """
    try:
        return store.queries.task(name)
    except NotFound:
        pass
    limit = MOST_LISTED + 1
    complete = [
        *store.lists.tasks(reference=name, limit=limit),
        *store.queries.tasks_by_any_provider_id(name, limit),
    ]
    found = list({task.id: task for task in complete}.values())[:limit]
    found = found or store.queries.tasks_by_part_of_id(name.removeprefix(ELLIPSIS), limit)
    shown = one_line(name, LONGEST_NAME)
    if not found:
        raise NotFound(f"no task has this id or reference: {shown}")
    if len(found) > 1:
        many = counted(len(found), "task")
        if len(found) == limit:
            many = f"more than {MOST_LISTED} tasks"
        lines = [f"{shown} names {many}; give the id of one:", *map(_line, found[:MOST_LISTED])]
        raise AmbiguousName("\n".join(lines))
    return found[0]


def _line(task: Task) -> str:
    reference = one_line(task.reference or "-", LONGEST_NAME)
    return f"  {task.id}  {reference}  {task.status}  {rfc3339(task.created_at)[:19]}"
