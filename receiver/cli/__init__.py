"""The `receiver` command."""

from __future__ import annotations

import click

from receiver import __version__
from receiver.cli.group import Commands
from receiver.console import completion
from receiver.console.imported_commands import Imported, ImportedCommands
from receiver.console.program import HELP_OPTIONS, env_file_option
from receiver.observability.logger import configure_at_first_line

COMMANDS = ImportedCommands(
    callbacks=Imported(
        "receiver.cli.lists:callbacks", "List callbacks and responses to queries, newest first."
    ),
    copy=Imported(
        "receiver.cli.copy:copy",
        "Copy everything into an empty database, and compare the two databases.",
    ),
    deliveries=Imported(
        "receiver.cli.lists:deliveries",
        "List deliveries, newest first; `--state dead` lists the dead letters.",
    ),
    doctor=Imported(
        "receiver.cli.doctor:doctor",
        "Check settings, clock, disk, database and hooks, and whether callbacks arrive.",
    ),
    endpoints=Imported(
        "receiver.cli.endpoints:endpoints",
        "List the endpoints of the hooks, and whether they work, fail, are paused or disabled.",
    ),
    forget=Imported(
        "receiver.cli.retention:forget",
        "Erase the data of a task or of a customer: bodies, names, downloaded files and "
        "thumbnails.",
    ),
    hooks=Imported("receiver.cli.hooks:hooks_", "List and test the hooks of the hooks file."),
    init=Imported(
        "receiver.cli.init:init",
        "Write .env, with generated secrets, and hooks.toml into the working directory.",
    ),
    migrate=Imported("receiver.cli.migrate:migrate", "Bring the database up to this release."),
    prune=Imported(
        "receiver.cli.retention:prune",
        "Erase the payloads of old tasks that have ended, and free the space.",
    ),
    redeliver=Imported(
        "receiver.cli.repair:redeliver",
        "Make finished deliveries due again: those with these numbers, or all that the options "
        "select.",
    ),
    rejections=Imported(
        "receiver.cli.lists:rejections",
        "List rejected requests, newest first, to find out why callbacks do not arrive.",
    ),
    replay=Imported(
        "receiver.cli.repair:replay",
        "Parse and record a stored callback again, or all callbacks in quarantine.",
    ),
    serve=Imported(
        "receiver.cli.serve:serve_", "Run web, worker and poller on this machine until SIGTERM."
    ),
    tail=Imported(
        "receiver.cli.tail:tail",
        "Follow callbacks, status changes and attempts as they happen, until Ctrl-C.",
    ),
    tasks=Imported(
        "receiver.cli.lists:tasks",
        "List tasks, newest first; `tasks show TASK` shows the timeline of one task.",
    ),
    url=Imported(
        "receiver.cli.lists:url",
        "Record a task that your own code creates at the provider, and print its callback URL.",
    ),
    worker=Imported("receiver.cli.worker:worker", "Deliver events to the hooks until SIGTERM."),
)


@click.group(cls=Commands, commands=COMMANDS, context_settings={"help_option_names": HELP_OPTIONS})
@env_file_option
@click.version_option(__version__)
def main() -> None:
    """Receive the callbacks of AI tasks, record each status change once, and run hooks.

    Settings are read from the environment and from .env; see docs/settings.md.
    """
    configure_at_first_line(_configure_logs)


def _configure_logs() -> None:
    from receiver.config import settings  # noqa: PLC0415 - most commands write no line
    from receiver.observability import logs  # noqa: PLC0415

    logs.configure(form=settings.log_format())


main.add_command(completion.command("receiver"))
