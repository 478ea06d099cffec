"""Creates a record of any size: tasks written by the store's own methods, and copies of one by SQL.

A task has the rows of a real one: its creation, its callbacks, and deliveries to two hooks. The
copied task has one callback, so that a record of a million events has a million tasks. Copies have
the original's rows in every table, with their own keys, ids, bodies and times, in chronological
order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.load import STATUSES, provider_task
from receiver.clock import now_ms
from receiver.deliveries import Attempt, State, Subscription
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.stores import Store, open_store
from receiver.tasks import Status, Task, new_task_id
from tests.support.samples import body

HOOKS = ("shop", "books")
ENDS = frozenset({"succeeded", "failed"})
EVERY = frozenset({"submitted", "processing", *ENDS})
HEADERS = {
    "Host": "shop.example",
    "User-Agent": "Go-http-client/1.1",
    "Content-Type": "application/json",
    "Accept-Encoding": "gzip",
}
THREADS = 32
APART = 250  # ms between two tasks
A_BATCH = 5000  # tasks
TRIGGERS = "select name, sql from sqlite_master where type = 'trigger'"
# The tables in which triggers count. A copied event is counted in the same hour as the original.
COUNTS = ("task_counts", "delivery_counts", "hours")


def told(hears: frozenset[str]) -> list[Subscription]:
    return [Subscription(hook=hook, on=hears) for hook in HOOKS]


def callbacks_of(task: str, at: int, statuses: Sequence[str]) -> list[Callback]:
    """Return the callbacks of a task, identical to those that the load sends."""
    return [
        Callback("kling", task, body(status, provider_task(task)), at + turn, HEADERS)
        for turn, status in enumerate(statuses)
    ]


def record(
    store: Store,
    tasks: int,
    *,
    hears: frozenset[str] = ENDS,
    statuses: Sequence[str] = STATUSES,
) -> None:
    """Create `count` tasks and record their callbacks with the store's own methods."""
    ingest, now = Ingest(store, told(hears)), now_ms()

    def one(number: int) -> None:
        at = now + number
        task = new_task_id(at)
        made = Task(task, "kling", Status.CREATED, at, at, reference=f"ORDER-{number}")
        store.inbox.create_task(made)
        for callback in callbacks_of(task, at, statuses):
            ingest.accept(callback)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(tasks)))


def deliver(store: Store) -> None:
    """Mark every due delivery as delivered."""
    now = now_ms() + 1_000_000
    attempt = Attempt(1, now, now + 120, "delivered", "the endpoint answered 200 ok")
    with ThreadPoolExecutor(THREADS) as pool:
        while claimed := store.outbox.claim("bench", now, now + 60_000, 500):
            list(
                pool.map(lambda d: store.outbox.settle(d, attempt, State.DELIVERED, None), claimed)
            )


def fill(database: Path, events: int) -> list[str]:
    """Fill a migrated, empty SQLite record with `events` events, each with its own task.

    Returns the ids of the tasks.

    No other process may have it open, because the data is not synced.
    """
    store = open_store(f"sqlite:///{database}")
    record(store, 1, statuses=STATUSES[-1:])
    deliver(store)
    first = store.lists.tasks()[0]
    store.close()
    ids = [new_task_id(first.created_at + APART * n) for n in range(1, events)]
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("pragma journal_mode = off")
    connection.execute("pragma synchronous = off")
    connection.execute("pragma cache_size = -200000")
    connection.create_function("digest", 1, _digest, deterministic=True)
    columns = _prepare(connection, first.id)
    triggers = connection.execute(TRIGGERS).fetchall()
    for name, _ in triggers:
        connection.execute(f"drop trigger {name}")
    for start in range(0, len(ids), A_BATCH):
        copies = [*enumerate(ids[start : start + A_BATCH], start + 1)]
        _copy(connection, columns, first.id, copies)
    for table in COUNTS:
        sql = f"update {table} set value = value * ?"  # noqa: S608 - of this file
        connection.execute(sql, (events,))
    for _, sql in triggers:
        connection.execute(sql)
    connection.execute("pragma journal_mode = wal")
    connection.close()
    ids.insert(0, first.id)
    store = open_store(f"sqlite:///{database}")
    _must_be_alike(store, first.id, ids[-1])
    assert [count.value for count in store.metrics.task_counts() if count.value] == [len(ids)]
    store.close()
    return ids


def _digest(raw: bytes) -> bytes:
    return Callback("kling", None, raw, 0).digest


def _prepare(connection: sqlite3.Connection, task: str) -> dict[str, list[str]]:
    """Copy the task's rows to temporary tables; return the columns of each table."""
    columns = {}
    for table, where in ROWS_OF.items():
        connection.execute(
            f"create temp table first_{table} as select * from {table} where {where}",  # noqa: S608
            {"id": task} if ":id" in where else {},
        )
        found = connection.execute(f"pragma table_info({table})")
        columns[table] = [str(name) for _, name, *_ in found]
    connection.execute("create temp table copies (n integer primary key, id text not null)")
    return columns


def _copy(
    connection: sqlite3.Connection,
    columns: dict[str, list[str]],
    first: str,
    copies: list[tuple[int, str]],
) -> None:
    """Insert these copies of the first task in one transaction, ordered by key."""
    connection.execute("begin immediate")
    connection.execute("delete from copies")
    connection.executemany("insert into copies (n, id) values (?, ?)", copies)
    for table, names in columns.items():
        values = ", ".join(_value(table, name) for name in names)
        sql = (
            f"insert into {table} ({', '.join(names)}) select {values} "  # noqa: S608 - of the schema
            f"from copies cross join first_{table} as was"
        )
        connection.execute(sql, {"first": first} if table == "callbacks" else {})
    connection.execute("commit")


BODY = "cast(replace(cast(was.body as text), :first, copies.id) as blob)"
OWN = {  # columns that are neither copied nor keys nor times
    ("tasks", "id"): "copies.id",
    ("tasks", "provider_task_id"): f"'{provider_task('')}' || copies.id",
    ("tasks", "reference"): "'ORDER-' || copies.n",
    ("callbacks", "body"): BODY,
    ("callbacks", "digest"): f"digest({BODY})",
}
ROWS_OF = {  # the rows of one task, parents first
    "tasks": "id = :id",
    "callbacks": "task = (select seq from first_tasks) order by id",
    "transitions": "task = (select seq from first_tasks) order by id",
    "deliveries": "transition in (select id from first_transitions) order by id",
    "attempts": "delivery in (select id from first_deliveries) order by delivery",
}
KEYS = {  # columns that contain a row key, and the number of rows per task in that table
    "tasks": {"seq": 1},
    "callbacks": {"id": 1, "task": 1},
    "transitions": {"id": 2, "task": 1, "callback": 1},
    "deliveries": {"id": 2, "transition": 2},
    "attempts": {"id": 2, "delivery": 2},
}


def _value(table: str, column: str) -> str:
    """Return the SQL for this column of a copy."""
    if own := OWN.get((table, column)):
        return own
    step = APART if column.endswith("_at") else KEYS[table].get(column)
    return f"was.{column}" if step is None else f"was.{column} + copies.n * {step}"


def _must_be_alike(store: Store, first: str, last: str) -> None:
    """Check that a copy has all rows of the original; otherwise the record would be too small."""
    shapes = []
    for task in (first, last):
        found = store.queries.history(task)
        attempts = sum(map(len, found.attempts.values()))
        parts = (found.transitions, found.callbacks, found.deliveries)
        shapes.append((*map(len, parts), attempts, found.task.status))
    assert shapes[0] == shapes[1] == (2, 1, 2, 2, Status.SUCCEEDED), shapes
