"""The web process with the default worker, and with gunicorn's own worker, side by side."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests

from sandbox.server import Sandbox
from tests.support.installation import Installation
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

UNHURRIED = "tests.support.apps.unhurried:app"


@dataclass(frozen=True)
class Front:
    """One of the two web processes, with its own prefix for task ids and its own client network."""

    name: str
    port: int
    prefix: str
    network: int

    @contextmanager
    def connected(self, number: int) -> Iterator[tuple[socket.socket, BinaryIO]]:
        """Connect from an address that only this connection uses, so that none is rate limited."""
        source = (self.address(number), 0)
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE, source) as connection,
            connection.makefile("rb") as file,
        ):
            yield connection, file

    def address(self, number: int) -> str:
        return f"127.{self.network}.{number // 250}.{number % 250 + 1}"


def fronts_of(installation: Installation) -> tuple[Front, Front]:
    """The default worker and the gthread worker on one database, with one process each."""
    found = (Front("web", installation.port, "a", 1), Front("gthread", free_port(), "b", 2))
    options = ("--workers", "1", "--keep-alive", "1000000")
    installation.start_web(UNHURRIED, *options)
    _, plain = found
    installation.start_web_at(
        plain.name, plain.port, UNHURRIED, *options, "--worker-class", "gthread"
    )
    for front in found:
        installation.wait_until(lambda port=front.port: _answers(port))  # type: ignore[misc]
    return found


@contextmanager
def shared_fronts(
    folder: Path, environment: Mapping[str, str], database_url: str | None = None
) -> Iterator[tuple[Installation, tuple[Front, Front]]]:
    """The two web processes, and the installation they belong to, for all tests of a module."""
    with Sandbox() as sandbox:
        made = Installation(folder, sandbox, database_url)
        try:
            made.migrate()
            made.environment |= environment
            yield made, fronts_of(made)
        finally:
            made.close()


def _answers(port: int) -> bool:
    with suppress(requests.ConnectionError):
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE).ok
    return False
