"""A process waits for a PostgreSQL server that is down, but ends if the server refuses it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from receiver.stores import open_store
from sandbox.server import Sandbox
from tests.support.gunicorn_processes import send
from tests.support.installation import Installation
from tests.support.postgres_server import Server, started

WAITING = "waiting for the database"


@pytest.fixture
def server() -> Iterator[Server]:
    with started() as server:
        yield server


@pytest.fixture
def installation(tmp_path: Path, sandbox: Sandbox, server: Server) -> Iterator[Installation]:
    installation = Installation(tmp_path, sandbox, server.url)
    (tmp_path / "hooks.toml").write_text("")
    installation.migrate()
    installation.store.close()
    yield installation
    installation.close()


def waits(installation: Installation, name: str, times: int) -> bool:
    return log_of(installation, name).count(WAITING) >= times


def log_of(installation: Installation, name: str) -> str:
    return (installation.folder / f"{name}.log").read_text()


def test_each_process_waits_for_the_server_and_a_command_does_not(
    installation: Installation, server: Server
) -> None:
    server.stop()
    installation.start_web()
    installation.start("worker", "receiver", "worker")
    installation.start("poller", "submitter", "reconcile", "--forever")
    installation.start("serve", "receiver", "serve", "--bind", "127.0.0.1:0")
    installation.start("migrate", "receiver", "migrate", "--wait")
    names = list(installation.running)
    with pytest.raises(ConnectionRefusedError), socket.socket() as connection:
        connection.connect(("127.0.0.1", installation.port))  # nothing listens yet
    for command in (("receiver", "migrate"), ("submitter", "reconcile")):
        done = installation.run(*command)
        assert done.returncode != 0
        assert "the database is unavailable" in done.stderr
        assert "Traceback" not in done.stderr
    installation.wait_until(lambda: all(waits(installation, name, 2) for name in names))
    for process in installation.running.values():
        if process is not installation.running["migrate"]:
            process.send_signal(signal.SIGHUP)  # from now on, the server can listen
    waited = [(name, len(log_of(installation, name))) for name in names]
    installation.wait_until(lambda: all(len(log_of(installation, n)) > size for n, size in waited))
    assert installation.stop("serve") != 0  # a signal ends a waiting process

    server.start()
    assert installation.status_at_the_end("migrate") == 0
    installation.wait_until_ready()
    assert send(installation, "task-1").status_code == 200
    with closing(open_store(server.url)) as store:
        installation.wait_until(
            lambda: store.activity.last_seen("worker") and store.activity.last_seen("poller")
        )
    assert all(child.poll() is None for child in installation.running.values())


def test_a_refusal_is_reported_and_ends_each_process(
    installation: Installation, server: Server
) -> None:
    """A role or database does not exist, and waiting cannot change that."""
    for wrong in (server.url.replace("tests@", "nobody-here@"), f"{server.url}_missing"):
        installation.environment["DATABASE_URL"] = wrong
        installation.start_web()
        installation.start("worker", "receiver", "worker")
        installation.start("poller", "submitter", "reconcile", "--forever")
        for name in list(installation.running):
            assert installation.status_at_the_end(name) != 0
            log = (installation.folder / f"{name}.log").read_text()
            assert "the database refuses the connection" in log
            assert "does not exist; check DATABASE_URL" in log
            assert WAITING not in log
            assert "Traceback" not in log
