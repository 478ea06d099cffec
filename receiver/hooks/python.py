"""Calls a function of your own with the event, on a thread of the worker."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from marshmallow import fields, validate

from receiver.deliveries import Notice
from receiver.errors import ContentFailure, DeliveryFailure, SettingsError
from receiver.hooks import returned_json
from receiver.hooks.base import Done, Preview
from receiver.hooks.options import Options, checked
from receiver.text.display import json_readable, one_line

DOTTED_NAME = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"


class PythonOptions(Options):
    """The keys of a hook of type python."""

    call = fields.String(
        required=True,
        validate=validate.Regexp(
            rf"{DOTTED_NAME}:{DOTTED_NAME}\Z",
            error="is not module:function; use one like shop.tryon:on_result",
        ),
    )


class Python:
    """Calls a function with the event as a new dict.

    Returning means success. A returned text is stored as the answer, and a returned object (a dict
    of JSON values) as the output for the hooks that wait for this one. The DeliveryFailures of
    `receiver.errors` control retries. Any other exception is retried, and its traceback is stored:
    an OSError, such as a broken connection, is a temporary failure; everything else is a content
    failure. There is no time limit, because a thread cannot be stopped from outside.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._call: str = checked(PythonOptions(), options)["call"]
        self._function = load_function(self._call)

    def send(self, notice: Notice) -> Done:
        try:
            answer = self._function(notice.as_json())
        except DeliveryFailure:
            raise
        except (SystemExit, GeneratorExit) as error:
            # They would end the thread of the worker without an error.
            raise ContentFailure(f"the function raised {type(error).__name__}: {error}") from error
        if isinstance(answer, Mapping):
            return returned_json.done("returned an object", answer)
        text = one_line(answer) if isinstance(answer, str) else ""
        return Done(text or "returned")

    def preview(self, notice: Notice) -> Preview:
        """Return the function that `send` would call, and its argument."""
        return Preview(f"call of {self._call}", {}, json_readable(notice.as_json()))


def load_function(call: str) -> Callable[[dict[str, Any]], Any]:
    """Return the function that `module:function` names. Raises SettingsError.

    Modules in the working directory are found as well, as with `python -m`.
    """
    module_name, _, path = call.partition(":")
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path holds strings
        sys.path.insert(0, here)
    try:
        target: Any = import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError([f"call: {module_name} cannot be imported: {reason}"]) from error
    for part in path.split("."):
        if not hasattr(target, part):
            raise SettingsError([f"call: {module_name} has no {path}"])
        target = getattr(target, part)
    if not callable(target):
        raise SettingsError([f"call: {call} is not a function"])
    if inspect.iscoroutinefunction(target):
        raise SettingsError([f"call: {call} is async; name a function that waits for it"])
    function: Callable[[dict[str, Any]], Any] = target
    return function
