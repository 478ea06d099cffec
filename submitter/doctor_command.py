"""The `submitter doctor` command."""

from __future__ import annotations

import os

import click

from receiver.console import output
from receiver.doctor.findings import Verdict
from submitter import doctor
from submitter.console import REFUSED, as_json, print_json
from submitter.providers import DEFAULT_PROVIDER, PROVIDERS
from submitter.settings import DEFAULT_ACCOUNT


@click.command("doctor")
@click.option(
    "--provider", type=click.Choice(list(PROVIDERS)), help="[default: all that have a key]"
)
@click.option("--account", metavar="NAME", help="[default: all that have a key]")
@as_json
@click.pass_context
def doctor_(ctx: click.Context, provider: str | None, account: str | None, as_json: bool) -> None:
    """Check whether each provider accepts our keys, and the clock; nothing is created or paid.

    One line a check: ok, warning or failed, and what to do. Status 1 if one failed. `receiver
    doctor` checks the rest.
    """
    wanted = [
        one
        for one in doctor.accounts(os.environ)
        if provider in (None, one[0]) and account in (None, one[1])
    ]
    if not wanted and (provider or account):
        wanted = [(provider or DEFAULT_PROVIDER, account or DEFAULT_ACCOUNT)]
    found = []
    for finding in doctor.examine(wanted):
        found.append(finding)
        if not as_json:
            output.show_finding(finding)
    if as_json:
        print_json([finding.as_json() for finding in found])
    ctx.exit(REFUSED if any(one.verdict is Verdict.FAILED for one in found) else 0)
