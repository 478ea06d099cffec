"""Handles callbacks without Flask, by the same rules as the Flask view.

Only valid callbacks are recorded here. Every other request is passed to the view, which reports the
error to the client.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from structlog.contextvars import bound_contextvars

from receiver import providers
from receiver.clock import now_ms, wall_ms
from receiver.config.settings import Settings
from receiver.errors import StoreUnavailable
from receiver.events import Callback, Event
from receiver.ingest import Ingest
from receiver.observability import metrics
from receiver.text import content_encoding
from receiver.web import problems, requestlog
from receiver.web.admission import CallbackRequest, admit
from receiver.web.callbacks import BODIES, ROUTE
from receiver.web.debounce import Debouncer
from receiver.web.server.commits import CommitNotifier

if TYPE_CHECKING:
    import asyncio

LONGEST_BODY = 32 * 1024  # bytes; real ones are a few kB, and parsing a long one blocks the loop
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CallbackResponse:
    """A complete response. The names in `headers` are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def _answer(status: int, body: str, kind: str, request_id: str, **more: str) -> CallbackResponse:
    raw = body.encode()
    headers = {"content-type": kind, "content-length": str(len(raw)), **more}
    return CallbackResponse(status, raw, headers | {"x-request-id": request_id})


class CallbackApp:
    """Records callbacks that have a token in their URL."""

    def __init__(self, ingest: Ingest, settings: Settings, hand_over: Debouncer) -> None:
        self._ingest, self._settings, self._hand_over = ingest, settings, hand_over
        self._is_behind_proxy = settings.trusted_proxies > 0
        self._commits: CommitNotifier | None = None

    def serve_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Attach to the event loop. Call this once, before the first `take`."""
        self._commits = CommitNotifier(self._ingest.store.writer, loop)

    def close(self) -> None:
        """Close the store and stop flushing metrics to it."""
        self._hand_over.close()
        self._ingest.store.close()

    async def take(self, sent: CallbackRequest, body: bytes) -> CallbackResponse | None:
        """Record the callback and return the response after its commit.

        Returns None if the Flask view has to handle the request.
        """
        began = time.perf_counter()
        if (
            len(body) > LONGEST_BODY
            or content_encoding.HEADER in sent.headers  # decompression could block the event loop
            or self._has_another_host(sent.headers)
        ):
            return None
        try:
            callback = admit(self._settings, sent, body, now_ms(), wall_ms())
            event = providers.parse(callback)
        except Exception:  # noqa: BLE001 - the view raises the same error and reports it
            return None
        given = sent.headers.get(requestlog.REQUEST_ID, "") if self._is_behind_proxy else ""
        request_id = requestlog.request_id(given)
        with bound_contextvars(request_id=request_id, task=sent.task_id):
            answer = await self._record(callback, event, request_id)
            if answer is not None:
                self._report(answer.status, time.perf_counter() - began)
        return answer

    async def _record(
        self, callback: Callback, event: Event, request_id: str
    ) -> CallbackResponse | None:
        assert self._commits is not None  # noqa: S101 - set by `serve_in`
        try:
            outcome = await self._commits.of(self._ingest.submit(callback, event))
        except StoreUnavailable as error:
            return self._unavailable(error, request_id)
        except Exception:  # noqa: BLE001 - as above; or Undone: the view repeats the write alone
            return None
        self._ingest.count(callback, event, outcome)
        return _answer(200, BODIES[outcome], "application/json", request_id)

    def _has_another_host(self, headers: Mapping[str, str]) -> bool:
        """Whether a proxy replaced the Host header; the view then determines the original host."""
        host = headers.get("Host", "")
        return self._is_behind_proxy and headers.get("X-Forwarded-Host", host) != host

    def _unavailable(self, error: StoreUnavailable, request_id: str) -> CallbackResponse:
        log.error("the record is unavailable", error=str(error))
        self._ingest.meter.store_failed()
        document = problems.document(503, problems.NOT_STORED)
        retry_after = {"retry-after": problems.seconds(error.retry_after)}
        return _answer(503, document, problems.MEDIA_TYPE, request_id, **retry_after)

    def _report(self, status: int, took: float) -> None:
        self._ingest.meter.observe(metrics.CALLBACK_SECONDS, took, str(status))
        self._hand_over.ask()
        write_line = log.info if status < 400 else log.warning
        write_line("request", method="POST", route=ROUTE, status=status, ms=round(took * 1000, 1))
