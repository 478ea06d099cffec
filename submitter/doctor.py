"""Does each provider accept our keys, and is our clock right? Asks, and creates nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from receiver.doctor import clocks
from receiver.doctor.findings import Finding, failed, ok, warning
from submitter.errors import (
    ConfigurationError,
    InputError,
    NotFoundAtProvider,
    ProviderError,
    TryLater,
)
from submitter.providers import PROVIDERS, Provider, open_provider
from submitter.settings import DEFAULT_ACCOUNT

Account = tuple[str, str]  # of a provider; its name
# No provider has a task with this id: its answer shows whether it would have told.
NO_TASK = "callback-receiver-doctor"
ACCOUNT = re.compile(r"[A-Z][A-Z0-9_]{0,31}")


def accounts(environment: Mapping[str, str]) -> list[Account]:
    """Those that have a key in the environment."""
    found: dict[Account, None] = {}
    given = sorted(name for name, value in environment.items() if value.strip())
    for provider, adapter in PROVIDERS.items():
        for name in given:
            account = _account(name.removesuffix("_FILE"), provider, adapter.key_settings)
            if account is not None:
                found[provider, account] = None
    return list(found)


def _account(setting: str, provider: str, keys: Iterable[str]) -> str | None:
    """Return the account whose key this setting is; None if it is not a key of the provider."""
    prefix = f"{provider.upper()}_"
    for key in keys:
        if setting == f"{prefix}{key}":
            return DEFAULT_ACCOUNT
        if setting.startswith(prefix) and setting.endswith(f"_{key}"):
            name = setting[len(prefix) : -len(key) - 1]
            if ACCOUNT.fullmatch(name):
                return name.lower()
    return None


def examine(wanted: Sequence[Account]) -> Iterator[Finding]:
    """These accounts, and the clock; each finding as soon as it is there.

    Raises InputError for a name that no account can have.
    """
    if not wanted:
        said = "no provider has a key in the environment: nothing can be submitted"
        yield failed(
            "keys", said, f"set the key of one of {', '.join(PROVIDERS)}; see .env.example"
        )
    asked: dict[str, None] = {}
    for provider, account in wanted:
        check = provider if account == DEFAULT_ACCOUNT else f"{provider}:{account}"
        try:
            room = open_provider(provider, account)
        except ConfigurationError as error:
            yield from (failed(check, problem) for problem in error.problems)
        else:
            asked[room.base_url] = None
            yield _accepted(check, room)
    for base_url in asked:
        yield clocks.check([base_url])


def _accepted(check: str, room: Provider) -> Finding:
    """Does the provider take our keys? Errors tell what to do, and hold no key."""
    try:
        _ask(room)
    except TryLater as error:
        return warning(check, f"it cannot be told: {error}", "run this again later")
    except ProviderError as error:
        return failed(check, str(error))
    return ok(check, f"{room.base_url} accepts the keys")


def _ask(room: Provider) -> None:
    """A question that costs nothing. Raises ProviderError."""
    try:
        room.list(1, 1)
    except InputError:  # it has no list
        try:
            room.fetch(provider_task_id=NO_TASK)
        except NotFoundAtProvider:
            return
