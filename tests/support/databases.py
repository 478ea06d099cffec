"""Empty, migrated PostgreSQL databases for tests, on one server that the whole run shares.

Creating a database takes a server process 300 ms; emptying a used one takes about 2 ms. Databases
are therefore emptied and reused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from receiver.stores.postgres import PostgresStore
from tests.support.patience import wait_until

TEMPLATE = "template_of_the_tests"
TEMPLATE_LOCK = 4_217_100  # an advisory lock: one process of the test run creates the template
VACUUM_EVERY = 25  # uses; deleted rows stay in the files, so statements become slower
FIRST_OID = 16_384  # of objects that are not built in
OURS = "schemaname not in ('pg_catalog', 'information_schema')"

# The fingerprint detects a test that changed more than rows: any definition, or a setting. The
# schema of a temporary table remains after the session. The settings of all databases are in one
# table. Most rows of the large catalogs are built in, and skipped.
_CATALOGS = (
    f"pg_class where oid >= {FIRST_OID}",
    f"pg_attribute where attrelid >= {FIRST_OID}",
    f"pg_proc where oid >= {FIRST_OID}",
    f"pg_type where oid >= {FIRST_OID}",
    *("pg_attrdef", "pg_constraint", "pg_index", "pg_trigger"),
    *("pg_publication", "pg_largeobject_metadata"),
    r"pg_namespace where nspname !~ '^pg_(toast_)?temp_\d+$'",
    "pg_db_role_setting join pg_database d on d.oid = setdatabase and datname = current_database()",
)


@dataclass(frozen=True)
class Contents:
    """The tables of an empty database, the last values of its sequences, and its fingerprint.

    The tables that contain rows from the beginning are part of the fingerprint: tests do not change
    them.
    """

    empty_tables: list[str]
    filled_tables: list[str]
    sequences: dict[str, int]
    fingerprint: list[tuple[int, int]]

    @cached_property
    def select_used(self) -> str:
        """The statement that returns which of the empty tables contain rows now."""
        return " union all ".join(
            f"select '{name}' where exists (select from {name})"  # noqa: S608 - of the schema
            for name in self.empty_tables
        )


@dataclass
class SharedStore:
    """A store that tests use one after another, and the connection that empties its database."""

    store: PostgresStore
    emptying: psycopg.Connection | None = None
    uses: int = 0


class Databases:
    """The databases of one process of the test run. `prefix` distinguishes their names."""

    def __init__(self, server_url: str, prefix: str) -> None:
        self._server = server_url
        self._prefix = prefix
        self._free: list[str] = []
        self._uses: dict[str, int] = {}
        # A new connection would take longer to read the catalogs than to empty the database.
        self._connections: dict[str, psycopg.Connection] = {}
        self._original: Contents | None = None
        self._shared: SharedStore | None = None  # not in use

    def take(self) -> str:
        """Return the URL of an empty, migrated database for the caller's exclusive use."""
        name = self._free.pop() if self._free else self._create()
        self._uses[name] += 1
        return self.url(name)

    def give_back(self, url: str) -> None:
        """Empty the database for the next test; drop it if that is not possible."""
        name = url.rpartition("/")[2]
        is_vacuumed = self._uses[name] % VACUUM_EVERY == 0
        try:
            is_emptied = self._emptied(self._connection(name), vacuum=is_vacuumed)
        except psycopg.OperationalError:  # the test has ended all connections to the database
            self._disconnect(name)
            is_emptied = self._emptied(self._connection(name), vacuum=is_vacuumed)
        if is_emptied:
            self._free.append(name)
        else:
            self._drop([name])

    @contextmanager
    def shared_store(self) -> Iterator[PostgresStore]:
        """Return an empty store that stays open for the next test of this process.

        A new server process needs longer to start, and to read the catalogs and triggers for the
        first time, than for all statements of a typical test. If a test closes the store, leaves a
        lock in the database, or changes definitions, the next test gets another store.
        """
        if self._shared is None:
            self._shared = SharedStore(PostgresStore(self.take()))
        shared, self._shared = self._shared, None
        store = shared.store
        try:
            yield store
        finally:
            if self._can_share(shared):
                self._shared = shared
            else:
                self._end(shared)

    def close(self) -> None:
        """Drop the remaining databases, so that a run does not leave hundreds of them."""
        if self._shared is not None:
            self._end(self._shared)
        self._drop(self._free)
        for name in list(self._connections):
            self._disconnect(name)

    def _can_share(self, shared: SharedStore) -> bool:
        """Empty the database of the store; return False if it cannot be shared."""
        shared.uses += 1
        store, url = shared.store, shared.store.database.url
        if vars(store.database).get("_is_closed"):
            return False
        if shared.emptying is None:
            # Each statement is prepared at its first execution.
            shared.emptying = _connect(url, "-c lock_timeout=1s", prepare_threshold=0)
        try:
            is_restored = self._restored(shared.emptying)
            if is_restored and shared.uses % VACUUM_EVERY == 0:
                self._vacuum(shared.emptying)
        except psycopg.Error:
            return False
        return is_restored

    def _end(self, shared: SharedStore) -> None:
        shared.store.close()
        if shared.emptying is not None:
            shared.emptying.close()
        self.give_back(shared.store.database.url)

    def url(self, name: str) -> str:
        return f"{self._server.rpartition('/')[0]}/{name}"

    def _create(self) -> str:
        if self._original is None:
            self._make_template()
        name = f"{self._prefix}_{len(self._uses)}"
        with psycopg.connect(self._server, autocommit=True) as connection:
            # PostgreSQL 15 and newer write each page to the log by default: twice as slow.
            is_new = connection.info.server_version >= 150_000
            how = SQL("strategy file_copy" if is_new else "")
            create = SQL("create database {} template {} {}")
            connection.execute(create.format(Identifier(name), Identifier(TEMPLATE), how))
        if self._original is None:
            with psycopg.connect(self.url(name)) as connection:
                self._original = _contents(connection)
        self._uses[name] = 0
        return name

    def _make_template(self) -> None:
        """Create and migrate the template, unless another process has done so."""
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute("select pg_advisory_lock(%s)", (TEMPLATE_LOCK,))
            found = connection.execute("select from pg_database where datname = %s", (TEMPLATE,))
            if found.fetchone() is None:
                connection.execute(SQL("create database {}").format(Identifier(TEMPLATE)))
                store = PostgresStore(self.url(TEMPLATE))
                store.migrate()
                store.close()

    def _emptied(self, connection: psycopg.Connection, *, vacuum: bool) -> bool:
        """Restore the original contents. Return False if definitions were changed."""
        _end_others(connection)
        if not self._restored(connection):
            return False
        if vacuum:
            self._vacuum(connection)
        return True

    def _connection(self, name: str) -> psycopg.Connection:
        """Return the connection that empties a database; it stays open."""
        if name not in self._connections:
            self._connections[name] = _connect(self.url(name), prepare_threshold=0)
        return self._connections[name]

    def _disconnect(self, name: str) -> None:
        if connection := self._connections.pop(name, None):
            connection.close()

    def _vacuum(self, connection: psycopg.Connection) -> None:
        assert self._original is not None
        connection.execute("vacuum " + ",".join(self._original.empty_tables))

    def _restored(self, connection: psycopg.Connection) -> bool:
        original = self._original
        assert original is not None
        if _fingerprint(connection, original.filled_tables) != original.fingerprint:
            return False
        _restore(connection, original)
        return True

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._disconnect(name)
        with psycopg.connect(self._server, autocommit=True) as connection:
            for name in names:
                connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))


def _connect(url: str, options: str = "", **kwargs: Any) -> psycopg.Connection:
    """Connect without triggers, also of foreign keys. (To switch them off later would discard the
    prepared statements.)
    """
    options += " -c session_replication_role=replica"
    return psycopg.connect(url, autocommit=True, options=options, **kwargs)


def _end_others(connection: psycopg.Connection) -> None:
    """End connections that the test left open: they may hold locks or write."""
    others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    connection.execute(f"select pg_terminate_backend(pid) {others}")
    wait_until(lambda: connection.execute(f"select {others}").fetchone() is None)


def _fingerprint(connection: psycopg.Connection, filled_tables: list[str]) -> list[tuple[int, int]]:
    statement = " union all ".join(
        f"select count(*), max({one.split()[0]}.xmin::text::bigint) from {one}"  # noqa: S608 - names from above
        for one in (*_CATALOGS, *filled_tables)
    )
    return connection.execute(statement).fetchall()


def _sequences(connection: psycopg.Connection) -> dict[str, int]:
    """Return the used sequences with their last values."""
    return dict(
        connection.execute(
            "select format('%I.%I', schemaname, sequencename), last_value from pg_sequences"
            " where last_value is not null"
        ).fetchall()
    )


def _contents(connection: psycopg.Connection) -> Contents:
    named = f"select format('%I.%I', schemaname, tablename) from pg_tables where {OURS}"  # noqa: S608
    empty_tables: list[str] = []
    filled_tables: list[str] = []
    for (name,) in connection.execute(named).fetchall():
        is_filled = connection.execute(f"select from {name} limit 1").fetchone()
        (empty_tables if is_filled is None else filled_tables).append(name)
    fingerprint = _fingerprint(connection, filled_tables)
    return Contents(empty_tables, filled_tables, _sequences(connection), fingerprint)


def _restore(connection: psycopg.Connection, original: Contents) -> None:
    used = connection.execute(original.select_used).fetchall()
    for (name,) in used:
        connection.execute(f"delete from {name}")  # noqa: S608
    for name in _sequences(connection):
        last = original.sequences.get(name)
        value, is_used = (1, False) if last is None else (last, True)
        connection.execute(SQL("select setval({}, %s, %s)").format(Literal(name)), (value, is_used))
