"""The register of provider rooms."""

from __future__ import annotations

from dataclasses import replace

from receiver.errors import NotJson, UnknownCallbackUrl
from receiver.events import Callback, Event
from receiver.providers.appypie import AppyPie
from receiver.providers.base import Provider
from receiver.providers.kling import Kling
from receiver.providers.modellix import Modellix
from receiver.text.content_encoding import HEADER
from receiver.text.redaction import shortened

# Characters of a provider's reason; the longest documented one has about 200. The stored body
# contains all of it.
LONGEST_REASON = 1_000
ROOMS: tuple[Provider, ...] = (Kling(), Modellix(), AppyPie())
PROVIDERS: dict[str, Provider] = {room.name: room for room in ROOMS}


def get(name: str) -> Provider:
    """The room of this provider. Raises UnknownCallbackUrl."""
    try:
        return PROVIDERS[name]
    except KeyError:
        raise UnknownCallbackUrl(f"no provider {name!r}", "unknown_provider") from None


def parse(callback: Callback) -> Event:
    """Parse a message with the adapter of its provider, after decoding its Content-Encoding.

    Raises NotJson, BodyTooLong, NotTheProtocol, UnknownCallbackUrl.
    """
    content = callback.content
    if content is not callback.body:
        callback = replace(callback, body=content)
    try:
        event = get(callback.provider).parse(callback)
    except NotJson as error:
        codings = callback.headers.get(HEADER)
        if codings and content is callback.body:
            raise NotJson(f"{error}; its {HEADER} is {codings[:40]!r}") from None
        raise
    if event.reason and len(event.reason) > LONGEST_REASON:
        return replace(event, reason=shortened(event.reason, LONGEST_REASON))
    return event


def status_for(word: str) -> str | None:
    """Our status for any provider's spelling of one, or None if nobody spells a status so."""
    found = (room.status(word) for room in PROVIDERS.values())
    return next((status for status in found if status), None)


__all__ = ["PROVIDERS", "Provider", "get", "parse", "status_for"]
