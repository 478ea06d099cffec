"""One sentence explains why a process cannot listen at an address."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.processes import listening
from tests.support.ports import free_port


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose name is short enough for a Unix socket."""
    folder = tmp_path_factory.mktemp("u")
    here = Path.cwd()
    os.chdir(folder)
    yield Path()
    os.chdir(here)


@pytest.mark.parametrize(
    ("family", "host", "shown"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1:{}"),
        (socket.AF_INET, "localhost", "localhost:{}"),
        (socket.AF_INET, "0.0.0.0", "0.0.0.0:{}"),  # noqa: S104 - only occupied
        (socket.AF_INET6, "::1", "[::1]:{}"),
    ],
)
def test_a_port_in_use_is_reported_in_one_sentence(
    family: socket.AddressFamily, host: str, shown: str
) -> None:
    port = free_port()
    assert listening.problem_with((host, port)) is None
    with socket.create_server((host, port), family=family):
        problem = listening.problem_with((host, port))
    assert problem is not None
    where = shown.format(port)
    assert problem.startswith(f"cannot listen at {where}: another process uses it; stop that")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (("192.0.2.1", 80), "this machine does not have this address"),
        (("2001:db8::1", 80), ""),  # or this machine has no IPv6
        (("host.invalid", 80), ""),
        (("127.0.0.1", 65_536), "port must be 0-65535"),
        (("a" * 70 + ".example", 80), ""),
        ("/no/such/folder/web.sock", "its directory does not exist"),
        ("/dev/null", "a file that is not a socket has this name"),
        ("/dev/null/web.sock", "Not a directory"),
        ("x" * 200, "AF_UNIX path too long"),
    ],
)
def test_every_problem_with_an_address_is_reported_in_one_sentence(
    address: listening.Address, reason: str
) -> None:
    problem = listening.problem_with(address)
    if address == "x" * 200:
        assert problem is None or reason in problem  # gunicorn reports it
        return
    assert problem is not None
    assert problem.startswith("cannot listen at ")
    assert reason in problem
    assert problem.endswith("(set the address with --bind or PORT)")


def test_a_privileged_port_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(listening, "_bind", refuse)
    problem = listening.problem_with(("127.0.0.1", 80))
    assert problem is not None
    assert "this user may not listen there; ports below 1024 need a privilege" in problem


def test_a_unix_socket_in_use_is_not_replaced(folder: Path) -> None:
    path = str(folder / "web.sock")
    assert listening.problem_with(path) is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        problem = listening.problem_with(path)
        assert problem is not None
        assert f"cannot listen at unix:{path}: another process uses it" in problem
    assert listening.problem_with(path) is None  # left over from a process that no longer exists


def test_an_inherited_descriptor_is_accepted() -> None:
    assert listening.problem_with(3) is None
