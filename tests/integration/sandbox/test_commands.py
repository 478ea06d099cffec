"""The commands start, print their address, and stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner, Result

from receiver import __version__ as receiver_version
from sandbox.cli import main
from sandbox.server import Sandbox
from tests.support import processes
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port

ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, arguments, prog_name="sandbox")
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


@dataclass(frozen=True)
class Served:
    """A running `sandbox serve`, and the file with its output."""

    process: subprocess.Popen[bytes] | processes.ForkedProcess
    log: Path

    def address(self) -> str:
        """Return the URL that it prints."""
        wait_until(lambda: self.log.read_text().endswith("\n"), self.log.read_text)
        found = re.search(r"http://127\.0\.0\.1:\d+/", self.log.read_text())
        assert found, self.log.read_text()
        return found[0]


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Served]:
    log = folder / "log"
    with log.open("wb") as output:
        process = processes.start(["sandbox", "serve", *arguments], ENVIRONMENT, output)
    try:
        yield Served(process, log)
    finally:
        process.kill()
        process.wait(PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_its_address_and_exits_with_0(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path, "--port", "0", "--smtp-port", "0") as served:
        assert requests.get(served.address(), timeout=PATIENCE).ok
        printed = served.log.read_text()
        served.process.send_signal(number)
        assert served.process.wait(PATIENCE) == 0
    assert served.log.read_text() == printed
    assert printed.count("\n") == 1


def test_a_port_in_use_is_a_one_line_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port), "--smtp-port", "0")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert str(port) in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--port", "x"),
        ("serve", "--pace", "-1"),
        ("serve", "--webhook-secret", "whsec_no Base64"),
        ("env", "--url", "here"),
        ("nope",),
    ],
)
def test_a_usage_error_exits_with_2_and_no_traceback(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [(), ("serve",), ("env",), ("demo",)])
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    assert run(*command, "--help").stdout.startswith("Usage: sandbox")


def test_env_queries_the_running_sandbox() -> None:
    with Sandbox(pace=60) as sandbox:
        printed = run("env", "--url", sandbox.url + "/").stdout
        expected = [f"{name}={value}" for name, value in sandbox.env().items()]
    lines = printed.splitlines()
    assert lines[:-1] == expected
    assert lines[-1].startswith("# ")
    assert "KLING_API_KEY=" in lines[-1]


def test_env_includes_the_webhook_secret_of_a_signing_sandbox(tmp_path: Path) -> None:
    secret = ("--webhook-secret", "whsec_dGhlIGtleSBvZiB0aGUgc2FuZGJveC4u")
    options = ("--port", "0", "--smtp-port", "0", *secret, "--no-callbacks")
    with serving(tmp_path, *options) as served:
        done = processes.run(["sandbox", "env", "--url", served.address()], ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "KLING_WEBHOOK_SECRETS=whsec_dGhlIGtleSBvZiB0aGUgc2FuZGJveC4u\n" in done.stdout


def test_env_without_a_sandbox_prints_the_defaults() -> None:
    port = free_port()
    printed = run("env", "--port", str(port)).stdout
    assert f"KLING_BASE_URL=http://127.0.0.1:{port}\n" in printed
    assert "SANDBOX_SMTP_PORT=8925\n" in printed
    names = [line.partition("=")[0] for line in printed.splitlines()[:-1]]
    assert [name for name in names if not name.startswith("SANDBOX_")] == [
        "KLING_BASE_URL",
        "KLING_ACCESS_KEY",
        "KLING_SECRET_KEY",
        "MODELLIX_BASE_URL",
        "MODELLIX_API_KEY",
        "APPYPIE_BASE_URL",
        "APPYPIE_SUBSCRIPTION_KEY",
    ]


def test_a_mail_port_in_use_releases_the_other_port() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Sandbox(port=port, smtp_port=taken.getsockname()[1])
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_the_version_is_that_of_the_receiver() -> None:
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, f"sandbox, version {receiver_version}\n")
