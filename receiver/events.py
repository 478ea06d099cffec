"""A callback as received, and the event that a provider adapter parsed from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from receiver.errors import RequestRefused
from receiver.tasks import Status, Trust
from receiver.text import content_encoding

LONGEST_EMPTY = 64  # bytes of a body without any content
BYTE_ORDER_MARK = "\ufeff"


class Source(StrEnum):
    """The source of a provider's message."""

    CALLBACK = "callback"  # a request of the provider
    CREATE = "create"  # the response to our create request
    QUERY = "query"  # the response to our query


@dataclass(frozen=True, slots=True)
class Callback:
    """One raw message of a provider about one task, stored byte for byte.

    `headers` contains the Content-Encoding of the body, if there is one, under exactly this name.
    """

    provider: str
    task_id: str | None  # our id, from the callback URL; None for a signed callback without a token
    body: bytes
    received_at: int  # milliseconds UTC
    headers: Mapping[str, str] = field(default_factory=dict)
    source: Source = Source.CALLBACK
    trust: Trust = Trust.TOKEN

    @property
    def content(self) -> bytes:
        """The body after decoding its Content-Encoding. Raises NotJson, BodyTooLong."""
        codings = self.headers.get(content_encoding.HEADER)
        return content_encoding.decoded(self.body, codings) if codings else self.body

    @property
    def readable(self) -> bytes:
        """The content, or the body as received if it cannot be decompressed."""
        try:
            return self.content
        except RequestRefused:
            return self.body

    @property
    def is_empty(self) -> bool:
        """Whether the body is empty, or is JSON without any content, such as `{}`."""
        content = self.readable
        if len(content) > LONGEST_EMPTY:
            return False
        text = content.decode(json.detect_encoding(content), "replace").lstrip(BYTE_ORDER_MARK)
        return "".join(text.split()) in ("", "{}", "[]", "null", '""')

    @property
    def digest(self) -> bytes:
        """16 bytes that are equal for equal contents, independent of the Content-Encoding."""
        return hashlib.blake2b(self.readable, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Media:
    """One output of a task, as the provider describes it."""

    kind: str  # image, video, audio, …
    url: str
    index: str = "0"  # the provider's index or id of this output
    watermark_url: str | None = None
    duration: str | None = None  # seconds, a decimal string as the provider wrote it
    expires_at: int | None = None  # milliseconds UTC, if the provider states it


@dataclass(frozen=True, slots=True)
class Event:
    """The meaning of a callback, in the same form for every provider."""

    provider: str
    provider_task_id: str
    status: Status
    occurred_at: int  # milliseconds UTC: the provider's `updated_at`, or the time of receipt
    reason: str | None = None
    media: tuple[Media, ...] = ()
    external_task_id: str | None = None
    cost: str | None = None
    cost_unit: str | None = None  # "units" of the provider, or a currency
    unknown: Mapping[str, Any] = field(default_factory=dict)  # keys that are not in the schema
    dropped: tuple[str, ...] = ()  # fields that were invalid, each with what was expected
    lost_outputs: tuple[str, ...] = ()  # those in `dropped` that left an output out
