"""A callback as it goes over the wire, and how it goes."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

Sign = Callable[[str, int, bytes], Mapping[str, str]]
"""Headers that sign this message id, this instant (Unix seconds) and this body."""


class Transmission(Enum):
    """What is done on the wire."""

    WHOLE = auto()
    BROKEN_OFF = auto()  # more is announced than sent, and then hung up
    HANGS_UP = auto()  # sent whole, and hung up before the answer


@dataclass(frozen=True)
class OutgoingCallback:
    """One callback, and whose it is.

    `delay`, in paces: how long it waits before it joins the line of its task. What is `held` joins
    it right after the task's end, the last first. What is not `insisted` on is sent once, whatever
    is answered.
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
    manner: Transmission = Transmission.WHOLE
    insisted: bool = True
    copies: int = 1  # sent at the same moment
    method: str = "POST"
    sign: Sign | None = field(default=None, compare=False)

    def signed(self, sent_at: int | None = None) -> OutgoingCallback:
        """The same with a signature of its own, where the provider signs."""
        if self.sign is None:
            return self
        at = int(time.time()) if sent_at is None else sent_at
        added = self.sign(str(uuid.uuid4()), at, self.body)
        return replace(self, headers={**self.headers, **added})

    def saying(self, **changes: Any) -> OutgoingCallback:
        """The same with these keys of its JSON changed, signed anew."""
        document = {**self.document, **changes}
        # A lone surrogate cannot be encoded, but JSON allows its escape.
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        body = text.encode(errors="backslashreplace")
        status = str(document.get("task_status", document.get("status", self.status)))
        return replace(self, body=body, status=status).signed()

    def sending(self, body: bytes, **headers: str) -> OutgoingCallback:
        """Return a copy with this body and these headers, signed again."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, body=body, headers={**self.headers, **named}).signed()

    @property
    def document(self) -> dict[str, Any]:
        """The parsed JSON body."""
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def is_end(self) -> bool:
        return self.status in ("succeed", "succeeded", "failed")
