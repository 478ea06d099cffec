"""Finds the provider accounts in the environment, and the problems of their settings."""

from __future__ import annotations

import re
from collections.abc import Mapping

from submitter.errors import ConfigurationError, InputError
from submitter.providers import PROVIDERS, open_provider
from submitter.settings import DEFAULT_ACCOUNT

Account = tuple[str, str]  # the names of the provider and the account
ACCOUNT = "[A-Z][A-Z0-9_]{0,31}"


def accounts_with_keys(environment: Mapping[str, str]) -> list[Account]:
    """Return the accounts for which the environment contains a key."""
    accounts: dict[Account, None] = {}
    names = sorted(name for name, value in environment.items() if value.strip())
    for provider, adapter in PROVIDERS.items():
        keys = "|".join(map(re.escape, adapter.key_settings))
        setting = re.compile(rf"{re.escape(provider.upper())}_(?:({ACCOUNT})_)?(?:{keys})")
        for name in names:
            if match := setting.fullmatch(name.removesuffix("_FILE")):
                accounts[provider, match[1].lower() if match[1] else DEFAULT_ACCOUNT] = None
    return list(accounts)


def problems(environment: Mapping[str, str]) -> list[str]:
    """Return one line for each wrong setting of an account.

    A provider without any key is not used, so that its keys may be missing.
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
