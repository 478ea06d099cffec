"""Does each provider accept our keys, and is our clock right? Asks, and creates nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from receiver.doctor import clocks
from receiver.doctor.findings import Finding, failed, ok, warning
from submitter.errors import (
    ConfigurationError,
    InputError,
    NotFoundAtProvider,
    ProviderError,
    TryLater,
)
from submitter.providers import ROOMS, Provider, open_room
from submitter.settings import DEFAULT_ACCOUNT

Account = tuple[str, str]  # of a provider; its name
# No provider has a task with this id: its answer shows whether it would have told.
NO_TASK = "callback-receiver-doctor"
KEY = re.compile(
    r"(?:(?P<account>[A-Z][A-Z0-9_]{0,31})_)?(?:API|ACCESS|SECRET|SUBSCRIPTION)_KEY(?:_FILE)?"
)


def accounts_with_keys(environment: Mapping[str, str]) -> list[Account]:
    """Those that have a key in the environment."""
    found: dict[Account, None] = {}
    for provider in ROOMS:
        prefix = f"{provider.upper()}_"
        for name in sorted(name for name, value in environment.items() if value.strip()):
            if name.startswith(prefix) and (match := KEY.fullmatch(name, len(prefix))):
                found[provider, (match["account"] or DEFAULT_ACCOUNT).lower()] = None
    return list(found)


def check_accounts(wanted: Sequence[Account]) -> Iterator[Finding]:
    """These accounts, and the clock; each finding as soon as it is there.

    Raises InputError for a name that no account can have.
    """
    if not wanted:
        said = "no provider has a key in the environment: nothing can be submitted"
        yield failed("keys", said, "set KLING_API_KEY, or that of another provider")
    asked: dict[str, None] = {}
    for provider, account in wanted:
        check = provider if account == DEFAULT_ACCOUNT else f"{provider}:{account}"
        try:
            room = open_room(provider, account)
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
