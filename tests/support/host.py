"""A host that installs requirements.txt but not this project, and runs commands in the checkout."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import requests

from tests.support.clean_venv import ROOT, clean_venv
from tests.support.env_files import NO_ENV_FILE
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port
from tests.support.samples import SECRET


class Host:
    """Runs shell commands in the checkout with PORT set, and ends running ones by process id."""

    def __init__(self, folder: Path, checkout: Path = ROOT) -> None:
        self.port = free_port()
        self._checkout = checkout
        self.database = f"sqlite:///{folder / 'receiver.db'}"
        self._log = folder / "processes.log"
        self._running: list[subprocess.Popen[bytes]] = []
        self._environment = {
            "PATH": f"{clean_venv(folder / 'venv')}:/usr/bin:/bin",
            "HOME": str(folder),
            "PORT": str(self.port),
            **NO_ENV_FILE,
            "DATABASE_URL": self.database,
            "CALLBACK_SECRETS": SECRET,
        }

    def start(self, line: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {line}"],
                cwd=self._checkout,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        self._running.append(process)
        return process

    def run(self, line: str) -> str:
        """Return the output of a command that ends with status 0."""
        done = subprocess.run(
            ["/bin/sh", "-c", f"exec {line}"],
            cwd=self._checkout,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self) -> str:
        return self._log.read_text()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, self.log)

    def is_ready(self) -> bool:
        with suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=PATIENCE).ok
        return False

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait(PATIENCE)
