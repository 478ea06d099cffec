"""The settings of one provider account, read from the environment; all problems are collected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from receiver.environment import Environment, Setting
from submitter.errors import ConfigurationError, InputError

T = TypeVar("T")
DEFAULT_ACCOUNT = "default"
ACCOUNT = re.compile(r"[a-z][a-z0-9_]{0,31}")
SENDABLE = re.compile(r"[!-~]+")  # the characters that a header or a URL may contain


class AccountSettings:
    """The settings of one account: `KLING_API_KEY`, or `KLING_SHOP2_API_KEY` for `shop2`.

    Each of them may also be read from a file, which `NAME_FILE` names. Read all settings first, and
    then call `check`.
    """

    def __init__(
        self,
        provider: str,
        account: str = DEFAULT_ACCOUNT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not ACCOUNT.fullmatch(account):
            raise InputError(
                "account",
                f"{account!r} cannot be used; start with a lower-case letter and use lower-case "
                "letters, digits and '_', at most 32 characters",
            )
        self._provider = provider.upper()
        self._account = account
        self._environment = Environment(environment)
        self.problems = self._environment.problems

    def name(self, key: str) -> str:
        """Return the name of this setting in the environment."""
        infix = "" if self._account == DEFAULT_ACCOUNT else f"{self._account.upper()}_"
        return f"{self._provider}_{infix}{key}"

    def value(self, setting: Setting[T], *, is_shared: bool = False) -> T:
        """Return the value of a setting; its `name` lacks the prefix, such as `KLING_SHOP2_`.

        A shared setting may be set for the provider instead of the account.
        """
        named = replace(setting, name=self.name(setting.name))
        if is_shared and not self._environment.is_set(named):
            named = replace(setting, name=f"{self._provider}_{setting.name}")
        return self._environment.value(named)

    def secret(self, key: str) -> str | None:
        """Return a key that is sent in a header, or None if it is unset or invalid."""
        return self.value(
            Setting(name=key, read=_read_key, default=None, summary="", is_secret=True)
        )

    def needed_secret(self, key: str) -> str:
        """Return a key that must be set. If it is not, add a problem and return ""."""
        value = self.secret(key)
        if not value and not any(self.name(key) in problem for problem in self.problems):
            self.problems.append(f"{self.name(key)}: not set; set it to the account's key")
        return value or ""

    def base_url(self, default: str) -> str:
        """Return `…_BASE_URL` of the account or the provider, without a slash at its end."""
        read = partial(_read_url, example=default)
        # A wrong value is not displayed, because it may contain a password.
        setting = Setting(name="BASE_URL", read=read, default=default, summary="", is_secret=True)
        return self.value(setting, is_shared=True)

    def path(self, key: str, default: str, holding: str) -> str:
        """Return a path, of the account or the provider, that contains `holding`."""
        read = partial(_read_path, example=default, holding=holding)
        setting = Setting(name=key, read=read, default=default, summary="")
        return self.value(setting, is_shared=True)

    def check(self) -> None:
        """Raise ConfigurationError if any setting that was read is missing or invalid."""
        if self.problems:
            raise ConfigurationError(self.problems)


def _read_key(text: str) -> str:
    if not SENDABLE.fullmatch(text):
        raise ValueError("contains a space or a character that no key has; copy it again")
    return text


def _read_url(text: str, example: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    is_url = parts.scheme in ("http", "https") and parts.hostname
    if not is_url or not SENDABLE.fullmatch(text):
        raise ValueError(f"is not a URL; use one like {example}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("contains a user name, a query or a fragment; remove it")
    return text.rstrip("/")


def _read_path(text: str, example: str, holding: str) -> str:
    if not (text.startswith("/") and SENDABLE.fullmatch(text) and holding in text):
        raise ValueError(f"is not a path that contains {holding}; use one like {example}")
    return text
