"""The `receiver` command."""

from __future__ import annotations

import click

from receiver import __version__
from receiver.cli.group import Commands, ImportedCommands
from receiver.config import settings
from receiver.console import completion
from receiver.console.program import HELP_OPTIONS, env_file_option
from receiver.observability import logs

COMMANDS = ImportedCommands(
    callbacks="lists:callbacks",
    copy="copy:copy",
    deliveries="lists:deliveries",
    doctor="doctor:doctor",
    endpoints="endpoints:endpoints",
    forget="retention:forget",
    hooks="hooks:hooks_",
    init="init:init",
    migrate="migrate:migrate",
    prune="retention:prune",
    redeliver="repair:redeliver",
    rejections="lists:rejections",
    replay="repair:replay",
    serve="serve:serve_",
    tail="tail:tail",
    tasks="lists:tasks",
    url="lists:url",
    worker="worker:worker",
)


@click.group(cls=Commands, commands=COMMANDS, context_settings={"help_option_names": HELP_OPTIONS})
@env_file_option
@click.version_option(__version__)
def main() -> None:
    """Receive the callbacks of AI tasks, record each status change once, and run hooks.

    Settings are read from the environment and from .env; see docs/settings.md.
    """
    logs.configure(form=settings.log_format())


main.add_command(completion.command("receiver"))
