"""A command that only reads, or runs in the wrong directory, creates no file or directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from receiver.cli import main as receiver
from receiver.errors import SchemaMismatch
from receiver.web import create_app
from submitter.cli import main as submitter
from tests.support.ports import free_port

WRITES = {"init", "migrate"}  # they create the settings, the database and the secret
# Arguments with which a command reaches the record; `tail` and `worker` would not end.
ARGUMENTS = {
    "init": "",
    "migrate": "",
    "serve": "",
    "worker": "",
    "tasks": "",
    "tasks show": "a-task",
    "callbacks": "",
    "deliveries": "",
    "rejections": "",
    "url": "--provider kling",
    "tail": "",
    "hooks list": "",
    "hooks explain": "a-task",
    "hooks render": "mail",
    "hooks test": "mail",
    "hooks secret": "",
    "endpoints": "",
    "endpoints drop": "mail",
    "endpoints pause": "mail",
    "endpoints resume": "mail",
    "redeliver": "1",
    "replay": "1",
    "prune": "--older-than 30d",
    "forget": "--task a-task --yes",
    "doctor": "",
    "copy": "--from sqlite:///data/receiver.db --to sqlite:///copy/receiver.db",
    "completion": "bash",
}
ARGUMENTS_OF_SUBMITTER = {
    "batch": "orders.csv",
    "reconcile": "",
    "costs": "",
    "doctor": "",
    "completion": "bash",
    "submit": "--provider kling --human person.png --cloth shirt.png",
    "status": "a-task",
    "list": "",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, without settings that name a database."""
    for name in ("CALLBACK_SECRETS", "DATABASE_URL", "HOOKS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PUBLIC_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("KLING_BASE_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("KLING_API_KEY", "a-key-that-nobody-asks-for")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names_of(command: click.Command, before: str = "") -> Iterator[str]:
    """Return the name of each command that can be run."""
    if not isinstance(command, click.Group):
        yield before
        return
    if command.invoke_without_command:
        yield before
    for name, below in command.commands.items():
        yield from names_of(below, f"{before} {name}".strip())


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_every_command_is_tested() -> None:
    assert set(names_of(receiver)) == set(ARGUMENTS)
    assert set(names_of(submitter)) - {""} == set(ARGUMENTS_OF_SUBMITTER)


@pytest.mark.parametrize("name", sorted(set(ARGUMENTS) - WRITES))
def test_a_command_in_the_wrong_directory_creates_nothing(folder: Path, name: str) -> None:
    CliRunner().invoke(receiver, [*name.split(), *ARGUMENTS[name].split()])
    assert contents(folder) == []
    CliRunner().invoke(receiver, [*name.split(), "--help"])
    assert contents(folder) == []


@pytest.mark.parametrize("name", sorted(ARGUMENTS_OF_SUBMITTER))
def test_a_command_of_the_submitter_creates_nothing(folder: Path, name: str) -> None:
    CliRunner().invoke(submitter, [*name.split(), *ARGUMENTS_OF_SUBMITTER[name].split()])
    assert contents(folder) == []


@pytest.mark.parametrize("name", ["tasks", "callbacks", "deliveries", "url", "forget", "endpoints"])
def test_the_error_says_what_to_run(name: str) -> None:
    done = CliRunner().invoke(receiver, [name, *ARGUMENTS[name].split()])
    assert done.exit_code == 1
    assert "data/receiver.db does not exist yet; run: receiver migrate" in done.output


def test_the_web_process_creates_nothing(folder: Path) -> None:
    with pytest.raises(SchemaMismatch, match="does not exist yet"):
        create_app()
    assert contents(folder) == []


def test_only_commands_that_need_the_secret_create_it(folder: Path) -> None:
    assert CliRunner().invoke(receiver, ["migrate"]).exit_code == 0
    secret = folder / "data" / "callback-secret"
    secret.unlink()
    (folder / "hooks.toml").write_text(
        '[[hook]]\nname = "mail"\ntype = "command"\ncommand = ["true"]\n'
    )
    writes = {"migrate", "copy", "url", "serve", "worker", "tail"}
    for name in sorted(set(ARGUMENTS) - writes):
        CliRunner().invoke(receiver, [*name.split(), *ARGUMENTS[name].split()])
    assert not secret.exists()
    done = CliRunner().invoke(receiver, ["url", "--provider", "kling"])
    assert done.exit_code == 0, done.output
    assert secret.exists()


def test_doctor_says_that_there_is_no_secret_yet(folder: Path) -> None:
    CliRunner().invoke(receiver, ["migrate"])
    (folder / "data" / "callback-secret").unlink()
    done = CliRunner().invoke(receiver, ["doctor"])
    assert "no callback secret yet" in done.output
    assert "receiver migrate" in done.output
