"""The `submitter` command.

Its exit status is 0 for success, 1 for a rejection or failure, 2 for a usage error or an invalid
setting, and 130 after an interrupt.
"""

from __future__ import annotations

import click

from receiver import __version__
from receiver.console import completion
from receiver.console.program import HELP_OPTIONS, env_file_option
from submitter.cli import batch, costs, doctor, reconcile, tasks
from submitter.cli.group import CommandGroup


@click.group(cls=CommandGroup, context_settings={"help_option_names": HELP_OPTIONS})
@env_file_option
@click.version_option(__version__)
def main() -> None:
    """Create virtual try-on tasks at a provider, and show their status.

    Settings are read from the environment and from .env; see docs/settings.md.
    """


for command in (
    tasks.submit,
    tasks.status,
    tasks.list_,
    batch.batch_,
    reconcile.reconcile_,
    costs.costs_,
    doctor.doctor_,
    completion.command("submitter"),
):
    main.add_command(command)
