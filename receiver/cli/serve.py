"""The command that runs all processes of one machine."""

from __future__ import annotations

import os
import sys
from functools import partial

import click

from receiver import hooks
from receiver.cli.database import store_when_reachable
from receiver.cli.group import REFUSED, complain
from receiver.processes import listening, serve
from receiver.processes.current_hooks import load_configuration
from receiver.processes.shutdown import delay_hangup

LAST_PORT = 65_535


def _checked_bind(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Return the address if gunicorn accepts it; otherwise the web process would keep dying."""
    if text is not None:
        from gunicorn.util import parse_address  # noqa: PLC0415 - rarely given

        try:
            address = parse_address(text)
        except RuntimeError as error:
            raise click.BadParameter(str(error)) from None
        if isinstance(address, tuple) and not 0 <= address[1] <= LAST_PORT:
            raise click.BadParameter(f"{address[1]} is not a port; use 1 to {LAST_PORT}")
    return text


@click.command("serve")
@click.option(
    "--bind",
    metavar="HOST:PORT",
    callback=_checked_bind,
    help="Where to listen. [default: 127.0.0.1:8000]",
)
def serve_(bind: str | None) -> None:
    """Run web, worker and poller on this machine until SIGTERM."""
    delay_hangup()
    check = partial(hooks.build_all, environ=os.environ)
    # Problems are reported once, here, and not by each process.
    chosen, current = load_configuration(check, with_accounts=True)
    store_when_reachable(chosen).close()  # the processes open their own
    if problem := listening.problem_before_start(bind):
        complain([problem])
        sys.exit(REFUSED)
    sys.exit(serve.supervise(serve.commands(bind), current, check, serve.report_command(bind)))
