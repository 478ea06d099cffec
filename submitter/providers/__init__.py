"""The register of provider rooms."""

from __future__ import annotations

from collections.abc import Callable

from submitter.errors import InputError
from submitter.providers import kling
from submitter.providers.base import Provider
from submitter.settings import DEFAULT_ACCOUNT

ROOMS: dict[str, Callable[[str], Provider]] = {kling.NAME: kling.from_environment}


def open_room(name: str, account: str = DEFAULT_ACCOUNT) -> Provider:
    """The room of this provider, with the keys of this account.

    Raises InputError, or ConfigurationError with a line for each setting that is wrong.
    """
    if name not in ROOMS:
        raise InputError("provider", f"{name!r} is not known; use {' or '.join(ROOMS)}")
    return ROOMS[name](account)


__all__ = ["ROOMS", "Provider", "open_room"]
