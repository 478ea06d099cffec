"""The command that looks for what is wrong."""

from __future__ import annotations

import click

from receiver.cli.group import REFUSED, as_json
from receiver.console import output
from receiver.doctor import checkup
from receiver.doctor.findings import Verdict


@click.command()
@click.option("--send", is_flag=True, help="Send a marked test event through every hook.")
@as_json
@click.pass_context
def doctor(ctx: click.Context, send: bool, as_json: bool) -> None:
    """Check settings, clock, disk, database, hooks, and whether a callback gets in.

    One line a check: ok, warning or failed, and what to do. Status 1 if one failed. The public URL
    is tried by a POST through PUBLIC_URL that the receiver answers and does not record.
    """
    found = []
    for finding in checkup.examine(send=send):
        found.append(finding)
        if not as_json:
            output.show_finding(finding)
    if as_json:
        output.as_json([finding.as_json() for finding in found])
    ctx.exit(REFUSED if any(one.verdict is Verdict.FAILED for one in found) else 0)
