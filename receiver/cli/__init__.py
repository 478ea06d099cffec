"""The `receiver` command."""

from __future__ import annotations

import click

from receiver import __version__, completion, logs, settings
from receiver.cli import copy, doctor, endpoints, hooks, look, repair, retention, run, tail
from receiver.cli.group import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Receive the callbacks of AI tasks, keep them, and fire hooks.

    Settings come from the environment; see .env.example.
    """
    logs.configure(form=settings.log_format())


for room in (run, look, tail, hooks, endpoints, repair, retention, doctor, copy):
    for command in room.COMMANDS:
        main.add_command(command)
main.add_command(completion.command("receiver"))
