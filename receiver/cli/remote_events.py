"""Receives the live events of another installation, for `receiver tail --url`."""

from __future__ import annotations

import json
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from http import HTTPStatus
from threading import Event as Signal
from urllib.parse import urlencode

import click

from receiver.errors import DeliveryFailure
from receiver.outgoing import http
from receiver.outgoing.http import StreamedResponse, UrlRefused
from receiver.stores.sql.activity import Activity, ActivityKind
from receiver.tasks import Trust
from receiver.text.display import one_line, redacted

PATH = "/api/events"
MEDIA_TYPE = "text/event-stream"
SILENT_FOR = 45.0  # seconds; the server sends a heartbeat every 15 s
CONNECTED_WITHIN = 15.0  # seconds
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0  # seconds before reconnecting
LONGEST_LINE = 1024 * 1024  # bytes
LOOK_EVERY = 0.1  # seconds between two checks of `stop`


class StreamLost(Exception):
    """The connection failed or ended; reconnect after `retry_after` seconds, if it is set."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class RemoteEvents:
    """Receives new events, and resumes after lost connections."""

    def __init__(
        self, url: str, token: str, query: Mapping[str, str], warn: Callable[[str], object]
    ) -> None:
        self._url = redacted(url.rstrip("/"))  # for messages
        self._address = f"{url.rstrip('/')}{PATH}" + (f"?{urlencode(query)}" if query else "")
        self._token, self._warn = token, warn
        self._last_id = self._next_id = ""
        self._was_connected = False
        self._found: queue.SimpleQueue[Activity | Exception] = queue.SimpleQueue()

    def follow(self, stop: Signal) -> Iterator[list[Activity]]:
        """Yield status changes until `stop` is set.

        Raises ClickException if the first connection fails, or if a request is refused.
        """
        threading.Thread(target=self._receive, args=(stop,), daemon=True).start()
        while not stop.is_set():
            try:
                found = self._found.get(timeout=LOOK_EVERY)
            except queue.Empty:
                continue
            if isinstance(found, Exception):
                raise found
            yield [found]

    def _receive(self, stop: Signal) -> None:
        """Receive events on a separate thread, because a signal cannot interrupt a blocked read."""
        delay = FIRST_DELAY
        try:
            while not stop.is_set():
                before = self._last_id
                try:
                    self._read_stream()
                except StreamLost as lost:
                    if not self._was_connected and lost.retry_after is None:
                        raise click.ClickException(str(lost)) from None
                    delay = FIRST_DELAY if self._last_id != before else delay
                    pause = lost.retry_after or delay * random.uniform(0.75, 1.25)  # noqa: S311
                    self._warn(f"{lost}; reconnecting in {math.ceil(pause)} s")
                    stop.wait(pause)
                    delay = min(2 * delay, LONGEST_DELAY)
        except Exception as error:  # noqa: BLE001 - raised in the main thread
            self._found.put(error)

    def _read_stream(self) -> None:
        """Receive events over one connection. Raises StreamLost, ClickException."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": MEDIA_TYPE}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        try:
            with http.listen(
                self._address, headers, deadline=CONNECTED_WITHIN, silence=SILENT_FOR
            ) as response:
                self._check(response)
                self._was_connected = True
                self._read_lines(response.chunks)
        except UrlRefused as error:
            raise click.ClickException(f"{error}; correct --url") from None
        except DeliveryFailure as error:
            raise StreamLost(str(error)) from None
        raise StreamLost(f"{self._url}: the server ended the stream")

    def _check(self, response: StreamedResponse) -> None:
        """Raise an exception unless the response is a stream: StreamLost if a retry may succeed."""
        status = response.status
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        if status == HTTPStatus.OK and kind == MEDIA_TYPE:
            return
        if 300 <= status < 400:
            target = one_line(response.headers.get("Location", ""), 200)
            raise click.ClickException(
                f"{self._url} redirects to {target}; use the final address, because the token is "
                "not sent to another one"
            )
        if status == HTTPStatus.UNAUTHORIZED:
            remedy = "use the API_TOKEN of that installation (see --token-env)"
            raise click.ClickException(f"{self._url}: the token was refused; {remedy}")
        if status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise click.ClickException(
                f"{self._url}: there is no stream of events at {PATH}; check the address, and "
                "whether the receiver there supports live events"
            )
        problem = f"{self._url}: {status} {_detail(response.chunks)}".rstrip()
        if http.is_unavailable(status):
            retry_after = http.retry_after(response.headers.get("Retry-After"), time.time())
            raise StreamLost(problem, min(retry_after or FIRST_DELAY, LONGEST_DELAY))
        raise click.ClickException(problem)

    def _read_lines(self, chunks: Iterable[bytes]) -> None:
        rest = b""
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE:
                raise click.ClickException(f"{self._url}: a line of the stream is too long")
            for line in lines:
                self._read_line(line.decode("utf-8", "replace").rstrip("\r"))

    def _read_line(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._found.put(self._activity(value))
        elif name == "id":
            self._next_id = value
        elif not line:  # the event is complete
            self._last_id = self._next_id

    def _activity(self, text: str) -> Activity:
        try:
            event = json.loads(text)
            task = event["task"]
            trust = Trust(event["trust"]).text if event["trust"] else ""
            return Activity(
                ActivityKind.MOVE,
                (),
                round(datetime.fromisoformat(event["occurred_at"]).timestamp() * 1000),
                task["id"],
                task["provider"],
                task["account"],
                task["reference"],
                event["type"].removeprefix("task."),
                said=trust + (", corrected" if event["corrected"] else ""),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise click.ClickException(
                f"{self._url}: an event cannot be interpreted; this receiver may be too old for it"
            ) from None


def _detail(chunks: Iterable[bytes]) -> str:
    """Return the reason in an error response, on one line, or an empty string."""
    body = b""
    try:
        for chunk in chunks:
            body += chunk
            if len(body) > LONGEST_LINE:
                break
        return one_line(str(json.loads(body)["detail"]), 300)
    except (ValueError, KeyError, TypeError, RecursionError, DeliveryFailure):
        return ""
