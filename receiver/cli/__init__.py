"""The `receiver` command."""

from __future__ import annotations

import click

from receiver import __version__
from receiver.cli.group import Commands, ImportedCommands
from receiver.config import settings
from receiver.console import completion
from receiver.observability import logs

COMMANDS = ImportedCommands(
    "receiver.cli",
    {
        "callbacks": "look:callbacks",
        "copy": "copy:copy",
        "deliveries": "look:deliveries",
        "doctor": "doctor:doctor",
        "endpoints": "endpoints:endpoints",
        "forget": "retention:forget",
        "hooks": "hooks:hooks_",
        "migrate": "run:migrate",
        "prune": "retention:prune",
        "redeliver": "repair:redeliver",
        "rejections": "look:rejections",
        "replay": "repair:replay",
        "serve": "run:serve_",
        "tail": "tail:tail",
        "tasks": "look:tasks",
        "url": "look:url",
        "worker": "run:worker",
    },
)


@click.group(
    cls=Commands,
    commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__)
def main() -> None:
    """Receive the callbacks of AI tasks, keep them, and fire hooks.

    Settings come from the environment; see .env.example.
    """
    logs.configure(form=settings.log_format())


main.add_command(completion.command("receiver"))
