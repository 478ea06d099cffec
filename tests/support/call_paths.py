"""Measures how many files and functions a callback and a webhook delivery run through.

The processes are the real ones (gunicorn with its default worker and with gthread, and the
receiver's worker), on a SQLite database. `call_recorder` records their calls.

The limits apply to the thread that does the work: the thread that serves the request, or makes the
attempt. What other threads do at the same time (commit the batch of writes, claim deliveries) is
measured as well, but has no limit. The HTTP server's own code is not counted: it is the same for
every request.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import requests

from tests.support.env_files import NO_ENV_FILE
from tests.support.hook_servers import Page, Site
from tests.support.migrated_record import create_record
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port
from tests.support.processes import start
from tests.support.samples import SECRET, body

ROOT = Path(__file__).parents[2]
JSON = "application/json"
WARM_UPS = 2  # callbacks that import modules, open connections and fill caches
MEASURED = 7  # callbacks whose calls are compared
WRITER = "writer"  # the thread that commits
ATTEMPTS = "delivery"  # the prefix of the names of the threads that make attempts
# Subclasses of uvicorn's classes and the code they call: the HTTP server, as in any framework.
HTTP_SERVER = (
    "web/server/protocol.py",
    "web/server/worker.py",
    "web/server/request_parser.py",
    "web/server/connection_slots.py",
)
ANNOUNCE = f"""
import sys
from contextlib import suppress
from receiver.cli import main
for number in range({2 * (WARM_UPS + MEASURED)}):
    with suppress(SystemExit):
        main(["url", "--provider", "kling", "--reference", f"ORDER-{{number}}"])
"""
HOOKS = """
[[hook]]
name = "shop"
type = "webhook"
url = "{url}/events"
secrets = ["{secret}"]
allow_private = true
"""


@dataclass(frozen=True)
class Function:
    """A function of `receiver/`: its file, relative to `receiver/`, and its qualified name."""

    file: str
    name: str


@dataclass(frozen=True)
class CallPath:
    """The functions that one kind of work runs through, and the limits for its thread."""

    name: str
    functions: frozenset[Function]
    of_all_threads: frozenset[Function]
    file_limit: int
    function_limit: int

    @property
    def files(self) -> frozenset[str]:
        return frozenset(function.file for function in self.functions)

    @property
    def problems(self) -> list[str]:
        """The limits that are exceeded."""
        found = []
        if len(self.files) > self.file_limit:
            found.append(f"{self.name}: {len(self.files)} files, limit {self.file_limit}")
        if len(self.functions) > self.function_limit:
            count = len(self.functions)
            found.append(f"{self.name}: {count} functions, limit {self.function_limit}")
        return found


@dataclass(frozen=True)
class Call:
    """One call of a function."""

    at: int  # nanoseconds
    function: Function
    thread: str


class Calls:
    """The calls that one process recorded."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._windows: list[tuple[int, int]] = []
        self._size = 0  # bytes of the file at the last `has_paused`

    @contextmanager
    def window(self) -> Iterator[None]:
        """Count the calls that are made inside the block."""
        begin = time.monotonic_ns()
        yield
        self._windows.append((begin, time.monotonic_ns()))

    def has_paused(self) -> bool:
        """Return whether no call was recorded since this was last called."""
        before, self._size = self._size, self._file.stat().st_size
        return self._size == before

    def usual(self, is_counted: Callable[[str], bool]) -> frozenset[Function]:
        """Return the functions called in most of the windows, so without any periodic work.

        `is_counted` returns whether a thread of this name counts.
        """
        calls = [call for call in self._calls() if is_counted(call.thread)]
        windows_of: Counter[Function] = Counter()
        for begin, end in self._windows[WARM_UPS:]:
            windows_of.update({call.function for call in calls if begin <= call.at <= end})
        return frozenset(
            function for function, windows in windows_of.items() if windows > MEASURED / 2
        )

    def _calls(self) -> Iterator[Call]:
        for line in self._file.read_text().splitlines():
            at, file, name, thread = line.split("\t")
            if file not in HTTP_SERVER:
                yield Call(int(at), Function(file, name), thread)


class Processes:
    """A receiver whose processes record their calls in a folder."""

    def __init__(self, folder: Path, hook_url: str) -> None:
        self._folder = folder
        hooks = folder / "hooks.toml"
        hooks.write_text(HOOKS.format(url=hook_url, secret="whsec_" + "c2hhcGU" * 8))
        self.port = free_port()
        self._environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME")},
            **NO_ENV_FILE,
            "CALLBACK_SECRETS": SECRET,
            "DATABASE_URL": f"sqlite:///{folder / 'receiver.db'}",
            "HOOKS_FILE": str(hooks),
            "PUBLIC_URL": f"http://127.0.0.1:{self.port}",
            "WEB_CONCURRENCY": "1",
        }
        create_record(folder / "receiver.db")
        self._urls = iter(self._announced())

    def callback_urls(self) -> list[str]:
        """Return the callback URLs of tasks that are on record, other ones at each call."""
        return list(islice(self._urls, WARM_UPS + MEASURED))

    def is_delivered(self, number: int) -> bool:
        with closing(sqlite3.connect(self._folder / "receiver.db")) as database:
            query = "select count(*) from deliveries where state = 'delivered'"
            return bool(database.execute(query).fetchone()[0] >= number)

    @contextmanager
    def recorded(self, name: str, *command: str) -> Iterator[Calls]:
        """Run one of the programs inside the block."""
        calls = self._folder / f"{name}.calls"
        calls.touch()
        with (self._folder / f"{name}.log").open("ab") as log:
            recorder = ("tests.support.call_recorder", str(calls))
            process = start([*recorder, *command], self._environment, log)
        try:
            yield Calls(calls)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition; if it does not become true, show the logs of the programs."""
        wait_until(condition, self._logs)

    def _announced(self) -> list[str]:
        """Put tasks on record and return their callback URLs."""
        done = subprocess.run(
            [sys.executable, "-c", ANNOUNCE],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def _logs(self) -> str:
        return "\n".join(log.read_text()[-4000:] for log in sorted(self._folder.glob("*.log")))


def measure(folder: Path) -> tuple[CallPath, ...]:
    """Run callbacks through both web workers, and deliver them. The folder is for their files."""
    with Site() as site:
        # Without a connection to reuse, each delivery has to open one.
        site.pages["/events"] = Page(status=204, headers={"Connection": "close"})
        processes = Processes(folder, site.url)
        flask = _send_callbacks(processes, "--worker-class", "gthread")
        with processes.recorded("worker", "receiver", "worker") as worker:
            delivered = WARM_UPS + MEASURED  # the callbacks that gthread accepted
            processes.wait_until(lambda: processes.is_delivered(delivered))
            default = _send_callbacks(processes, worker=worker, delivered=delivered)
    return (
        _callback_path("first callback, default front", default),
        _callback_path("first callback, Flask view", flask),
        CallPath(
            "one webhook delivery",
            worker.usual(lambda thread: thread.startswith(ATTEMPTS)),
            worker.usual(lambda _: True),
            file_limit=16,
            function_limit=85,
        ),
    )


def _callback_path(name: str, web: Calls) -> CallPath:
    return CallPath(
        name,
        web.usual(lambda thread: thread != WRITER),
        web.usual(lambda _: True),
        file_limit=16,
        function_limit=60,
    )


def _send_callbacks(
    processes: Processes, *options: str, worker: Calls | None = None, delivered: int = 0
) -> Calls:
    """Send the first callbacks of some tasks to a web process, and return its calls.

    With `worker`, wait for each delivery; `delivered` is the number of earlier ones.
    """
    address = f"127.0.0.1:{processes.port}"
    gunicorn = ("gunicorn", "--config", "python:receiver.web.gunicorn", "--bind", address)
    with processes.recorded(
        "gthread" if options else "web", *gunicorn, *options, "wsgi:app"
    ) as web:
        processes.wait_until(lambda: _is_ready(address))
        for number, url in enumerate(processes.callback_urls(), start=delivered + 1):
            with worker.window() if worker else nullcontext():
                with web.window():
                    raw, headers = body(task_id=f"provider-task-{number}"), {"Content-Type": JSON}
                    response = requests.post(url, raw, headers=headers, timeout=PATIENCE)
                    processes.wait_until(web.has_paused)
                assert response.json() == {"outcome": "recorded"}, response.text
                if worker:
                    processes.wait_until(partial(processes.is_delivered, number))
    return web


def _is_ready(address: str) -> bool:
    with suppress(requests.ConnectionError):
        return requests.get(f"http://{address}/readyz", timeout=PATIENCE).ok
    return False
