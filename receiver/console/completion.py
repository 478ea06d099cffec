"""Makes the command that prints a shell's completion of a program."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

HOW = {
    "bash": 'eval "$({program} completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$({program} completion zsh)"  # in ~/.zshrc, after compinit',
    "fish": "{program} completion fish > ~/.config/fish/completions/{program}.fish",
}


def command(program: str) -> click.Command:
    """`PROGRAM completion SHELL`, for a program that is on the PATH under this name."""

    @click.command("completion")
    @click.argument("shell", type=click.Choice(list(HOW)))
    @click.pass_context
    def completion(ctx: click.Context, shell: str) -> None:
        kind = get_completion_class(shell)
        assert kind is not None  # noqa: S101 - click brings these three
        root = ctx.find_root().command
        click.echo(kind(root, {}, program, f"_{program.upper()}_COMPLETE").source())

    lines = "\n\n".join(line.format(program=program) for line in HOW.values())
    completion.help = f"Print what makes a shell complete `{program}`, with its options.\n\n{lines}"
    return completion
