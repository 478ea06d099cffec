"""The register of provider rooms."""

from __future__ import annotations

from typing import Protocol

from submitter.client import Persistence
from submitter.errors import InputError
from submitter.providers import appypie, kling, modellix
from submitter.providers.base import Provider
from submitter.settings import DEFAULT_ACCOUNT


class OpenProvider(Protocol):
    """Opens one account's room; `patient` replaces how its creates wait when told to."""

    def __call__(self, account: str, patient: Persistence | None = None) -> Provider: ...


PROVIDERS: dict[str, OpenProvider] = {
    kling.NAME: kling.from_environment,
    modellix.NAME: modellix.from_environment,
    appypie.NAME: appypie.from_environment,
}


def open_provider(
    name: str, account: str = DEFAULT_ACCOUNT, patient: Persistence | None = None
) -> Provider:
    """The room of this provider, with the keys of this account.

    Raises InputError, or ConfigurationError with a line for each setting that is wrong.
    """
    if name not in PROVIDERS:
        raise InputError("provider", f"{name!r} is not known; use {' or '.join(PROVIDERS)}")
    return PROVIDERS[name](account, patient)


__all__ = ["PROVIDERS", "Provider", "open_provider"]
