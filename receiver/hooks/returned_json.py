"""Reads the JSON object that a `python` or `command` hook returns for the hooks that wait for it.

The hook has done its work by then, so the delivery succeeds even if the object cannot be stored;
the stored answer states the problem.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from receiver.errors import RequestRefused
from receiver.hooks.base import Done
from receiver.providers.json_body import decode_strictly

MAX_OBJECT = 16 * 1024  # bytes of compact JSON in UTF-8
MAX_PRINTED = 4 * MAX_OBJECT  # bytes of JSON with spaces and escapes


def checked(outcome: Done) -> Done:
    """Return the outcome of any hook, without its output if that cannot be stored."""
    return replace(done(outcome.answer, outcome.output), files=outcome.files)


def done(answer: str, returned: object) -> Done:
    """Return the outcome of a function that returned an object."""
    if not isinstance(returned, Mapping):  # from a hook of another package
        return _not_stored(answer, "it is not an object")
    try:
        content = _compact(returned)
    except RecursionError:
        return _not_stored(answer, "it is nested too deeply")
    except (TypeError, ValueError) as error:  # such as for a date, NaN, or a lone surrogate
        return _not_stored(answer, f"it is not JSON: {error}")
    return printed(answer, content)


def printed(answer: str, text: bytes) -> Done:
    """Return the result of a command that printed this text, which may be a JSON object."""
    if not text.lstrip().startswith(b"{"):
        return Done(answer)
    try:
        output = decode_strictly(text) if len(text) <= MAX_PRINTED else {}
    except RequestRefused as refusal:
        return _not_stored(answer, str(refusal).replace("the body", "it"))
    if len(text) > MAX_PRINTED or len(_compact(output)) > MAX_OBJECT:
        return _not_stored(answer, f"it has more than {MAX_OBJECT:,} bytes")
    return Done(answer, output=output)


def _compact(document: Mapping[Any, Any]) -> bytes:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def _not_stored(answer: str, reason: str) -> Done:
    return Done(f"{answer} (the object that it returned is not stored: {reason})")
