"""docs/cli.md lists every command with all of its options, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from receiver.cli import main as receiver
from sandbox.cli import main as sandbox
from submitter.cli import main as submitter

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "cli.md").read_text()
ROW = r"^\| `((?:receiver|submitter|sandbox) [a-z ]+)` \|([^|]*)\|"
ROWS = dict(re.findall(ROW, DOCS, re.MULTILINE))
PROGRAMS: dict[str, click.Group] = {
    "receiver": receiver,
    "submitter": submitter,
    "sandbox": sandbox,
}


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Return every command that can be run, with its full name."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield name, command
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            yield from commands(f"{name} {word}", below)


FOUND = {
    name: command
    for program, group in PROGRAMS.items()
    for word, below in group.commands.items()
    for name, command in commands(f"{program} {word}", below)
}


def test_every_command_has_a_row_and_every_row_a_command() -> None:
    assert ROWS.keys() == FOUND.keys()
    assert len(FOUND) > 25


@pytest.mark.parametrize("name", sorted(FOUND))
def test_a_row_names_every_option(name: str) -> None:
    options = {
        option
        for param in FOUND[name].params
        if isinstance(param, click.Option)
        for option in param.opts
        if option.startswith("--")
    }
    assert set(re.findall(r"`(--[a-z-]+)`", ROWS[name])) == options


@pytest.mark.parametrize("name", sorted(FOUND))
def test_a_command_has_a_help_text(name: str) -> None:
    assert FOUND[name].help


def test_commands_in_readme_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    commands_in_readme = re.findall(r"`(receiver|submitter|sandbox) ([a-z]+)([^`]*)`", readme)
    assert len(commands_in_readme) > 15
    for program, word, rest in commands_in_readme:
        found = PROGRAMS[program].commands[word]
        options = {option for param in found.params for option in param.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, (program, word, rest)


GROUPS = {
    **PROGRAMS,
    **{
        f"{program} {word}": below
        for program, group in PROGRAMS.items()
        for word, below in group.commands.items()
        if isinstance(below, click.Group)
    },
}


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_the_help_of_a_group_shows_whole_summaries(name: str) -> None:
    shown = CliRunner().invoke(GROUPS[name], ["--help"], prog_name=name).output
    assert "..." not in shown.partition("Commands:")[2]
    assert max(map(len, shown.splitlines())) <= 80
    for command in GROUPS[name].commands.values():
        summary = str(command.help).partition("\n\n")[0].split(". ")[0]
        assert " ".join(summary.split()).rstrip(".") in " ".join(shown.split())
