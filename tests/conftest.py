"""Fixtures and hooks of pytest that tests of every tier share."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from structlog.contextvars import clear_contextvars

from receiver import clock
from receiver.stores.sqlite import SqliteStore
from sandbox import try_on_picture
from tests.support import shm
from tests.support.applications import MakeApp, applications
from tests.support.databases import Databases
from tests.support.env_files import NO_ENV_FILE
from tests.support.log_records import LogRecords, collected
from tests.support.migrated_record import create_record
from tests.support.open_files import assert_closed_but, open_databases
from tests.support.patience import PATIENCE
from tests.support.postgres_server import postgres, prepared
from tests.support.processes import fork_server

if TYPE_CHECKING:
    from tests.support.queue_servers import QueueServer

pytest_plugins = ["tests.support.parallel"]

# A shell starts background jobs with SIGINT ignored. The processes that tests start would inherit
# this, and ignore the SIGINT that a test sends.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine, examples may take long to generate and to run; that is not a failure. Each run
# tries other examples; `--hypothesis-profile=thorough` tries many.
settings.register_profile(
    "quick", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=2000)
settings.load_profile("quick")

# Objects from the collection of the tests are never freed, so the garbage collector ignores them.
# Otherwise each process of a run spends several seconds on it.
gc.disable()

# Keep the files of the tests in memory, where syncing them takes no time: see `shm`.
if files_in_memory := shm.folder():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", files_in_memory)

# A `.env` in the checkout has the settings of a developer's own receiver, which are not for tests.
os.environ |= NO_ENV_FILE

# Let the processes that tests start store compiled modules, even if this is switched off.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Hundreds of sandboxes make a result of the same two pictures, which takes 0.1 s of CPU time.
try_on_picture.dress = lru_cache(maxsize=8)(try_on_picture.dress)

PYTHON = ".".join(map(str, sys.version_info[:2]))
# pytest-timeout ends a test that hangs. It reads this variable after the conftest.py files.
os.environ.setdefault("PYTEST_TIMEOUT", f"{5 * PATIENCE:g}")
URL = pytest.StashKey[str]()
FLASK_FIXTURES = {
    "_configure_application",
    "_monkeypatch_response_class",
    "_push_request_context",
}
_servers = ExitStack()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-postgres",
        action="store_true",
        help="leave out the tests that use the PostgreSQL server of the run",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--without-postgres"):
        left_out = [item for item in items if _needs_postgres(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _needs_postgres(item)]
    for item in items:
        _drop_unused_fixtures(item)


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("processes"):
        # Most processes need these modules, which the product imports at their first use.
        import_module("sqlite_utils")
        import_module("apprise").Apprise.instantiate("json://localhost")  # imports all services
    gc.freeze()
    gc.set_threshold(20_000)  # the default, 700, takes 5 % of the CPU time of all tests
    gc.enable()


def _drop_unused_fixtures(item: pytest.Item) -> None:
    """Drop the fixtures that pytest-flask adds to each test, if the test has no fixture `app`.

    They then do nothing, and take a sixth of the time of a short test.
    """
    names = getattr(item, "fixturenames", [])
    if "app" not in names:
        item.fixturenames = [  # type: ignore[attr-defined]
            name for name in names if name not in FLASK_FIXTURES
        ]


def _needs_postgres(item: pytest.Item) -> bool:
    """Return whether the test uses the PostgreSQL server of the run, with all or with these
    parameters.
    """
    names = set(getattr(item, "fixturenames", ()))
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    parameters = {value for value in values if isinstance(value, str)}
    if parameters & {"sqlite", "postgres"}:
        return "postgres" in parameters
    return "postgres_url" in names or ("fresh" in names and "database" not in names)


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers before the processes that share them."""
    if config.getoption("processes") and not config.getoption("--without-postgres"):
        _servers.enter_context(prepared())
        _servers.enter_context(fork_server())
        config.stash[URL] = _servers.enter_context(postgres())


def pytest_unconfigure(config: pytest.Config) -> None:
    _servers.close()
    if config.getoption("processes"):
        # pytest now collects garbage several times, to find what tests left open. All tests ran in
        # other processes, so there is nothing to find, but there are the reports of all tests.
        gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Append the skipped tests with their reasons to the file that SKIPPED_TESTS names."""
    file = os.environ.get("SKIPPED_TESTS")
    skipped = terminalreporter.stats.get("skipped", ())
    if file:
        with Path(file).open("a") as lines:
            lines.writelines(
                f"{report.nodeid}: {report.longrepr[2]} (Python {PYTHON})\n" for report in skipped
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Restore the state that tests of one process share. A hook is faster than an autouse fixture.

    Close the connections that attempts of the test have kept for the next attempt, forget the
    values that it bound to the log, and the database server whose clock it used.
    """
    try:
        yield
    finally:
        for name in ("receiver.outgoing.connections", "receiver.hooks.brokers.base"):
            if connections := sys.modules.get(name):
                connections.close_idle()
        clear_contextvars()
        clock.follow(None)


@pytest.fixture(scope="module", autouse=True)
def _no_database_stays_open() -> Iterator[None]:
    """Check that a module closes every database file that it opened.

    Only Python 3.13 and newer report a connection that the garbage collector had to close.
    """
    before = open_databases()
    yield
    assert_closed_but(before)


@pytest.fixture(scope="session")
def migrated() -> Callable[[Path], SqliteStore]:
    """Return a function that creates an empty, migrated SQLite record at a path, by copying one."""

    def make(path: Path) -> SqliteStore:
        create_record(path)
        return SqliteStore(path)

    return make


@pytest.fixture
def store(tmp_path: Path, migrated: Callable[[Path], SqliteStore]) -> Iterator[SqliteStore]:
    """An empty, migrated SQLite record."""
    made = migrated(tmp_path / "receiver.db")
    yield made
    made.close()


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Return a function that creates applications as `create_app` does, which end with the test."""
    with applications() as make:
        yield make


@pytest.fixture
def log_records() -> Iterator[LogRecords]:
    """What is logged with `logging` during the test."""
    with collected() as records:
        yield records


@pytest.fixture(scope="session")
def queue_servers() -> Iterator[Callable[[str], QueueServer]]:
    """Return a function that starts the broker with this name at its first use, and returns it."""
    from tests.support.queue_servers import SERVERS  # noqa: PLC0415 - few processes need it

    with ExitStack() as stack:

        @lru_cache
        def started(name: str) -> QueueServer:
            return stack.enter_context(SERVERS[name]())

        yield started


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the server that the whole test run shares."""
    shared = request.config.stash.get(URL, None)
    if shared:
        yield shared
    else:
        with postgres() as url:
            yield url


@pytest.fixture(scope="session")
def _databases(postgres_url: str) -> Iterator[Databases]:
    process = os.environ.get("TEST_PROCESS", "alone").replace("-", "_")
    made = Databases(postgres_url, f"test_{process}")
    yield made
    made.close()


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Return a function that returns the URL of a new, migrated PostgreSQL database at each call.

    The server starts at the first call.
    """
    taken: list[str] = []

    def take() -> str:
        databases: Databases = request.getfixturevalue("_databases")
        taken.append(databases.take())
        return taken[-1]

    yield take
    for url in taken:
        request.getfixturevalue("_databases").give_back(url)
