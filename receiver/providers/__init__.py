"""The provider adapters of the receiver: they verify the callbacks of a provider and parse them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from marshmallow import Schema

from receiver.config.plugins import PROVIDERS as ENTRY_POINTS
from receiver.errors import NotJson, RequestRefused, UnknownCallbackUrl
from receiver.events import Callback, Event
from receiver.providers.appypie import AppyPie
from receiver.providers.base import Provider
from receiver.providers.fields import decode
from receiver.providers.kling import Kling
from receiver.providers.modellix import Modellix
from receiver.providers.registry import Registry, members_of
from receiver.tasks import Status
from receiver.text.content_encoding import HEADER
from receiver.text.display import HIDDEN, redacted_path, shortened

# Characters of a provider's reason; the longest documented one has about 200. The stored body
# contains all of it.
MAX_REASON = 1_000
_ADAPTERS: tuple[Provider, ...] = (Kling(), Modellix(), AppyPie())
_BUILT_IN = {adapter.name: adapter for adapter in _ADAPTERS}
PROVIDERS: Registry[Provider] = Registry(
    ENTRY_POINTS,
    _BUILT_IN,
    members_of(Provider),
    make=lambda adapter_class: adapter_class(),
)


def get(name: str) -> Provider:
    """Return the adapter of this provider. Raises UnknownCallbackUrl."""
    adapter = _BUILT_IN.get(name) or PROVIDERS.get(name)
    if adapter is None:
        shown = redacted_path("/" + name)[1:]
        raise UnknownCallbackUrl(f'unknown provider "{shown}"', "unknown_provider")
    return adapter


def parse(callback: Callback) -> Event:
    """Parse a message with the adapter of its provider, after decoding its Content-Encoding.

    Raises NotJson, BodyTooLong, NotTheProtocol, UnknownCallbackUrl.
    """
    received, codings = callback.body, callback.headers.get(HEADER)
    if codings:
        callback = replace(callback, body=callback.content)
    try:
        event = get(callback.provider).parse(callback)
    except NotJson as error:
        if codings and callback.body is received:  # nothing was decoded
            raise NotJson(f"{error}; its {HEADER} is {codings[:40]!r}") from None
        raise
    if event.reason and len(event.reason) > MAX_REASON:
        return replace(event, reason=shortened(event.reason, MAX_REASON))
    return event


def status_for(spelling: str) -> Status | None:
    """Return our status for a provider's spelling of it; None if no provider uses it."""
    known = (adapter.statuses.get(spelling.lower()) for adapter in PROVIDERS.values())
    return next((status for status in known if status), None)


def callback_schemas() -> tuple[type[Schema], ...]:
    """Return the schemas of the callbacks of all providers, each once."""
    return tuple(dict.fromkeys(one for adapter in PROVIDERS.values() for one in adapter.schemas))


def without_secrets(callback: Callback) -> Callback:
    """Return the callback with the values of the provider's secret fields replaced.

    A body that is not JSON has no such fields, and is returned as it is.
    """
    paths = get(callback.provider).secret_fields
    if not paths:
        return callback
    try:
        content = callback.content
        document = decode(content)
    except RequestRefused:
        return callback
    secrets = [value for path in paths for value in _replace(document, path.split("."))]
    if not secrets:
        return callback
    headers = {name: value for name, value in callback.headers.items() if name != HEADER}
    return replace(callback, body=_replaced(content, secrets, document), headers=headers)


def _replace(value: Any, path: list[str]) -> Iterator[Any]:
    """Replace the values at a path in the document, and yield each."""
    if isinstance(value, list):
        for entry in value:
            yield from _replace(entry, path)
    if not isinstance(value, dict) or path[0] not in value:
        return
    if path[1:]:
        yield from _replace(value[path[0]], path[1:])
    elif value[path[0]] not in (None, "", HIDDEN):
        yield value[path[0]]
        value[path[0]] = HIDDEN


def _replaced(content: bytes, secrets: list[Any], document: Mapping[str, Any]) -> bytes:
    """Return the content without the secrets, and otherwise unchanged if that is possible."""
    for secret in secrets:
        written = {json.dumps(secret).encode()}
        if isinstance(secret, str):
            written.add(json.dumps(secret, ensure_ascii=False).encode(errors="replace"))
        found = next((spelling for spelling in written if spelling in content), None)
        if found is None or not isinstance(secret, str):
            return json.dumps(document).encode()
        content = content.replace(found, json.dumps(HIDDEN).encode())
    return content


__all__ = [
    "PROVIDERS",
    "Provider",
    "callback_schemas",
    "get",
    "parse",
    "status_for",
    "without_secrets",
]
