"""A record of any size: tasks that the store's own verbs wrote, and copies of one of them by SQL.

Each task has what a real one has: its creation, three callbacks, two hooks told at its end. The
copies are rows like the original's in every table, with keys, ids, bodies and instants of their
own, in order of time.
"""

from __future__ import annotations

import sqlite3
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


def told(hears: frozenset[str]) -> list[Subscription]:
    return [Subscription(hook=hook, on=hears) for hook in HOOKS]


def callbacks_of(task: str, at: int) -> list[Callback]:
    """The three that the load sends as well: byte for byte."""
    return [
        Callback("kling", task, body(status, provider_task(task)), at + turn, HEADERS)
        for turn, status in enumerate(STATUSES)
    ]


def record(store: Store, tasks: int, *, hears: frozenset[str] = ENDS) -> None:
    """Submit so many tasks and let their callbacks come in, by the store's own verbs."""
    ingest, now = Ingest(store, told(hears)), now_ms()

    def one(number: int) -> None:
        at = now + number
        task = new_task_id(at)
        made = Task(task, "kling", Status.CREATED, at, at, reference=f"ORDER-{number}")
        store.create_task(made)
        for callback in callbacks_of(task, at):
            ingest.accept(callback)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(tasks)))


def deliver(store: Store) -> None:
    """Make every delivery that is due, at once and well."""
    now = now_ms() + 1_000_000
    attempt = Attempt(1, now, now + 120, "delivered", "the endpoint answered 200 ok")
    with ThreadPoolExecutor(THREADS) as pool:
        while claimed := store.claim("bench", now, now + 60_000, 500):
            list(pool.map(lambda d: store.settle(d, attempt, State.DELIVERED, None), claimed))


def fill(database: Path, events: int) -> list[str]:
    """Bring a migrated, empty SQLite record to so many events; the ids of its tasks.

    Nothing else may have it open: what is not synced could be lost, and nobody would mind.
    """
    store = open_store(f"sqlite:///{database}")
    record(store, 1)
    deliver(store)
    first = store.tasks()[0]
    ids = [new_task_id(first.created_at + APART * n) for n in range(1, events // len(STATUSES))]
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("pragma synchronous = off")
    connection.execute("pragma cache_size = -200000")
    connection.create_function("digest", 1, _digest, deterministic=True)
    columns = _prepare(connection, first.id)
    for start in range(0, len(ids), A_BATCH):
        _copy(connection, columns, first.id, list(enumerate(ids, 1))[start : start + A_BATCH])
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    ids.insert(0, first.id)
    _must_be_alike(store, first.id, ids[-1])
    store.close()
    return ids


def _digest(raw: bytes) -> bytes:
    return Callback("kling", None, raw, 0).digest


def _prepare(connection: sqlite3.Connection, task: str) -> dict[str, list[str]]:
    """Set the task's rows aside, table by table; the columns of each table."""
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
    """Write these copies of the first task, in one transaction, in order of their keys."""
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
OWN = {  # what is not the original's, nor a key or an instant
    ("tasks", "id"): "copies.id",
    ("tasks", "provider_task_id"): f"'{provider_task('')}' || copies.id",
    ("tasks", "reference"): "'ORDER-' || copies.n",
    ("callbacks", "body"): BODY,
    ("callbacks", "digest"): f"digest({BODY})",
}
ROWS_OF = {  # what is on record of one task, parents first
    "tasks": "id = :id",
    "callbacks": "task = (select seq from first_tasks) order by id",
    "transitions": "task = (select seq from first_tasks) order by id",
    "deliveries": "transition in (select id from first_transitions) order by id",
    "attempts": "delivery in (select id from first_deliveries) order by delivery",
}
KEYS = {  # the columns that hold a row key, and how many rows of that table a task has
    "tasks": {"seq": 1},
    "callbacks": {"id": 3, "task": 1},
    "transitions": {"id": 4, "task": 1, "callback": 3},
    "deliveries": {"id": 2, "transition": 4},
    "attempts": {"id": 2, "delivery": 2},
}


def _value(table: str, column: str) -> str:
    """What a copy has in this column."""
    if own := OWN.get((table, column)):
        return own
    step = APART if column.endswith("_at") else KEYS[table].get(column)
    return f"was.{column}" if step is None else f"was.{column} + copies.n * {step}"


def _must_be_alike(store: Store, first: str, last: str) -> None:
    """A copy that lacks what the original has would be a smaller record than it says."""
    shapes = []
    for task in (first, last):
        found = store.history(task)
        attempts = sum(map(len, found.attempts.values()))
        parts = (found.transitions, found.callbacks, found.deliveries)
        shapes.append((*map(len, parts), attempts, found.task.status))
    assert shapes[0] == shapes[1] == (4, 3, 2, 2, Status.SUCCEEDED), shapes
