"""Finds what is wrong with the provider accounts in the environment, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping

from submitter.doctor import accounts
from submitter.errors import ConfigurationError, InputError
from submitter.providers import PROVIDERS, open_provider
from submitter.settings import DEFAULT_ACCOUNT


def problems(environment: Mapping[str, str]) -> list[str]:
    """Return one line for each wrong setting of an account.

    A provider without any key is not used, so that its keys may be missing.
    """
    used = accounts(environment)
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
