"""The provider adapters of the submitter: they create tasks at a provider and query them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from receiver import providers
from receiver.config.plugins import BuiltIn
from receiver.providers.registry import Registry, members_of
from submitter.errors import ConfigurationError, InputError
from submitter.providers.base import Provider
from submitter.settings import DEFAULT_ACCOUNT

if TYPE_CHECKING:
    from submitter.client import Persistence

ENTRY_POINTS = "callback_receiver.submitter_providers"
DEFAULT_PROVIDER = "kling"
_BUILT_IN = BuiltIn(
    kling="submitter.providers.kling:Kling",
    modellix="submitter.providers.modellix:Modellix",
    appypie="submitter.providers.appypie:AppyPie",
)


def _received(adapter: Any) -> Any:
    """Return the class. Raises ValueError if the receiver has no adapter for its provider."""
    if adapter.name not in providers.PROVIDERS:
        raise ValueError(f"the receiver has no provider {adapter.name!r}")
    return adapter


PROVIDERS: Registry[type[Provider]] = Registry(
    ENTRY_POINTS,
    _BUILT_IN,
    members_of(Provider) - {"base_url"},  # which only instances have
    make=_received,
)


def open_provider(
    name: str, account: str = DEFAULT_ACCOUNT, patient: Persistence | None = None
) -> Provider:
    """Return the adapter of this provider with the keys of this account.

    `patient` replaces how its create requests are retried. Raises InputError, or ConfigurationError
    with a line for each setting that is wrong.
    """
    if name not in PROVIDERS:
        if PROVIDERS.problems:
            raise ConfigurationError(PROVIDERS.problems)
        raise InputError("provider", f"{name!r} is not known; use {' or '.join(PROVIDERS)}")
    return PROVIDERS[name].from_environment(account, patient)


__all__ = ["DEFAULT_PROVIDER", "PROVIDERS", "Provider", "open_provider"]
