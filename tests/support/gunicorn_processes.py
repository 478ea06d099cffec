"""The web process as gunicorn runs it: its worker processes, and callbacks sent to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import requests

from receiver.signing import mint
from tests.support.installation import Installation
from tests.support.samples import SECRET, body

# States in /proc/net/tcp, https://www.kernel.org/doc/Documentation/networking/proc_net_tcp.txt
LISTENS, IS_GONE = "0A", "06"


def database(installation: Installation) -> Path:
    return installation.folder / "receiver.db"


def launch(installation: Installation, app: str = "wsgi:app", *before: str) -> list[int]:
    """Start the web process, and wait until it answers; its worker processes."""
    command = ("gunicorn", "--config", "python:receiver.web.gunicorn", "--pythonpath", ".")
    bind = f"127.0.0.1:{installation.port}"
    installation.start("web", *before, *command, "--bind", bind, app)

    def answers() -> bool:
        with suppress(requests.ConnectionError):
            requests.get(f"{installation.url}/healthz", timeout=20)
            return len(workers(installation)) == 2
        return False

    installation.wait_until(answers)
    return workers(installation)


def launch_all(installation: Installation, app: str = "wsgi:app") -> list[int]:
    """The same; and each of them serves."""
    found = launch(installation, app)
    file = database(installation)
    if file.exists():  # else the record is PostgreSQL
        installation.wait_until(lambda: all(_has_open(file, pid) for pid in found))
    return found


def workers(installation: Installation) -> list[int]:
    master = installation.running["web"].pid
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def idle_sockets(installation: Installation) -> int:
    """How many its processes have open once everybody who was answered has left."""
    installation.wait_until(lambda: not _has_visitors(installation.port))
    return sockets(workers(installation))


def sockets(processes: list[int]) -> int:
    """How many they have open: one for each request in flight, and some of their own."""
    return sum(link.startswith("socket:") for pid in processes for link in _links(pid))


def raw(task: str) -> bytes:
    """The body of this task's callback."""
    return body(task_id=f"at-kling-{task}")


def path(task: str) -> str:
    return f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"


def send(
    installation: Installation, task: str, content_type: str = "application/json"
) -> requests.Response:
    headers = {"Content-Type": content_type}
    return requests.post(installation.url + path(task), data=raw(task), headers=headers, timeout=40)


def _has_visitors(port: int) -> bool:
    """Is a connection to this port open, at the side that was connected to?"""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {state for _, local, _, state, *_ in rows if int(local.rpartition(":")[2], 16) == port}
    return bool(ours - {LISTENS, IS_GONE})


def _has_open(file: Path, pid: int) -> bool:
    return str(file) in _links(pid)


def _links(pid: int) -> Iterator[str]:
    """What the process has open."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield str(entry.readlink())
