"""Each line of the Procfile does its job on a host that installs requirements.txt alone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from clean_venv import clean_venv
from installation import ROOT, free_port
from receiver.stores import open_store
from samples import SECRET

LINES = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())


class Host:
    """Runs a line as hosts do: by a shell, in the checkout, with PORT set; stops it by its pid."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.database = f"sqlite:///{folder / 'receiver.db'}"
        self._log = folder / "processes.log"
        self._running: list[subprocess.Popen[bytes]] = []
        self._environment = {
            "PATH": f"{clean_venv(folder / 'venv')}:/usr/bin:/bin",
            "HOME": str(folder),
            "PORT": str(self.port),
            "DATABASE_URL": self.database,
            "CALLBACK_SECRETS": SECRET,
        }

    def start(self, line: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {line}"],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        self._running.append(process)
        return process

    def run(self, line: str) -> str:
        """What a line prints, that ends by itself."""
        command = ["/bin/sh", "-c", f"exec {line}"]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def log(self) -> str:
        return self._log.read_text()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 40
        while not condition():
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait(10)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


@pytest.fixture
def migrated(host: Host) -> Host:
    assert host.start(LINES["release"]).wait(60) == 0, host.log()
    return host


def test_it_names_what_hosts_look_for() -> None:
    assert LINES.keys() == {"release", "web", "worker", "poller"}
    assert all(line.startswith("python -m ") for line in LINES.values())


def test_the_project_itself_is_not_installed_there(tmp_path: Path) -> None:
    python = clean_venv(tmp_path / "venv") / "python"
    command = [str(python), "-c", "import receiver"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert b"No module named 'receiver'" in done.stderr


def test_release_migrates(migrated: Host) -> None:
    store = open_store(migrated.database)
    store.check_schema()
    store.close()


def test_web_is_ready_on_the_port(migrated: Host) -> None:
    web = migrated.start(LINES["web"])

    def is_ready() -> bool:
        with suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{migrated.port}/readyz", timeout=20).ok
        return False

    migrated.wait_until(is_ready)
    web.terminate()
    assert web.wait(40) == 0, migrated.log()


@pytest.mark.parametrize("name", ["worker", "poller"])
def test_it_is_seen_at_work_and_ends_at_sigterm(migrated: Host, name: str) -> None:
    process = migrated.start(LINES[name])
    store = open_store(migrated.database)
    try:
        migrated.wait_until(lambda: store.seen(name) is not None)
    finally:
        store.close()
    process.terminate()
    assert process.wait(40) == 0, migrated.log()


def test_gunicorn_by_itself_has_the_same_settings(migrated: Host) -> None:
    """`gunicorn wsgi:app`, as many hosts start what has no Procfile, reads gunicorn.conf.py."""

    def settings(line: str) -> list[str]:
        shown = migrated.run(line.replace("wsgi:app", "--print-config wsgi:app"))
        return [setting for setting in shown.splitlines() if not setting.startswith("config ")]

    found = settings("python -m gunicorn wsgi:app")
    assert found == settings(LINES["web"])
    assert any("receiver.web.worker.Worker" in setting for setting in found)
