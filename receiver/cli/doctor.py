"""The command that checks an installation."""

from __future__ import annotations

import click

from receiver.cli.group import REFUSED
from receiver.cli.options import as_json
from receiver.console import output
from receiver.doctor import checkup
from receiver.doctor.findings import Verdict


@click.command()
@click.option("--send", is_flag=True, help="Also send a test event through every hook.")
@as_json
@click.pass_context
def doctor(ctx: click.Context, send: bool, as_json: bool) -> None:
    """Check settings, clock, disk, database and hooks, and whether callbacks arrive.

    Each check prints a line: ok, warning or failed, and what to do. The exit status is 1 if a check
    failed. To check PUBLIC_URL, a POST request is sent to it, which the receiver answers but does
    not record.
    """
    findings = []
    for finding in checkup.examine(send=send):
        findings.append(finding)
        if not as_json:
            output.show_finding(finding)
    if as_json:
        output.as_json([finding.as_json() for finding in findings])
    ctx.exit(REFUSED if any(finding.verdict is Verdict.FAILED for finding in findings) else 0)
