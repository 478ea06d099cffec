"""The `submitter` command.

Its exit status is 0 for success, 1 for a rejection or failure, 2 for a usage error or an invalid
setting, and 130 after an interrupt.
"""

from __future__ import annotations

import click

from receiver import __version__
from receiver.console import completion
from receiver.console.imported_commands import Imported, ImportedCommands
from receiver.console.program import HELP_OPTIONS, env_file_option
from submitter.cli.group import CommandGroup

COMMANDS = ImportedCommands(
    batch=Imported(
        "submitter.cli.batch:batch_",
        "Submit every row of FILE, CSV with a header or JSONL; safe to run again.",
    ),
    costs=Imported(
        "submitter.cli.costs:costs_", "Add up what the providers charged, with one line per unit."
    ),
    doctor=Imported(
        "submitter.cli.doctor:doctor_",
        "Check the clock, and whether each provider accepts your keys; nothing is created or "
        "charged.",
    ),
    list=Imported(
        "submitter.cli.tasks:list_", "Show the provider's own list of tasks, newest first."
    ),
    reconcile=Imported(
        "submitter.cli.reconcile:reconcile_",
        "Query the providers about tasks whose callbacks are late or cannot be received.",
    ),
    status=Imported(
        "submitter.cli.tasks:status", "Show a task; query the provider first if it has not ended."
    ),
    submit=Imported("submitter.cli.submit:submit", "Submit one try-on."),
)


@click.group(
    cls=CommandGroup, commands=COMMANDS, context_settings={"help_option_names": HELP_OPTIONS}
)
@env_file_option
@click.version_option(__version__)
def main() -> None:
    """Create virtual try-on tasks at a provider, and show their status.

    Settings are read from the environment and from .env; see docs/settings.md.
    """


main.add_command(completion.command("submitter"))
