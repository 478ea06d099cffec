"""Runs the tests in several processes, which are forked after the tests have been collected.

`pytest --processes COUNT` uses it. pytest-xdist would start an interpreter for each process, and
each would import and collect all tests: see docs/adr/0027-forked-test-processes.md.

Each process asks for a unit of tests, runs it, and sends its reports to the process that forked it.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import uuid
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import NoReturn

import pytest
from _pytest.runner import pytest_sessionfinish as tear_down_everything

PROCESSES_PER_CORE = 4  # most tests spend most of their time waiting
# Modules whose tests share something expensive, with the name of the group.
TOGETHER = {
    "tests/acceptance/test_bench.py": "one round of the bench",
    "tests/acceptance/test_demo.py": "one wheel and its demo",
    "tests/acceptance/test_docs_examples.py": "one installation",
    "tests/acceptance/test_provider_packages.py": "one wheel of a provider",
    "tests/acceptance/test_queue_docs.py": "one broker of each kind",
    "tests/acceptance/test_refused_bodies.py": "one pair of web processes",
    "tests/acceptance/test_reload.py": "one receiver serve",
    "tests/acceptance/test_same_responses.py": "one pair of web processes for each database",
    "tests/acceptance/test_shape.py": "one measurement",
    "tests/acceptance/test_wheel.py": "one wheel and its demo",
    "tests/acceptance/test_wire.py": "one web process",
    "tests/browser/test_accessibility.py": "one dashboard and one sandbox",
    "tests/browser/test_api_page.py": "one Chromium",
    "tests/browser/test_appearance.py": "one Chromium",
    "tests/browser/test_dashboard.py": "one Chromium",
    "tests/browser/test_live_events.py": "one Chromium",
    "tests/contract/test_adapters_together.py": "one sandbox",
    "tests/contract/test_hooks.py": "one broker of each kind",
    "tests/contract/test_odd_results.py": "one result",
    "tests/integration/hooks/test_queues.py": "one broker of each kind",
    "tests/integration/submitter/test_doctor.py": "one sandbox of the doctor",
    "tests/integration/test_debian_packages.py": "one repository",
    "tests/integration/test_fork_server.py": "one interpreter with all imports",
    "tests/integration/test_hostile_bodies.py": "one application and its record",
    "tests/integration/test_openapi.py": "one application",
    "tests/integration/test_pages.py": "one long record",
    "tests/integration/test_postgres_lists.py": "one record of many rows",
    "tests/integration/test_proxies.py": "one server of each kind",
    "tests/integration/test_s3.py": "one S3 server",
    "tests/integration/test_unreachable_postgres.py": "one server that refuses",
    "tests/unit/test_import_contracts.py": "one report",
    "tests/unit/test_imports_of_commands.py": "one run of all commands",
    "tests/unit/test_linear_expressions.py": "one syntax tree of each module",
    "tests/unit/test_locks.py": "one syntax tree of each module",
    "tests/unit/test_provider_names.py": "one syntax tree of each module",
}
# Tests that take so little time that passing them to a process one by one would matter.
QUICK = ("tests/unit/", "tests/contract/")
ENDING = (signal.SIGINT, signal.SIGTERM)  # the signals that interrupt a run
TEST_RUN = "TEST_RUN"  # the variable with an id that all processes of a run share
NAME = "TEST_PROCESS"  # the variable with the name of a process

Unit = list[int]  # positions in the list of the session's tests


class Terminal:
    """Takes the place of pytest's reporter in a process, for plugins that write to the terminal."""

    def __init__(self, config: pytest.Config) -> None:
        self._tw = config.get_terminal_writer()


@dataclass
class Process:
    """A forked process, seen from the one that forked it."""

    name: str
    pid: int
    connection: Connection
    unfinished: deque[int] = field(default_factory=deque)  # tests, the running one first


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("parallel").addoption(
        "--processes",
        type=lambda count: (
            PROCESSES_PER_CORE * (os.cpu_count() or 1) if count == "auto" else int(count)
        ),
        default=0,
        metavar="COUNT",
        help=f"run the tests in COUNT processes; `auto` means {PROCESSES_PER_CORE} for each core",
    )


def pytest_configure() -> None:
    os.environ[TEST_RUN] = uuid.uuid4().hex
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the run as Ctrl-C does


def pytest_report_header(config: pytest.Config) -> str | None:
    count = config.getoption("processes")
    return f"processes: {count}" if count else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    count = session.config.getoption("processes")
    if not count or session.testsfailed or session.config.option.collectonly:
        return None
    Run(session).run(count)
    return True


def units(nodeids: Iterable[str]) -> list[Unit]:
    """Divide the tests into units, each of which runs in one process.

    A unit is a test; of the quick tests, a function with all its parameters; or a group of modules.
    """
    divided: dict[str, Unit] = {}
    for position, nodeid in enumerate(nodeids):
        module = nodeid.partition("::")[0]
        unit = nodeid.partition("[")[0] if module.startswith(QUICK) else nodeid
        divided.setdefault(TOGETHER.get(module, unit), []).append(position)
    return list(divided.values())


class Run:
    """The process that forks the others, and distributes the tests among them."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._units = deque(units(item.nodeid for item in session.items))
        self._processes: dict[Connection, Process] = {}
        self._count = 0

    def run(self, count: int) -> None:
        # Every process has a folder below this one.
        self._session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            for _ in range(count):
                self._fork()
            while self._processes:
                for connection in wait(list(self._processes)):
                    assert isinstance(connection, Connection)
                    self._receive(self._processes[connection])
        except BaseException:
            for process in self._processes.values():
                os.kill(process.pid, signal.SIGTERM)
            raise
        finally:
            for process in self._processes.values():
                process.connection.close()
                os.waitpid(process.pid, 0)

    def _fork(self) -> None:
        ours, theirs = Pipe()
        name = f"process-{self._count}"
        self._count += 1
        # A process that is interrupted before `work` would take itself for the one that forked it.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        pid = os.fork()
        if pid == 0:
            for connection in (ours, *self._processes):
                connection.close()
            work(self._session, theirs, name)
        theirs.close()
        self._processes[ours] = Process(name, pid, ours)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)

    def _receive(self, process: Process) -> None:
        """Handle a message of a process: a request for a unit, or the reports of a test."""
        try:
            message = process.connection.recv()
        except (EOFError, ConnectionResetError):
            self._reap(process)
            return
        if message is None:
            unit = self._units.popleft() if self._units else []
            process.unfinished.extend(unit)
            with suppress(OSError):  # it has ended, as `recv` will report
                process.connection.send(unit)
            return
        process.unfinished.popleft()
        hook = self._session.config.hook
        deserialize = hook.pytest_report_from_serializable
        for sent in message:
            passed = isinstance(sent, pytest.TestReport)
            report = sent if passed else deserialize(config=self._session.config, data=sent)
            hook.pytest_runtest_logreport(report=report)
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)
        if self._session.shouldstop:
            raise self._session.Interrupted(self._session.shouldstop)

    def _reap(self, process: Process) -> None:
        """Report the test that a process ended in, and let another process run its other tests."""
        del self._processes[process.connection]
        process.connection.close()
        _, status = os.waitpid(process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if not process.unfinished:
            assert code == 0, f"{process.name} ended with {code} when its tests had ended"
            return
        item = self._session.items[process.unfinished.popleft()]
        message = f"{process.name} ended with {code} while it ran this test"
        report = pytest.TestReport(item.nodeid, item.location, {}, "failed", message, "call")
        item.config.hook.pytest_runtest_logreport(report=report)
        if process.unfinished:
            self._units.appendleft(list(process.unfinished))
        self._fork()


def work(session: pytest.Session, connection: Connection, name: str) -> NoReturn:
    """Run units of tests in this forked process until there are no more, and end it."""
    status = 1
    try:
        _become(session.config, name)
        session.config.pluginmanager.register(Reports(session.config, connection))
        with suppress(KeyboardInterrupt, BrokenPipeError, ConnectionResetError, EOFError):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            _run_units(session, connection)
            status = 0
        _ignore_signals()
        tear_down_everything(session)
        _save_coverage()
    except BaseException:  # noqa: BLE001 - it must not return into the code that forked it
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def _interrupt(*_: object) -> NoReturn:
    """Interrupt the test. A second signal does not interrupt what then ends the servers."""
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _become(config: pytest.Config, name: str) -> None:
    """Give this process an output, a folder, a name and handlers of signals of its own."""
    os.environ[NAME] = name
    for number in ENDING:
        signal.signal(number, _interrupt)
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    reporter = config.pluginmanager.getplugin("terminalreporter")
    terminal = Terminal(config)
    config.pluginmanager.unregister(reporter)
    config.pluginmanager.register(terminal, "terminalreporter")
    folders = config._tmp_path_factory  # type: ignore[attr-defined]  # noqa: SLF001
    folders._basetemp = folders.getbasetemp() / name  # noqa: SLF001
    folders.getbasetemp().mkdir(mode=0o700)


class Reports:
    """A plugin that sends the reports of each test to the process that forked this one."""

    def __init__(self, config: pytest.Config, connection: Connection) -> None:
        self._config = config
        self._connection = connection
        self._reports: list[object] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        serialize = self._config.hook.pytest_report_to_serializable
        # A report of a test that passed can be pickled as it is, which takes less time.
        self._reports.append(
            report if report.passed else serialize(config=self._config, report=report)
        )

    def pytest_runtest_logfinish(self) -> None:
        self._connection.send(self._reports)
        self._reports.clear()


def _run_units(session: pytest.Session, connection: Connection) -> None:
    """Run units until there are no more.

    The next unit is requested before the last test of a unit runs: pytest has to know the next test
    to decide which fixtures end with a test.
    """
    following = _request(connection)
    while following:
        item, *following = following
        following = following or _request(connection)
        after = session.items[following[0]] if following else None
        running = session.items[item]
        running.config.hook.pytest_runtest_protocol(item=running, nextitem=after)


def _request(connection: Connection) -> Unit:
    connection.send(None)
    unit: Unit = connection.recv()
    return unit


def _save_coverage() -> None:
    """Store what coverage.py measured in this process, if it measures."""
    if coverage := sys.modules.get("coverage"):
        measured = coverage.Coverage.current()
        if measured:
            measured.stop()
            measured.save()
