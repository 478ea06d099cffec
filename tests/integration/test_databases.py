"""A used database is emptied or dropped before another test gets it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

psycopg = pytest.importorskip("psycopg")

from tests.support.databases import Databases  # noqa: E402


@pytest.fixture
def databases(postgres_url: str) -> Iterator[Databases]:
    made = Databases(postgres_url, f"databases_{uuid4().hex}")
    yield made
    made.close()


def left_by(databases: Databases, statement: str) -> bool:
    """Return whether the next test gets the database in which a test ran this statement."""
    url = databases.take()
    connection = psycopg.connect(url, autocommit=True)  # stays open, as if a test had forgotten it
    connection.execute(statement.replace("DATABASE", url.rpartition("/")[2]))
    databases.give_back(url)
    connection.close()
    following = databases.take()
    databases.give_back(following)
    return following == url


@pytest.mark.parametrize(
    ("statement", "look"),
    [
        ("select pg_advisory_lock(77)", "select pg_try_advisory_lock(77)::int - 1"),
        ("create temporary table extra (i int)", "select count(to_regclass('pg_temp.extra'))"),
        ("begin; lock table tasks", "lock table tasks nowait; select 0"),
        ("insert into counters values ('a', 'b', 1)", "select count(*) from counters"),
        (
            "insert into procrastinate_jobs (queue_name, task_name) values ('a', 'b')",
            "select count(*) from procrastinate_jobs",
        ),
        (
            "select nextval('procrastinate_jobs_id_seq')",
            "select nextval('procrastinate_jobs_id_seq') - 1",
        ),
    ],
)
def test_what_a_test_left_in_a_database_is_removed(
    databases: Databases, statement: str, look: str
) -> None:
    assert left_by(databases, statement)
    url = databases.take()
    with psycopg.connect(url) as connection:
        cursor = connection.execute(look)
        while cursor.nextset():
            pass
        assert cursor.fetchone() == (0,)
    databases.give_back(url)


@pytest.mark.parametrize(
    "statement",
    [
        "create view extra as select 1",
        "create schema extra",
        "revoke usage on schema public from public",
        "create function extra() returns int language sql as 'select 1'",
        "alter table tasks disable trigger all",
        "drop table counters",
        "create index extra on tasks (id)",
        "create publication extra for all tables",
        "select lo_create(0)",
        "alter database DATABASE set work_mem = '7MB'",
        "alter sequence procrastinate_jobs_id_seq increment by 5",
    ],
)
def test_a_database_whose_definitions_were_changed_is_dropped(
    databases: Databases, statement: str
) -> None:
    assert not left_by(databases, statement)
