"""Finds the options of hook types that are templates."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from receiver.hooks.base import HookType
from receiver.hooks.options import Options
from receiver.hooks.templates import TemplateField

SUBJECT = ("email", "subject")  # also supports placeholders, so its field is a plain string


def templates_of(types: Mapping[str, HookType]) -> Iterator[tuple[str, str]]:
    """Yield the type and the key of each option that is a template, or a table of templates."""
    yield SUBJECT
    for name, type_ in types.items():
        module: Any = sys.modules[inspect.getmodule(type_).__name__]  # type: ignore[union-attr]
        for schema in vars(module).values():
            if inspect.isclass(schema) and issubclass(schema, Options) and schema is not Options:
                for key, field in schema().fields.items():
                    if isinstance(getattr(field, "value_field", field), TemplateField):
                        yield name, key
