"""Packages from other people's indexes, unpacked into a cache, unmodified.

They are clients of the providers' APIs, and what an example in the documentation needs.

`python -m tests.support.vendor_clients` fetches them. A test whose client cannot be had is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.fetch_cache import (
    CACHE,
    WITHIN,
    UnavailableError,
    locked,
    raise_if_failed,
    remember_failure,
)

VENDORS = CACHE / "vendors"


@dataclass(frozen=True)
class Client:
    """A release of a package, from the index that `installer` uses."""

    name: str
    version: str
    installer: str  # `npm` or `pip`

    @property
    def folder(self) -> Path:
        return VENDORS / f"{self.name}-{self.version}"

    def command(self, target: Path) -> list[str]:
        """Return the command that installs the release into a folder; no script of it runs."""
        if self.installer == "npm":
            options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(target))
            return ["npm", "install", *options, f"{self.name}@{self.version}"]
        # Without its dependencies: the modules under test need only packages that we have, too.
        options = ("--no-deps", "--only-binary=:all:", "--no-compile", "--target", str(target))
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        return [*pip, *options, f"{self.name}=={self.version}"]


CLIENTS = {
    "amqplib": Client("amqplib", "2.3.1", "npm"),
    "express": Client("express", "5.1.0", "npm"),
    "opentryon": Client("opentryon", "0.0.8", "pip"),
    "kling-api": Client("kling-api", "1.0.0", "npm"),
    "redis": Client("redis", "6.3.1", "npm"),
    "modellix-cli 0.0.5": Client("modellix-cli", "0.0.5", "npm"),
    "modellix-cli 0.0.7": Client("modellix-cli", "0.0.7", "npm"),
}


def find(name: str, within: float = WITHIN) -> Path:
    """Return the folder of a client. Raises UnavailableError."""
    client = CLIENTS[name]
    if client.installer == "npm" and not (shutil.which("npm") and shutil.which("node")):
        raise UnavailableError("there is no npm and node")
    if not client.folder.is_dir():
        raise_if_failed(VENDORS, client.folder.name)
        with locked(VENDORS, time.monotonic() + within):
            if not client.folder.is_dir():
                raise_if_failed(VENDORS, client.folder.name)
                _install(client, within)
    return client.folder


def find_or_skip(name: str) -> Path:
    """Return the folder of a client; skip the test if it cannot be had."""
    try:
        return find(name)
    except UnavailableError as error:
        pytest.skip(f"no {name}: {error}")


def _install(client: Client, within: float) -> None:
    with tempfile.TemporaryDirectory(dir=VENDORS, prefix=".new-") as name:
        new = Path(name) / "root"
        new.mkdir()
        try:
            done = subprocess.run(
                client.command(new),
                cwd=name,
                env=os.environ | {"NO_UPDATE_NOTIFIER": "1", "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=within,
                check=False,
            )
            problem = _problem(done)
        except subprocess.TimeoutExpired:
            problem = f"{client.installer} took too long"
        if problem:
            remember_failure(VENDORS, client.folder.name, problem)
            raise UnavailableError(problem)
        new.rename(client.folder)


def _problem(done: subprocess.CompletedProcess[str]) -> str:
    """Return why the installation failed, without the URL of an index; empty if it succeeded."""
    if done.returncode == 0:
        return ""
    if "E404" in done.stderr or "No matching distribution" in done.stderr:
        return "the package index does not have it"
    return "the package index cannot be reached"


def main() -> int:
    """Fetch the clients, and print which tests will be skipped. The exit status is always 0."""
    for name in CLIENTS:
        try:
            find(name)
        except UnavailableError as error:
            print(f"No {name}, so the tests that need it are skipped: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
