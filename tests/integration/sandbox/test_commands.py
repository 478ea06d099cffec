"""The commands start, print their address, and stop."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner, Result

from receiver import __version__ as receiver_version
from sandbox.cli import main
from sandbox.server import Sandbox
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

ROOT = Path(__file__).parents[3]


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, arguments, prog_name="sandbox")
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "sandbox", "serve", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert found, line
    return found[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_its_address_and_exits_with_0(number: signal.Signals) -> None:
    with serving("--port", "0", "--smtp-port", "0") as process:
        assert requests.get(address(process), timeout=PATIENCE).ok
        process.send_signal(number)
        rest, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest, errors) == (0, "", "")


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


def test_env_includes_the_webhook_secret_of_a_signing_sandbox() -> None:
    secret = ("--webhook-secret", "whsec_dGhlIGtleSBvZiB0aGUgc2FuZGJveC4u")
    with serving("--port", "0", "--smtp-port", "0", *secret, "--no-callbacks") as process:
        printed = subprocess.run(
            [sys.executable, "-m", "sandbox", "env", "--url", address(process)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout
    assert "KLING_WEBHOOK_SECRETS=whsec_dGhlIGtleSBvZiB0aGUgc2FuZGJveC4u\n" in printed


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
