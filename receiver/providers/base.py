"""The contract of every provider room on the way in (theirs → ours), and how JSON is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Protocol

from marshmallow import ValidationError

from receiver.errors import NotJson, NotTheProtocol
from receiver.events import Callback, Event


class Provider(Protocol):
    """What the receiver knows of one provider."""

    name: str

    def parse(self, callback: Callback) -> Event:
        """What the message means; pure, so that a stored one can be parsed again.

        Raises NotJson, or NotTheProtocol naming each field that is wrong.
        """
        ...

    def status(self, spelling: str) -> str | None:
        """Our status for the provider's spelling of one, or None if it has no such status."""
        ...


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Refuses what Python's reader would let through but nobody could store or repeat: NaN and
    Infinity, a key twice, lone surrogates. Raises NotJson, or NotTheProtocol for JSON that is no
    object.
    """
    try:
        document = json.loads(body, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        if b"\\u" in body:  # only an escape can hide a lone surrogate from the UTF-8 decoder
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise NotJson("the body is nested too deeply") from None
    except ValueError as error:  # malformed, not UTF-8, or an integer of absurd length
        raise NotJson(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise NotTheProtocol(f"expected a JSON object, got {type(document).__name__}")
    return document


def faults(error: ValidationError) -> str:
    """marshmallow's messages as one line that names each field."""
    messages: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return "; ".join(f"{name}: {_flat(texts)}" for name, texts in sorted(messages.items()))


def _flat(texts: Sequence[object] | Mapping[object, object]) -> str:
    if isinstance(texts, Mapping):
        return "; ".join(f"{name}: {text}" for name, text in texts.items())
    return " ".join(map(str, texts))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice")
    return document


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
