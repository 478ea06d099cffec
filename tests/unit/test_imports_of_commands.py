"""A short command imports only what it needs, since most of its time is spent on imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from receiver.cli import main as receiver
from receiver.console.imported_commands import Imported
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
PROGRAMS: dict[str, click.Group] = {"receiver": receiver}
# Each takes 20 to 200 ms to import.
SLOW = {
    "PIL",
    "asyncio",
    "email",
    "flask",
    "marshmallow",
    "requests",
    "rich",
    "sqlite3",
    "structlog",
}
MODULES = """
import sys
from {program}.cli import main
try:
    main(sys.argv[1:], prog_name="{program}")
finally:
    print("\\n" + " ".join(sys.modules))
"""
COMMANDS = [
    (program, command, entry)
    for program, group in PROGRAMS.items()
    for command, entry in group.commands.data.items()  # type: ignore[attr-defined]
    if isinstance(entry, Imported)
]


def modules_of(program: str, *arguments: str) -> set[str]:
    """The modules that the program has imported at its end."""
    command = [sys.executable, "-c", MODULES.format(program=program), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_no_command_and_nothing_slow(program: str, option: str) -> None:
    found = modules_of(program, option)
    assert not found & SLOW
    assert not found & {entry.path.partition(":")[0] for _, _, entry in COMMANDS}


@pytest.mark.parametrize(("program", "command", "entry"), COMMANDS)
def test_the_summary_in_the_help_is_that_of_the_command(
    program: str, command: str, entry: Imported
) -> None:
    found = PROGRAMS[program].commands[command]
    assert found.get_short_help_str(1000) == entry.summary
    assert found.name == command
    assert not found.hidden
