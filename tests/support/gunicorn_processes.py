"""Starts the web process under gunicorn, observes its workers, and sends callbacks to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import requests

from receiver.signing.callback_urls import mint
from tests.support.installation import Installation
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body

# States in /proc/net/tcp, https://www.kernel.org/doc/Documentation/networking/proc_net_tcp.txt
ESTABLISHED, IS_GONE, LISTENS = "01", "06", "0A"


def database(installation: Installation) -> Path:
    return installation.folder / "receiver.db"


def launch(installation: Installation, app: str = "wsgi:app", *before: str) -> list[int]:
    """Start the web process, wait until it responds, and return its worker processes.

    It has no time limit for stopping, because a test decides when the running requests end.
    """
    command = ["gunicorn", "--config", "python:receiver.web.gunicorn", "--pythonpath", "."]
    command += ["--graceful-timeout", "1000000"]
    bind = f"127.0.0.1:{installation.port}"
    installation.start("web", *before, *command, "--bind", bind, app)

    def answers() -> bool:
        with suppress(requests.ConnectionError):
            requests.get(f"{installation.url}/healthz", timeout=PATIENCE)
            return len(workers(installation)) == 2
        return False

    installation.wait_until(answers)
    return workers(installation)


def launch_all(installation: Installation, app: str = "wsgi:app") -> list[int]:
    """Do the same, and wait until each of the workers serves."""
    found = launch(installation, app)
    file = database(installation)
    if file.exists():  # otherwise the record is in PostgreSQL
        installation.wait_until(lambda: all(_has_open(file, pid) for pid in found))
    return found


def workers(installation: Installation) -> list[int]:
    master = installation.running["web"].pid
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def idle_sockets(installation: Installation) -> int:
    """Return the number of open sockets once every client that got its response has left."""
    installation.wait_until(lambda: not _has_visitors(installation.port))
    return sockets(workers(installation))


def accept_connections(processes: list[int], port: int) -> bool:
    """Return whether any of these processes accepts new connections at the port.

    A worker process that drains keeps its listening socket open, but no longer polls it.
    """
    listening = {f"socket:[{found.inode}]" for found in _sockets_at(port) if found.state == LISTENS}
    return any(listening & set(_polled(pid)) for pid in processes)


def waits_for_lock(database: Path) -> bool:
    """Return whether a process waits for the file lock of this database."""
    inode = str(Path(f"{database}-lock").stat().st_ino)
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any("->" in row and row[6].rpartition(":")[2] == inode for row in rows)


def sockets(processes: list[int]) -> int:
    """Return the number of open sockets: one for each running request, and some internal ones."""
    return sum(link.startswith("socket:") for pid in processes for link in _links(pid))


def raw(task: str) -> bytes:
    """Return the body of a callback of this task."""
    return body(task_id=f"at-kling-{task}")


def path(task: str) -> str:
    return f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"


def send(
    installation: Installation, task: str, content_type: str = "application/json"
) -> requests.Response:
    headers = {"Content-Type": content_type}
    url = installation.url + path(task)
    return requests.post(url, data=raw(task), headers=headers, timeout=PATIENCE)


def has_unread_bytes(port: int) -> bool:
    """Return whether the kernel holds a connection, or bytes, that the server has not yet read.

    For a listening socket, the kernel counts the connections that were not accepted yet.
    """
    open_ = (ESTABLISHED, LISTENS)
    return any(found.unread for found in _sockets_at(port) if found.state in open_)


def _has_visitors(port: int) -> bool:
    """Return whether the server at this port has an open connection."""
    return bool({found.state for found in _sockets_at(port)} - {LISTENS, IS_GONE})


@dataclass(frozen=True)
class _Socket:
    state: str
    unread: int  # bytes, or connections, that the process has not read or accepted yet
    inode: str


def _sockets_at(port: int) -> Iterator[_Socket]:
    """Return the sockets of this local port."""
    end = f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        if end in line:  # there may be thousands of lines
            _, local, _, state, queues, _, _, _, _, inode, *_ = line.split()
            if local.endswith(end):
                yield _Socket(state, int(queues.rpartition(":")[2], 16), inode)


def _descriptors(pid: int) -> list[Path]:
    """Return the file descriptors of the process; none if it has ended."""
    try:
        return list(Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def _polled(pid: int) -> Iterator[str]:
    """Return the files that the process waits for with epoll."""
    for entry in _descriptors(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # closed meanwhile
            if str(entry.readlink()) == "anon_inode:[eventpoll]":
                info = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
                for number in re.findall(r"^tfd:\s+(\d+)", info, re.MULTILINE):
                    yield str(Path(f"/proc/{pid}/fd/{number}").readlink())


def _has_open(file: Path, pid: int) -> bool:
    return str(file) in _links(pid)


def _links(pid: int) -> Iterator[str]:
    """Return the targets of the open files of the process."""
    for entry in _descriptors(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # closed meanwhile
            yield str(entry.readlink())
