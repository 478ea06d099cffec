"""The `sandbox` command: serve a sandbox, print its settings, send callbacks, run the demo."""

from __future__ import annotations

from collections import UserDict
from pkgutil import resolve_name
from typing import Any

import click

from sandbox import __version__


class ImportedCommands(UserDict[str, str]):
    """The summaries of the commands by name; an item is the command itself.

    The commands are imported when one of them is used, because that takes long.
    """

    def __getitem__(self, name: str) -> Any:
        if name not in self.data:
            raise KeyError(name)
        return resolve_name(f"sandbox.cli.commands:{name}")


class SandboxCommands(click.Group):
    """A group whose help has the whole summary of each command."""

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.data.items()))


COMMANDS = ImportedCommands(
    demo="Run receiver and submitter against a sandbox, from submission to delivered hooks.",
    env="Print the settings that point the receiver and the submitter at a sandbox.",
    serve="Serve the providers' APIs, the inboxes and the pages until Ctrl-C or SIGTERM.",
    trigger="Send the callbacks of a scenario to any receiver.",
)


@click.group(
    cls=SandboxCommands,
    commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(__version__)
def main() -> None:
    """Simulate all providers, a mail server and Slack on this machine."""
