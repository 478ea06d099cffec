"""Finds the options of hook types that are templates."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from receiver.hooks.base import HookType
from receiver.hooks.brokers.base import BrokerOptions
from receiver.hooks.options import Options
from receiver.hooks.queue import Queue
from receiver.hooks.templates import TemplateField

SUBJECT = ("email", "subject")  # also supports placeholders, so its field is a plain string


def templates_of(types: Mapping[str, HookType]) -> Iterator[tuple[str, str]]:
    """Yield the type and the key of each option that is a template, or a table of templates."""
    yield SUBJECT
    for name, type_ in types.items():
        for schema in _schemas(type_):
            for key, field in schema().fields.items():
                if isinstance(getattr(field, "value_field", field), TemplateField):
                    yield name, key


def _schemas(type_: Any) -> Iterator[type[Options]]:
    if type_ is Queue:
        yield BrokerOptions  # of all brokers
    for schema in vars(sys.modules[type_.__module__]).values():
        if inspect.isclass(schema) and issubclass(schema, Options) and schema is not Options:
            yield schema
