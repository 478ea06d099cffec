"""Every column of the record, and how `forget` and `prune` treat it.

`erasure.py` and `retention.py` erase the columns that are listed here as personal. A test fails for
a column that is not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NULL, EMPTY_TEXT, EMPTY_OBJECT = "null", "''", "'{}'"
EMPTY_BYTES = ":nothing"  # the literal differs between the databases
ERASED = ":erased"  # people read this text, so it states why it is missing
OF_DELIVERIES = """delivery in (
  select d.id from deliveries d join transitions tr on tr.id = d.transition where tr.task = :task
)"""
FORGOTTEN = "(erased: the task was forgotten)"
PRUNED = "(erased: the task's payload was pruned)"


@dataclass(frozen=True, slots=True)
class Column:
    """A column that can contain personal data. `forget` always erases it.

    `empty` is the SQL expression for its erased value. `kept_because` is the reason why `prune`
    does not erase it.
    """

    empty: str = NULL
    kept_because: str = ""


@dataclass(frozen=True, slots=True)
class PersonalTable:
    """The columns of one table.

    `impersonal`: ids, statuses, times, amounts, digests, and names that the operator chose.
    `of_task`: the condition for the rows of the task `:task`. None: the rows belong to no task, so
    their texts are searched for the identifiers of the task (see `receiver.stores.sql.echoes`).
    `is_deleted`: `forget` deletes the rows. `dated_by`: `prune` deletes rows by their age.
    """

    impersonal: str
    personal: Mapping[str, Column] = field(default_factory=dict)
    of_task: str | None = None
    is_deleted: bool = False
    dated_by: str = ""
    is_copied: bool = True
    only_in_postgres: str = ""  # further impersonal columns


_FOR_LISTS = "the operator's own name for the task, by which `forget` and `costs` find it"
_FOR_FORGET = "the location of the user's file, which `forget` removes"

TABLES: Mapping[str, PersonalTable] = {
    "tasks": PersonalTable(
        "seq id provider account provider_task_id callback_task_id id_source status trust cost"
        " cost_unit model conflict created_at updated_at expects_callback asked deadline_at"
        " given_up_at mismatched_at",
        {
            "reference": Column(kept_because=_FOR_LISTS),
            "reason": Column(),
            "metadata": Column(),
        },
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
        "id transition hook state after due_at attempts retries_from worker ended_at",
        {"output": Column()},
        of_task="transition in (select id from transitions where task = :task)",
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
    "pacing": PersonalTable("hook next_at", dated_by="next_at"),
    "counters": PersonalTable("name provider value"),
    "measures": PersonalTable("name labels value"),
    # Not copied: processes send heartbeats again, triggers count the copied rows, and an unfinished
    # erasure concerns the files of one database.
    "processes": PersonalTable("name kind seen_at problem listeners", is_copied=False),
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
    return f"update {table} set {changes} where {where}"  # noqa: S608 - contains no input


def _of_task(name: str, table: PersonalTable, columns: Mapping[str, Column]) -> str:
    if table.is_deleted and columns == table.personal:
        return f"delete from {name} where {table.of_task}"  # noqa: S608 - contains no input
    return erasing(name, columns, table.of_task or "")


# The statements that erase the personal data of the task `:task`. Separate code erases idempotency
# keys, because a repeated request must not create a second task.
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
    and (columns := {k: column for k, column in table.personal.items() if not column.kept_because})
)
PRUNE_CALLBACK = erasing("callbacks", TABLES["callbacks"].personal, "id = :id")
# The text of an endpoint's failure is stored with the task whose delivery failed.
ERASE_SAID = tuple(
    erasing(name, TABLES[name].personal, "said_task = :task and said <> ''")
    for name in ("endpoints", "alerts")
)
# Tables whose rows belong to no task: their texts are searched for the identifiers of a task.
SHARED = {name: table for name, table in TABLES.items() if table.personal and table.of_task is None}
