"""The secrets in the hooks file: how `${NAME}` is replaced, and which values must never be shown.

This module does not import the hook types, so that every process can hide the worker's secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from receiver.config.hooks_file import HookEntry

PLACE_OF_A_SECRET = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Keys of options that hold a secret even if it is written in the file.
SECRET_KEYS = ("authorization", "cookie", "credential", "key", "password", "secret", "token")
# Options that are templates. A URL in one is only a part of it, so the whole template is no secret.
TEMPLATE_KEYS = ("blocks", "body", "html", "subject", "text")
# Options whose value is not a secret even if it comes from the environment: hiding the address of a
# mail server on this machine would also hide the address of each client.
PUBLIC_KEYS = ("host", "port", "routing_key")
# The object storage takes its secrets from the environment.
OF_STORAGE = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
NOT_SET = "is not set"
BUCKET = "s3://"  # a URL without secrets


def secrets(entries: Iterable[HookEntry], environ: Mapping[str, str]) -> frozenset[str]:
    """Return the secrets of these entries: values from the environment, URLs and passwords.

    A variable that is not set in this process is ignored, because the worker may have others.
    """
    found = Secrets(environ)
    for entry in entries:
        for key, value in entry.options.items():
            found.put_in(value, key)
    found.values.update(environ.get(name, "") for name in OF_STORAGE)
    return frozenset(found.values - {""})


@dataclass(slots=True)
class Secrets:
    """Replaces `${NAME}` with values from the environment; collects secrets and missing names."""

    environ: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    values: set[str] = field(default_factory=set)

    def put_in(self, value: Any, key: str) -> Any:
        """Return the value of an option with each `${NAME}` in it replaced."""
        if isinstance(value, list):
            return [self.put_in(item, key) for item in value]
        if isinstance(value, Mapping):
            return {name: self.put_in(item, f"{key}.{name}") for name, item in value.items()}
        if not isinstance(value, str):
            return value
        text = PLACE_OF_A_SECRET.sub(lambda found: self._value(found[1], key), value)
        is_url = "://" in text and not text.startswith(BUCKET) and key not in TEMPLATE_KEYS
        is_named = any(word in key.lower() for word in SECRET_KEYS) and key not in PUBLIC_KEYS
        if is_url or is_named:
            self.values.add(text)
        return text

    def _value(self, name: str, key: str) -> str:
        value = self._found(name, key)
        if key not in PUBLIC_KEYS:
            self.values.add(value)
        return value

    def _found(self, name: str, key: str) -> str:
        if self.environ.get(name):
            return self.environ[name]
        path = self.environ.get(f"{name}_FILE")
        if not path:
            self.problems.append(f"{key}: {name} {NOT_SET} (nor is {name}_FILE)")
            return ""
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            self.problems.append(f"{key}: {name}_FILE: {path} is not a readable file")
            return ""
