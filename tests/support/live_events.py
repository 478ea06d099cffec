"""A client of server-sent events that shares no code with the product."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tests.support.patience import PATIENCE, wait_until

TOKEN = "a-token-for-the-tests"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
EVENTS = "/api/events"


@dataclass
class Message:
    """One block of the stream, up to an empty line."""

    id: str | None = None
    data: Any = None
    comments: list[str] = field(default_factory=list)
    retry: int | None = None


class EventStream:
    """A connection to the stream. `last_id` is what a browser would send when it reconnects."""

    def __init__(
        self, port: int, path: str = EVENTS, headers: Mapping[str, str] = AUTH, after: str = ""
    ) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        resume = {"Last-Event-ID": after} if after else {}
        self._connection.request("GET", path, headers={**headers, **resume})
        self.response = self._connection.getresponse()
        self.status = self.response.status
        self.last_id = after
        if self.status == http.HTTPStatus.OK:
            self.opening = self.message()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.close()

    def message(self) -> Message:
        """Return the next block. Raises EOFError at the end of the stream."""
        message = Message()
        while True:
            raw = self.response.readline()
            if not raw:
                raise EOFError("the stream has ended")
            line = raw.decode().rstrip("\n")
            if not line:
                return message
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "":
                message.comments.append(value)
            elif name == "id":
                message.id = self.last_id = value
            elif name == "retry":
                message.retry = int(value)
            elif name == "data":
                message.data = json.loads(value)

    def event(self) -> dict[str, Any]:
        """Return the next event."""
        while True:
            data = self.message().data
            if data is not None:
                found: dict[str, Any] = data
                return found

    def ids(self, number: int) -> list[str]:
        """Return the ids of the next events."""
        return [self.event()["id"] for _ in range(number)]

    def rest(self) -> list[Any]:
        """Return all further events until the stream ends."""
        events = []
        try:
            while True:
                if (data := self.message().data) is not None:
                    events.append(data)
        except (EOFError, http.client.IncompleteRead):
            return events

    @classmethod
    def opened(cls, *given: Any, **more: Any) -> EventStream:
        """Connect; retry while clients that have just left still count towards the limit."""
        found: list[EventStream] = []

        def is_accepted() -> bool:
            stream = cls(*given, **more)
            if stream.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
                stream.close()
                return False
            found.append(stream)
            return True

        wait_until(is_accepted)
        return found[0]

    def close(self) -> None:
        self.response.close()
        self._connection.close()
