"""Our variants, on SQLite and on PostgreSQL, with production settings."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from bench import ROOT
from bench.disks import Disk, under_us
from bench.kept import postgres_rows, rows
from bench.processes import CannotMeasure, answers, free_port, parent, tree, wait_until
from bench.site import Running, Site, Start, gunicorn, serve
from receiver.stores import open_store
from tests.support.postgres_server import NoPostgresError, started

API_TOKEN = "of-the-bench-alone"  # noqa: S105 - opens nothing that outlives the bench
OURS = "python:receiver.web.gunicorn"
COMMIT_EACH = "bench.apps.commit_each:app"  # without group commit
# Our other fronts by name, with gunicorn's arguments in addition to OURS.
FRONTS: dict[str, tuple[str, ...]] = {
    "threads": ("--worker-class", "gthread"),
}
HOOK = """
[[hook]]
name = "{name}"
type = "slack"
url = "http://127.0.0.1:{port}/"
allow_private = true
"""
# Filters of hooks for final statuses. They match every success, so that they save no delivery.
FILTERS = (
    '{ "task.account" = ["default", "shop-*"] }',
    '{ "task.cost" = { not = { min = 100 } } }',
    '{ "task.metadata.campaign" = { not = "test-*" } }',
    '{ "media.kind" = "image", "media.url" = "https://*" }',
    '{ trust = { not = "queried" }, occurred_at = { min = 2020-01-01 } }',
)
NOWHERE = 9  # the port of the web process's hooks, which only stores deliveries


def two_hooks(port: int) -> str:
    """Write a hooks file with two hooks for final statuses."""
    return "".join(HOOK.format(name=name, port=port) for name in ("shop", "books"))


def ten_hooks(port: int) -> str:
    """Write a hooks file with ten hooks for final statuses, five of them with a filter."""
    filters = [f"where = {one}\n" for one in FILTERS] + [""] * len(FILTERS)
    return "".join(
        HOOK.format(name=f"hook-{number}", port=port) + one for number, one in enumerate(filters)
    )


def on_granian(site: Site) -> Iterator[Running]:
    """Run our handler for callbacks under Granian, with the rest of our web process."""
    python = site.peers.place("granian")
    database, port = site.folder / "receiver.db", free_port()
    migrate(f"sqlite:///{database}")
    hooks = site.folder / "hooks.toml"
    hooks.write_text(two_hooks(NOWHERE))
    options = ("--interface", "asgi", "--loop", "uvloop", "--http", "1", "--log-level", "warning")
    address = ("--host", "127.0.0.1", "--port", str(port))
    command = [str(python), "-m", "granian", *options, *address, "bench.apps.by_granian:app"]
    given = dict[str, Any](
        DATABASE_URL=f"sqlite:///{database}",
        HOOKS_FILE=hooks,
        API_TOKEN=API_TOKEN,
        PYTHONPATH=os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")]),
    )
    with serve(site, command, port, **given) as running:
        running.kept = lambda: rows(database, "callbacks")
        yield running


@contextmanager
def our_web(
    site: Site,
    database_url: str,
    workers: int,
    options: Sequence[str] = (),
    app: str = "wsgi:app",
    write_hooks: Callable[[int], str] = two_hooks,
    **environment: object,
) -> Iterator[Running]:
    """Run the web process with production settings on an existing record."""
    hooks, port = site.folder / "hooks.toml", free_port()
    if not hooks.exists():
        hooks.write_text(write_hooks(NOWHERE))
    command = gunicorn(OURS, workers, port, *options, app)
    given = dict[str, Any](DATABASE_URL=database_url, HOOKS_FILE=hooks, API_TOKEN=API_TOKEN)
    with serve(site, command, port, **{**given, **environment}) as running:
        wait_until(lambda: answers(port), running.log)
        wait_until(lambda: len(tree(running.roots[0])) == workers + 1, running.log)
        yield running


def migrate(database_url: str) -> None:
    store = open_store(database_url)
    store.migrate()
    store.close()


def on_sqlite(
    workers: int,
    options: Sequence[str] = (),
    app: str = "wsgi:app",
    write_hooks: Callable[[int], str] = two_hooks,
) -> Start:
    def start(site: Site) -> Iterator[Running]:
        database = site.folder / "receiver.db"
        migrate(f"sqlite:///{database}")
        url = f"sqlite:///{database}"
        with our_web(site, url, workers, options, app, write_hooks) as running:
            running.kept = lambda: rows(database, "callbacks")
            yield running

    return start


@contextmanager
def postgres(disk: Disk) -> Iterator[tuple[str, int]]:
    """Run a durable server on this disk; yield its URL and process. Raises CannotMeasure."""
    with ExitStack() as stack:
        try:
            with under_us(disk):
                server = stack.enter_context(started(durable=True))
        except NoPostgresError as error:
            raise CannotMeasure(str(error)) from None
        with psycopg.connect(server.url) as connection:
            row = connection.execute("select pg_backend_pid()").fetchone()
            assert row is not None
            postmaster = parent(row[0])
        yield server.url, postmaster


def on_postgres(workers: int) -> Start:
    def start(site: Site) -> Iterator[Running]:
        with postgres(site.disk) as (url, postmaster):
            migrate(url)
            with our_web(site, url, workers) as running:
                running.roots.append(postmaster)
                running.kept = lambda: postgres_rows(url, "callbacks")
                yield running

    return start
