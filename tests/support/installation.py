"""A complete installation as processes on loopback, each stopped by its own process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from receiver.deliveries import State
from receiver.stores import open_store
from sandbox.server import Sandbox
from tests.support import processes
from tests.support.env_files import NO_ENV_FILE
from tests.support.migrated_record import create_record
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port
from tests.support.samples import SECRET

ROOT = Path(__file__).parents[2]
SHORT_LEASES = "tests.support.apps.short_leases"  # runs a command with short leases and retries
HOOKS = """
[[hook]]
name = "pictures"
type = "download"
on = ["succeeded"]
to = "{folder}/pictures"
allow_private = true

[[hook]]
name = "mail"
type = "email"
host = "127.0.0.1"
port = {smtp_port}
starttls = "never"
from = "callbacks@shop.example"
to = ["orders@shop.example"]

[[hook]]
name = "slack"
type = "slack"
url = "{url}/_sandbox/slack/test"
allow_private = true
"""


both_stores = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)


class Installation:
    """A receiver and a submitter that use one sandbox."""

    def __init__(self, folder: Path, sandbox: Sandbox, database_url: str | None = None) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        database_url = database_url or f"sqlite:///{folder / 'receiver.db'}"
        self.store = open_store(database_url)
        self.running: dict[str, subprocess.Popen[bytes] | processes.ForkedProcess] = {}
        (folder / "hooks.toml").write_text(
            HOOKS.format(folder=folder, smtp_port=sandbox.smtp_port, url=sandbox.url)
        )
        self.environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME")},
            **NO_ENV_FILE,
            **sandbox.env(),
            "PUBLIC_URL": self.url,
            "DATABASE_URL": database_url,
            "CALLBACK_SECRETS": SECRET,
            "HOOKS_FILE": str(folder / "hooks.toml"),
            "PYTHONUNBUFFERED": "1",
        }

    def migrate(self) -> None:
        """Create the schema of the record, or copy a new record of SQLite."""
        path = self.environment["DATABASE_URL"].removeprefix("sqlite:///")
        if path == self.environment["DATABASE_URL"] or Path(path).exists():
            self.store.migrate()
        else:
            create_record(Path(path))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run one of our commands until it ends."""
        return processes.run(command, self.environment)

    def start(self, name: str, *command: str) -> None:
        """Start one of our programs in a process group of its own."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = processes.start(command, self.environment, log)

    def start_web(self, app: str = "wsgi:app", *more: str) -> None:
        self.start_web_at("web", self.port, app, *more)

    def start_web_at(self, name: str, port: int, app: str = "wsgi:app", *more: str) -> None:
        """Start a further web machine at this port."""
        bind = f"127.0.0.1:{port}"
        config = "python:receiver.web.gunicorn"
        self.start(name, "gunicorn", "--config", config, "--bind", bind, *more, app)

    def kill(self, name: str) -> None:
        """Kill the program and all its children with SIGKILL, as a power cut would."""
        child = self.running.pop(name)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(PATIENCE)
        # The children end a moment later. Until then, they listen at the port.
        wait_until(lambda: not _has_members(child.pid))

    def stop(self, name: str) -> int:
        self.running[name].terminate()
        return self.status_at_the_end(name)

    def status_at_the_end(self, name: str) -> int:
        """Wait until a program that was signalled to stop has ended; return its exit status."""
        child = self.running.pop(name)
        try:
            return child.wait(PATIENCE)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait(PATIENCE)

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            with suppress(ConnectionRefusedError, requests.ConnectionError):
                # Before the server listens, the connection is refused, which is fast.
                socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
                return requests.get(f"{self.url}/readyz", timeout=PATIENCE).ok
            return False

        self.wait_until(is_ready)

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait for the condition; if it does not become true, show the end of each log."""
        wait_until(condition, self.logs)

    def settled(self, task: str) -> None:
        """Wait until every delivery of the task has ended."""
        over = (State.DELIVERED, State.DEAD)

        def all_ended() -> bool:
            deliveries = self.store.lists.deliveries(task_id=task)
            return bool(deliveries) and all(found.state in over for found in deliveries)

        self.wait_until(all_ended)

    def logs_of(self, name: str) -> str:
        """Return everything that one of our programs has logged."""
        return (self.folder / f"{name}.log").read_text()

    def logs(self) -> str:
        texts = [path.read_text()[-4000:] for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(texts)

    def close(self) -> None:
        for child in self.running.values():  # signal all of them first, so that they end together
            child.terminate()
        for name in list(self.running):
            self.status_at_the_end(name)
        self.store.close()


def _has_members(group: int) -> bool:
    """Return whether a process of this process group runs."""
    for process in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            state, _, its_group = process.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False
