"""How the keys of a hook's own type are checked: by a schema, every mistake named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from string import Formatter
from typing import Any
from urllib.parse import urlsplit

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from receiver.config.hooks_file import either, lines
from receiver.errors import SettingsError


class Options(Schema):
    """The base of every room's schema; messages never show a value, which may be a secret."""

    class Meta:
        unknown = RAISE

    def handle_error(self, error: ValidationError, data: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Name the known keys beside an unknown one."""
        known = either(sorted(field.data_key or name for name, field in self.fields.items()))
        for messages in error.messages_dict.values():
            if isinstance(messages, list) and self.error_messages["unknown"] in messages:
                messages[:] = [f"is not an option of this type; use {known}"]


def checked(schema: Options, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with defaults put in. Raises SettingsError with a line for each wrong key."""
    try:
        return dict(schema.load(given))
    except ValidationError as error:
        raise SettingsError(list(lines(error.messages))) from None  # it holds the values


def seconds(default: float) -> fields.Float:
    """A duration that is not absurd: half a second to an hour."""
    return fields.Float(
        load_default=default,
        validate=validate.Range(0.5, 3600, error="use 0.5 to 3600 seconds"),
    )


def http_url(value: str) -> None:
    """Validator: a URL that the guarded session can use."""
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValidationError("is not a URL; use one like https://example.com/path")


def placeholders(template: str, known: Collection[str]) -> frozenset[str]:
    """The names in a template such as `{task} {status}`.

    Raises ValidationError if it holds others than the known ones, or is no template.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValidationError(f"is not a template: {error}") from None
    found = frozenset(name for _, name, _, _ in parts if name is not None)
    if not found <= set(known) or any(spec or conversion for _, _, spec, conversion in parts):
        raise ValidationError(f"use {either([f'{{{name}}}' for name in known])}")
    return found
