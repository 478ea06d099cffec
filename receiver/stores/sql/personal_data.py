"""Every column of the record, and what `forget` and `prune` do with it.

`retention.py` erases what this table says, so a new column that can hold the words or pictures of a
person is erased as soon as it is listed here. A test fails for a column that is not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NULL, EMPTY_TEXT, EMPTY_OBJECT = "null", "''", "'{}'"
EMPTY_BYTES = ":nothing"  # each database writes a literal of bytes in its own way
ERASED = ":erased"  # a text that people read says what happened
OF_DELIVERIES = """delivery in (
  select d.id from deliveries d join transitions tr on tr.id = d.transition where tr.task = :task
)"""
FORGOTTEN = "(erased: the task was forgotten)"
PRUNED = "(erased: the task's payload was pruned)"


@dataclass(frozen=True, slots=True)
class Column:
    """A column that can hold personal data. `forget` always erases it.

    `empty` is what it is set to, as SQL. `kept_because` says why `prune` leaves it.
    """

    empty: str = NULL
    kept_because: str = ""


@dataclass(frozen=True, slots=True)
class PersonalTable:
    """The columns of one table.

    `impersonal`: ids, statuses, times, amounts, digests, and names that the operator chose.
    `of_task`: which rows belong to the task `:task`. None: the rows belong to no task, so their
    texts are compared with the words of the task (see `receiver.stores.sql.echoes`).
    `is_deleted`: `forget` deletes the rows. `dated_by`: `prune` deletes rows that are older.
    """

    impersonal: str
    personal: Mapping[str, Column] = field(default_factory=dict)
    of_task: str | None = None
    is_deleted: bool = False
    dated_by: str = ""
    is_copied: bool = True
    only_in_postgres: str = ""  # further impersonal columns


_FOR_LISTS = "the operator's own name of the task, which `forget` and costs look for"
_FOR_FORGET = "where the user's file is: `forget` removes the file"

TABLES: Mapping[str, PersonalTable] = {
    "tasks": PersonalTable(
        "seq id provider account provider_task_id callback_task_id id_source status trust cost"
        " cost_unit model conflict created_at updated_at expects_callback asked deadline_at"
        " given_up_at mismatched_at",
        {"reference": Column(kept_because=_FOR_LISTS), "reason": Column()},
        of_task="seq = :task",
    ),
    "callbacks": PersonalTable(
        "id task provider source trust outcome received_at repeats digest",
        {"problem": Column(), "headers": Column(EMPTY_OBJECT), "body": Column(EMPTY_BYTES)},
        of_task="task = :task",
    ),
    "transitions": PersonalTable(
        "id task status callback occurred_at recorded_at trust corrected revision outputs"
    ),
    "deliveries": PersonalTable(
        "id transition hook state after due_at attempts retries_from worker ended_at"
    ),
    "attempts": PersonalTable(
        "id delivery number started_at ended_at outcome",
        {"answer": Column(EMPTY_TEXT)},
        of_task=OF_DELIVERIES,
    ),
    "files": PersonalTable(
        "delivery attempt media_index sha256 size content_type",
        {"url": Column(kept_because=_FOR_FORGET), "thumbnail": Column()},
        of_task=OF_DELIVERIES,
        is_deleted=True,
    ),
    "inputs": PersonalTable(
        "task name", {"thumbnail": Column()}, of_task="task = :task", is_deleted=True
    ),
    "forgotten": PersonalTable("task closed_at erased_at"),
    "idempotency_keys": PersonalTable(
        "digest task created_at held_until status",
        {"key": Column(), "answer": Column()},
        of_task="task = (select id from tasks where seq = :task)",
        dated_by="created_at",
    ),
    "endpoints": PersonalTable(
        "hook failures failing_since openings retry_at paused_at disabled_at timed_out said_task",
        {"said": Column(ERASED)},
    ),
    "alerts": PersonalTable(
        "id hook kind at due_at said_task", {"said": Column(ERASED)}, dated_by="at"
    ),
    "trials": PersonalTable(
        "hook status asked_at tries again_at ended_at outcome",
        {"answer": Column(ERASED)},
        dated_by="ended_at",
    ),
    "rejections": PersonalTable(
        "id at count",
        {name: Column(ERASED) for name in ("address", "reason", "method", "path")},
        dated_by="at",
    ),
    "sessions": PersonalTable("digest opened_at ends_at"),
    "refused_attempts": PersonalTable(
        "kind slot sender used at"
    ),  # senders are digests of networks
    "clocks": PersonalTable("boot offset_ms step seen_at suspected_ms"),
    "clock_steps": PersonalTable("id boot at by_ms moved_ms"),
    "pauses": PersonalTable("name until"),
    "counters": PersonalTable("name provider value"),
    "measures": PersonalTable("name labels value"),
    # Not copied: processes announce themselves again, triggers count again, and an unfinished
    # erasure concerns the files of one database.
    "processes": PersonalTable("name kind seen_at problem", is_copied=False),
    "task_counts": PersonalTable("provider status value", is_copied=False, only_in_postgres="slot"),
    "delivery_counts": PersonalTable("hook state value", is_copied=False, only_in_postgres="slot"),
    "hours": PersonalTable(
        "place provider series bucket hour value last_at", is_copied=False, only_in_postgres="slot"
    ),
    "erasures": PersonalTable("place since mark", is_copied=False),
}


def erasing(table: str, columns: Mapping[str, Column], where: str) -> str:
    """Return the statement that erases these columns in some rows."""
    changes = ", ".join(f"{name} = {column.empty}" for name, column in columns.items())
    return f"update {table} set {changes} where {where}"  # noqa: S608 - names of this file


def _of_task(name: str, table: PersonalTable, columns: Mapping[str, Column]) -> str:
    if table.is_deleted and columns == table.personal:
        return f"delete from {name} where {table.of_task}"  # noqa: S608 - names of this file
    return erasing(name, columns, table.of_task or "")


# The statements that erase what belongs to the task `:task`. Separate code erases idempotency
# keys, because the same request must not create a second task.
FORGET_TASK = tuple(
    _of_task(name, table, table.personal)
    for name, table in TABLES.items()
    if table.personal and table.of_task and name != "idempotency_keys"
)
# `prune` erases callbacks one by one, and counts the inputs that it deletes.
PRUNE_TASK = tuple(
    _of_task(name, table, columns)
    for name, table in TABLES.items()
    if table.of_task
    and name not in ("callbacks", "inputs", "idempotency_keys")
    and (columns := {k: one for k, one in table.personal.items() if not one.kept_because})
)
PRUNE_CALLBACK = erasing("callbacks", TABLES["callbacks"].personal, "id = :id")
# Texts about an endpoint name the task whose delivery brought them.
ERASE_SAID = tuple(
    erasing(name, TABLES[name].personal, "said_task = :task and said <> ''")
    for name in ("endpoints", "alerts")
)
# Rows that belong to no task: their texts are compared with the words of the task.
SHARED = {name: table for name, table in TABLES.items() if table.personal and table.of_task is None}
