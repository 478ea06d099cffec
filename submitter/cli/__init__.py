"""The `submitter` command.

Its exit status is 0 for success, 1 for a rejection or failure, 2 for a usage error or an invalid
setting, and 130 after an interrupt.
"""

from __future__ import annotations

import click

from receiver import __version__
from receiver.console import completion
from submitter.cli import batch, costs, doctor, reconcile, tasks
from submitter.cli.group import CommandGroup


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Create virtual try-on tasks at a provider, and show their status.

    Settings come from the environment; see .env.example.
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
