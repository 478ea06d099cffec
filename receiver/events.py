"""A callback as it came, and the event it means once its provider's room has parsed it."""

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
    """How a provider's words reached us."""

    CALLBACK = "callback"  # the provider posted them
    CREATE = "create"  # the answer to our create call
    QUERY = "query"  # the answer to our question


@dataclass(frozen=True, slots=True)
class Callback:
    """One raw message of a provider about one task: kept byte for byte.

    `headers` contains the body's Content-Encoding, if there is one, under exactly this name.
    """

    provider: str
    task_id: str | None  # ours, as in the callback URL; None: signed, and posted without a token
    body: bytes
    received_at: int  # integer milliseconds UTC
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
    expires_at: int | None = None  # integer milliseconds UTC, as far as the provider says


@dataclass(frozen=True, slots=True)
class Event:
    """What a callback means, the same for every provider."""

    provider: str
    provider_task_id: str
    status: Status
    occurred_at: int  # integer milliseconds UTC: the provider's `updated_at`, else receipt
    reason: str | None = None
    media: tuple[Media, ...] = ()
    external_task_id: str | None = None
    cost: str | None = None
    cost_unit: str | None = None  # "units" of the provider, or a currency
    unknown: Mapping[str, Any] = field(default_factory=dict)  # keys the schema does not know
    dropped: tuple[str, ...] = ()  # fields that could not be used, each with what was expected
    lost_outputs: tuple[str, ...] = ()  # the `dropped` fields that leave an output out

    @property
    def must_be_fetched(self) -> bool:
        """Whether this is a success without its result, which a query has to fetch."""
        return self.status is Status.SUCCEEDED and not self.media
