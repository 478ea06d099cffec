"""The JSON object that a hook of your own returns, for the hooks that wait for it.

By then the hook has done its work. An object that cannot be stored is therefore no failure of the
delivery; its stored answer says what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from receiver.errors import RequestRefused
from receiver.hooks.base import Done
from receiver.providers.json_body import decode_strictly

MAX_OBJECT = 16 * 1024  # bytes of compact JSON in UTF-8
MAX_PRINTED = 4 * MAX_OBJECT  # bytes of the same with spaces and escapes


def done(answer: str, returned: Mapping[Any, Any]) -> Done:
    """Return the outcome of a function that returned an object."""
    try:
        content = _compact(returned)
    except RecursionError:
        return _not_stored(answer, "it is nested too deeply")
    except (TypeError, ValueError) as error:  # such as a date, NaN, or half of a surrogate pair
        return _not_stored(answer, f"it is not JSON: {error}")
    return printed(answer, content)


def printed(answer: str, text: bytes) -> Done:
    """Return the outcome of a command that printed this text: a JSON object, or anything else."""
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
