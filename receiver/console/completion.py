"""The command that prints the completion script of a program for a shell."""

from __future__ import annotations

import click

INSTRUCTIONS = {
    "bash": 'eval "$({program} completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$({program} completion zsh)"  # in ~/.zshrc, after compinit',
    "fish": "{program} completion fish > ~/.config/fish/completions/{program}.fish",
}


def command(program: str) -> click.Command:
    """Return the command `completion` of a program that is on the PATH under this name."""

    @click.command("completion")
    @click.argument("shell", type=click.Choice(list(INSTRUCTIONS)))
    @click.pass_context
    def completion(ctx: click.Context, shell: str) -> None:
        from click.shell_completion import get_completion_class  # noqa: PLC0415 - rarely needed

        kind = get_completion_class(shell)
        assert kind is not None  # noqa: S101 - click supports these three
        root = ctx.find_root().command
        click.echo(kind(root, {}, program, f"_{program.upper()}_COMPLETE").source())

    lines = "\n\n".join(line.format(program=program) for line in INSTRUCTIONS.values())
    completion.help = f"Print a script that lets a shell complete `{program}`.\n\n{lines}"
    return completion
