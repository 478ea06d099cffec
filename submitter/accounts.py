"""Finds the provider accounts in the environment, and the problems of their settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from submitter.errors import ConfigurationError, InputError
from submitter.providers import PROVIDERS, open_provider
from submitter.settings import DEFAULT_ACCOUNT

Account = tuple[str, str]  # the names of the provider and the account
ACCOUNT = re.compile(r"[A-Z][A-Z0-9_]{0,31}")


def accounts_with_keys(environment: Mapping[str, str]) -> list[Account]:
    """Return the accounts for which the environment contains a key."""
    accounts: dict[Account, None] = {}
    names = sorted(name for name, value in environment.items() if value.strip())
    for provider, adapter in PROVIDERS.items():
        for name in names:
            account = _account(name.removesuffix("_FILE"), provider, adapter.key_settings)
            if account is not None:
                accounts[provider, account] = None
    return list(accounts)


def _account(setting: str, provider: str, keys: Iterable[str]) -> str | None:
    """Return the account whose key this setting is, or None if it is not a key of the provider."""
    prefix = f"{provider.upper()}_"
    for key in keys:
        if setting == f"{prefix}{key}":
            return DEFAULT_ACCOUNT
        if setting.startswith(prefix) and setting.endswith(f"_{key}"):
            name = setting[len(prefix) : -len(key) - 1]
            if ACCOUNT.fullmatch(name):
                return name.lower()
    return None


def problems(environment: Mapping[str, str]) -> list[str]:
    """Return one line for each wrong setting of an account.

    A provider without any key is not used, so its keys may be missing.
    """
    used = accounts_with_keys(environment)
    lines: dict[str, None] = {}
    for provider, account in [*((name, DEFAULT_ACCOUNT) for name in PROVIDERS), *used]:
        try:
            open_provider(provider, account)
        except InputError as error:
            lines[str(error)] = None
        except ConfigurationError as error:
            is_used = (provider, account) in used
            lines |= {line: None for line in error.problems if is_used or "not set" not in line}
    return list(lines)
