"""Checks the keys of a hook type with a schema, and reports every mistake by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from string import Formatter
from typing import Any
from urllib.parse import urlsplit

from marshmallow import Schema, ValidationError, fields, validate

from receiver.config.hooks_file import HOOK_KEYS, either, lines
from receiver.errors import SettingsError

NOT_EMPTY = validate.Length(min=1, error="is empty")


class Options(Schema):
    """The base of all schemas. Messages never contain a value, because it may be a secret."""

    def handle_error(self, error: ValidationError, data: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Name a similar key in the message for an unknown one, or list the known keys."""
        known = sorted(field.data_key or name for name, field in self.fields.items())
        for key, messages in error.messages_dict.items():
            if isinstance(messages, list) and self.error_messages["unknown"] in messages:
                similar = get_close_matches(str(key)[:40], (*HOOK_KEYS, *known), 1, 0.55)
                advice = f"did you mean {similar[0]}?" if similar else f"use {either(known)}"
                messages[:] = [f"is not an option of this type; {advice}"]


def checked(schema: Options, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with defaults. Raises SettingsError with a line for each wrong key."""
    try:
        return dict(schema.load(options))
    except ValidationError as error:
        raise SettingsError(list(lines(error.messages))) from None  # the error contains values


def seconds(default: float) -> fields.Float:
    """Return a field for a duration of half a second to an hour."""
    limits = validate.Range(0.5, 3600, error="use 0.5 to 3600 seconds")
    return fields.Float(load_default=default, validate=limits)


def http_url(value: str) -> None:
    """Validate an http or https URL with a host."""
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValidationError("is not a URL; use one like https://example.com/path")


def placeholders(template: str, known: Collection[str]) -> frozenset[str]:
    """Return the placeholders in a template such as `{task} {status}`.

    Raises ValidationError for an unknown placeholder, or if the text is not a template.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValidationError(f"is not a template: {error}") from None
    found = frozenset(name for _, name, _, _ in parts if name is not None)
    if not found <= set(known) or any(spec or conversion for _, _, spec, conversion in parts):
        raise ValidationError(f"use {either([f'{{{name}}}' for name in known])}")
    return found
