"""A callback as it is sent, and how it is sent."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

Sign = Callable[[str, int, bytes], Mapping[str, str]]
"""Returns the headers that sign a message id, a time (Unix seconds) and a body."""


class Transmission(Enum):
    """The way in which a callback is transmitted."""

    WHOLE = auto()
    BROKEN_OFF = auto()  # the connection is closed before the announced length was sent
    HANGS_UP = auto()  # sent completely, then closed before the response


@dataclass(frozen=True)
class OutgoingCallback:
    """One callback of a task.

    `delay`: number of paces before it is queued for its task. `held`: it is queued right after the
    final callback, in reverse order. Without `insisted`, it is sent once, whatever the response is.
    """

    provider: str
    task_id: str
    external_task_id: str | None
    status: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    delay: float = 0.0
    held: bool = False
    transmission: Transmission = Transmission.WHOLE
    insisted: bool = True
    copies: int = 1  # sent concurrently
    method: str = "POST"
    sign: Sign | None = field(default=None, compare=False)

    def signed(self, sent_at: int | None = None) -> OutgoingCallback:
        """Return a copy with a new signature, if the provider signs."""
        if self.sign is None:
            return self
        at = int(time.time()) if sent_at is None else sent_at
        added = self.sign(str(uuid.uuid4()), at, self.body)
        return replace(self, headers={**self.headers, **added})

    def with_fields(self, **changes: Any) -> OutgoingCallback:
        """Return a copy with these keys of its JSON changed, signed again."""
        document = {**self.document, **changes}
        # A lone surrogate cannot be encoded, but JSON allows its escape.
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        body = text.encode(errors="backslashreplace")
        status = str(document.get("task_status", document.get("status", self.status)))
        return replace(self, body=body, status=status).signed()

    def with_body(self, body: bytes, **headers: str) -> OutgoingCallback:
        """Return a copy with this body and these headers, signed again."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, body=body, headers={**self.headers, **named}).signed()

    @property
    def document(self) -> dict[str, Any]:
        """Return the parsed JSON body."""
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def is_end(self) -> bool:
        return self.status in ("succeed", "succeeded", "failed")
