"""The command `submitter doctor`: checks keys and the clock by queries that cost nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

import click

from receiver.console import output
from receiver.doctor import clocks
from receiver.doctor.findings import Finding, Verdict, failed, ok, warning
from submitter.accounts import Account, accounts_with_keys
from submitter.cli.group import EXIT_FAILED, print_json
from submitter.cli.options import as_json
from submitter.errors import (
    ConfigurationError,
    InputError,
    NotFoundAtProvider,
    ProviderError,
    TryLater,
)
from submitter.providers import DEFAULT_PROVIDER, PROVIDERS, Provider, open_provider
from submitter.settings import DEFAULT_ACCOUNT

# No provider has a task with this id, but the response shows whether the keys are accepted.
NO_TASK = "callback-receiver-doctor"


@click.command("doctor")
@click.option(
    "--provider", type=click.Choice(list(PROVIDERS)), help="[default: all that have a key]"
)
@click.option("--account", metavar="NAME", help="[default: all that have a key]")
@as_json
@click.pass_context
def doctor_(ctx: click.Context, provider: str | None, account: str | None, as_json: bool) -> None:
    """Check the clock, and whether each provider accepts your keys; nothing is created or charged.

    Each check is one line: ok, warning or failed, and what to do. The exit status is 1 if a check
    failed. `receiver doctor` checks everything else.
    """
    accounts = [
        (provider_name, account_name)
        for provider_name, account_name in accounts_with_keys(os.environ)
        if provider in (None, provider_name) and account in (None, account_name)
    ]
    if not accounts and (provider or account):
        accounts = [(provider or DEFAULT_PROVIDER, account or DEFAULT_ACCOUNT)]
    findings = []
    for finding in check_accounts(accounts):
        findings.append(finding)
        if not as_json:
            output.show_finding(finding)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    has_failed = any(finding.verdict is Verdict.FAILED for finding in findings)
    ctx.exit(EXIT_FAILED if has_failed else 0)


def check_accounts(accounts: Sequence[Account]) -> Iterator[Finding]:
    """Yield the findings about these accounts, and about the clock, as they are made.

    Raises InputError for an invalid name of an account.
    """
    if not accounts:
        problem = "no provider has a key in the environment: nothing can be submitted"
        remedy = f"set the key of one of {', '.join(PROVIDERS)}; see .env.example"
        yield failed("keys", problem, remedy)
    base_urls: dict[str, None] = {}
    for provider, account in accounts:
        check = provider if account == DEFAULT_ACCOUNT else f"{provider}:{account}"
        try:
            adapter = open_provider(provider, account)
        except ConfigurationError as error:
            yield from (failed(check, problem) for problem in error.problems)
        else:
            base_urls[adapter.base_url] = None
            yield _check_keys(check, adapter)
    for base_url in base_urls:
        yield clocks.check([base_url])


def _check_keys(check: str, adapter: Provider) -> Finding:
    """Check whether the provider accepts the keys. The errors contain no key."""
    try:
        _send_query(adapter)
    except TryLater as error:
        return warning(check, f"the keys could not be checked: {error}", "run this again later")
    except ProviderError as error:
        return failed(check, str(error))
    return ok(check, f"{adapter.base_url} accepts the keys")


def _send_query(adapter: Provider) -> None:
    """Send a query that costs nothing. Raises ProviderError."""
    try:
        adapter.list(1, 1)
    except InputError:  # the provider has no list
        with suppress(NotFoundAtProvider):
            adapter.fetch(provider_task_id=NO_TASK)
