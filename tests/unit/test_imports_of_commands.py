"""A short command imports only what it needs, since most of its time is spent on imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest

from receiver.cli import main as receiver
from receiver.cli.hooks import hooks_
from receiver.console.imported_commands import Imported, ImportedCommands
from receiver.stores.sqlite import SqliteStore
from sandbox.cli import COMMANDS as COMMANDS_OF_SANDBOX
from sandbox.cli import main as sandbox
from submitter.cli import main as submitter
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET

ROOT = Path(__file__).parents[2]
PROGRAMS: dict[str, click.Group] = {
    "receiver": receiver,
    "submitter": submitter,
    "sandbox": sandbox,
}
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
UNUSED = {"PIL", "asyncio", "flask", "fsspec", "requests", "rich", "structlog", "urllib3"}
# Together, they take a fifth of the time of a list.
UNUSED_BY_LISTS = {
    "receiver.ingest",
    "receiver.stores.sql.erasure",
    "receiver.stores.sql.inbox",
    "receiver.stores.sql.retention",
    "statistics",
    "zoneinfo",
}
SHORT = [  # commands that people run often
    "receiver callbacks",
    "receiver deliveries",
    "receiver endpoints",
    "receiver hooks list",
    "receiver hooks secret",
    "receiver migrate",
    "receiver rejections",
    "receiver tasks",
    "receiver url --provider kling",
    "submitter costs",
    "submitter list --help",
    "submitter status --help",
    "sandbox trigger --list",
]
HOOKS = """
[[hook]]
name = "pictures"
type = "download"
to = "pictures"

[[hook]]
name = "mail"
type = "email"
host = "smtp.example.com"
from = "callbacks@shop.example"
to = ["orders@shop.example"]

[[hook]]
name = "chat"
type = "slack"
url = "https://hooks.slack.example/services/1"

[[hook]]
name = "shop"
type = "webhook"
url = "https://shop.example/events"
secrets = ["whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"]

[[hook]]
name = "program"
type = "command"
command = ["true"]
"""
HELP = ("--help", "--version")
LISTS = [
    "receiver callbacks",
    "receiver deliveries",
    "receiver endpoints",
    "receiver rejections",
    "receiver tasks",
]
# Each command is run by a fork of a process that has imported only the group of its program, which
# every command imports. The settings of the commands are in the environment.
MODULES = """
import json, os, sys
from importlib import import_module

results = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

def run(main, program, words):
    status = 1
    try:
        main(words, prog_name=program)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        command = " ".join([program, *words])
        line = json.dumps({"command": command, "status": status, "modules": [*sys.modules]})
        os.write(results, f"{line}\\n".encode())
        os._exit(0)

def run_all(program, commands):
    main = import_module(f"{program}.cli").main
    for words in commands:
        if os.fork() == 0:
            run(main, program, words)
        os.wait()
    os._exit(0)

for program, commands in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        run_all(program, commands)
    os.wait()
"""
GROUPS = {**PROGRAMS, "receiver hooks": hooks_}
COMMANDS = [
    (group, command, entry)
    for group, found in GROUPS.items()
    if isinstance(found.commands, ImportedCommands)
    for command, entry in found.commands.data.items()
    if isinstance(entry, Imported)
]


@pytest.fixture(scope="module")
def modules_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], set[str]]:
    """Return a function that returns the modules that a command has imported at its end."""
    folder = tmp_path_factory.mktemp("record")
    (folder / "hooks.toml").write_text(HOOKS)
    with closing(SqliteStore(folder / "receiver.db")) as store:
        store.migrate()
    settings = {
        "CALLBACK_SECRETS": SECRET,
        "DATABASE_URL": f"sqlite:///{folder}/receiver.db",
        "HOOKS_FILE": f"{folder}/hooks.toml",
        "PUBLIC_URL": "https://callbacks.example",
    }
    commands = [*SHORT, *LISTS, *(f"{program} {option}" for program in PROGRAMS for option in HELP)]
    words = {
        program: [
            line.split()[1:] for line in dict.fromkeys(commands) if line.split()[0] == program
        ]
        for program in PROGRAMS
    }
    done = subprocess.run(
        [sys.executable, "-c", MODULES, json.dumps(words)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    found = {row["command"]: row for row in map(json.loads, done.stdout.splitlines())}

    def modules(command: str) -> set[str]:
        assert found[command]["status"] == 0, done.stderr
        return set(found[command]["modules"])

    return modules


@pytest.mark.parametrize("command", SHORT)
def test_a_short_command_imports_nothing_slow(
    command: str, modules_of: Callable[[str], set[str]]
) -> None:
    assert modules_of(command) & UNUSED == set()


def test_a_command_of_a_group_does_not_import_the_others(
    modules_of: Callable[[str], set[str]],
) -> None:
    found = modules_of("receiver hooks list")
    assert "receiver.cli.hooks" in found
    assert "receiver.cli.explain" not in found


@pytest.mark.parametrize("command", LISTS)
def test_a_list_imports_only_the_components_of_the_store_that_it_uses(
    command: str, modules_of: Callable[[str], set[str]]
) -> None:
    assert modules_of(command) & UNUSED_BY_LISTS == set()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("option", HELP)
def test_help_imports_no_command_and_nothing_slow(
    program: str, option: str, modules_of: Callable[[str], set[str]]
) -> None:
    found = modules_of(f"{program} {option}")
    assert not found & SLOW
    commands = {entry.path.partition(":")[0] for _, _, entry in COMMANDS}
    assert not found & (commands | {"sandbox.cli.commands"})


@pytest.mark.parametrize(("group", "command", "entry"), COMMANDS)
def test_the_summary_in_the_help_is_that_of_the_command(
    group: str, command: str, entry: Imported
) -> None:
    found = GROUPS[group].commands[command]
    assert found.get_short_help_str(1000) == entry.summary
    assert found.name == command
    assert not found.hidden


def test_the_help_of_the_sandbox_has_the_summaries_of_its_commands() -> None:
    assert {
        name: sandbox.commands[name].get_short_help_str(1000) for name in COMMANDS_OF_SANDBOX
    } == COMMANDS_OF_SANDBOX.data


def test_the_help_names_the_values_of_options_in_words_that_people_use() -> None:
    types = {
        parameter.type.name
        for group in PROGRAMS.values()
        for command in _all_commands(group)
        for parameter in command.params
    }
    assert {"whole number", "number"} <= types
    assert not {name for name in types if "range" in name}


def test_the_help_of_an_option_states_no_range_without_an_end() -> None:
    for group in PROGRAMS.values():
        for command in _all_commands(group):
            assert "<None" not in command.get_help(click.Context(command)).replace("=", "")


def _all_commands(group: click.Group) -> Iterator[click.Command]:
    for name in group.commands:
        command = group.commands[name]
        yield command
        if isinstance(command, click.Group):
            yield from _all_commands(command)
