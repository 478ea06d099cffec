"""Reads the settings of one provider account from the environment, collecting every mistake."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from submitter.errors import ConfigurationError, InputError

DEFAULT_ACCOUNT = "default"
ACCOUNT = re.compile(r"[a-z][a-z0-9_]{0,31}")
SENDABLE = re.compile(r"[!-~]+")  # what may stand in a header: visible ASCII


class AccountSettings:
    """The settings of one account: `KLING_API_KEY`, or `KLING_SHOP2_API_KEY` for `shop2`.

    Each may also be given as a file, in `NAME_FILE`. Ask for all that is needed, then `check`.
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
                f"{account!r} cannot be used; begin with a small letter and use small letters, "
                "digits and '_', 32 at most",
            )
        self._provider = provider.upper()
        self._account = account
        self._environment = os.environ if environment is None else environment
        self.problems: list[str] = []

    def name(self, key: str) -> str:
        """What this setting is called in the environment."""
        infix = "" if self._account == DEFAULT_ACCOUNT else f"{self._account.upper()}_"
        return f"{self._provider}_{infix}{key}"

    def secret(self, key: str) -> str | None:
        """A key that is sent in a header; None if it is not set. Its value is never shown."""
        value = self._read(self.name(key))
        if value and not SENDABLE.fullmatch(value):
            self.problems.append(
                f"{self.name(key)}: holds a space or a character that no key has; copy it anew"
            )
            return None
        return value

    def needed_secret(self, key: str) -> str:
        """A key that must be set."""
        value = self.secret(key)
        if not value and not any(self.name(key) in problem for problem in self.problems):
            self.problems.append(f"{self.name(key)}: not set; set it to the account's key")
        return value or ""

    def base_url(self, default: str) -> str:
        """The account's `…_BASE_URL`, else the provider's, else `default`; no slash at the end."""
        return self._place("BASE_URL", default, _problem_of_url).rstrip("/")

    def path(self, key: str, default: str, holding: str) -> str:
        """A path with `holding` in it: the account's, else the provider's, else `default`."""

        def problem(value: str) -> str | None:
            is_path = value.startswith("/") and SENDABLE.fullmatch(value) and holding in value
            return (
                None if is_path else f"is not a path with {holding} in it; use one like {default}"
            )

        return self._place(key, default, problem)

    def check(self) -> None:
        """Raises ConfigurationError if anything that was asked for is missing or wrong."""
        if self.problems:
            raise ConfigurationError(self.problems)

    def _place(self, key: str, default: str, problem_of: Callable[[str], str | None]) -> str:
        for name in (self.name(key), f"{self._provider}_{key}"):
            value = self._read(name)
            if value is not None:
                problem = problem_of(value)
                if problem:
                    self.problems.append(f"{name}: {problem}")
                return value
        return default

    def _read(self, name: str) -> str | None:
        value = self._environment.get(name, "").strip()
        if value:
            return value
        path = self._environment.get(f"{name}_FILE", "").strip()
        if not path:
            return None
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except (OSError, ValueError):
            self.problems.append(f"{name}_FILE: {path} is not a readable text file; correct it")
            return None


def _problem_of_url(value: str) -> str | None:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or not SENDABLE.fullmatch(value):
        return "is not a URL; use one like https://api.example.com"
    if parts.username is not None or parts.query or parts.fragment:
        return "holds a user name, a query or a fragment; leave that off"
    return None
