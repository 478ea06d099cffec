"""Takes a callback without Flask, by the rules of the Flask view.

It refuses nothing: what is not recorded here goes to the view, which says why.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from structlog.contextvars import bind_contextvars

from receiver import measures, providers
from receiver.clock import now_ms
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest
from receiver.later import Later
from receiver.settings import Settings
from receiver.web import problems, requestlog
from receiver.web.admission import Sent, admit
from receiver.web.callbacks import BODIES, ROUTE
from receiver.web.server.commits import Commits

if TYPE_CHECKING:
    import asyncio

LONGEST_BODY = 32 * 1024  # bytes; real ones are a few kB, and to parse a long one takes long
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; `headers`: by their names in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def _answer(status: int, body: str, kind: str, request_id: str, **more: str) -> Answer:
    raw = body.encode()
    headers = {"content-type": kind, "content-length": str(len(raw)), **more}
    return Answer(status, raw, headers | {"x-request-id": request_id})


class Callbacks:
    """The way in for callbacks whose address has a token."""

    def __init__(self, ingest: Ingest, settings: Settings, hand_over: Later) -> None:
        self._ingest, self._settings, self._hand_over = ingest, settings, hand_over
        self._is_behind_proxy = settings.trusted_proxies > 0
        self._commits: Commits | None = None

    def serve_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """To be called once, before the first callback is taken."""
        self._commits = Commits(self._ingest.store.writer, loop)

    def close(self) -> None:
        """Release the record, and stop handing over metrics."""
        self._hand_over.close()
        self._ingest.store.close()

    async def take(self, sent: Sent, body: bytes) -> Answer | None:
        """Record it, and answer once it is durable; None: it is for the Flask view."""
        began = time.perf_counter()
        if len(body) > LONGEST_BODY or self._has_another_host(sent.headers):
            return None
        try:
            callback = admit(self._settings, sent, body, now_ms())
            event = providers.get(callback.provider).parse(callback)
        except Exception:  # noqa: BLE001 - the view meets it again, and answers for it
            return None
        given = sent.headers.get(requestlog.REQUEST_ID, "") if self._is_behind_proxy else ""
        request_id = requestlog.named(given)
        bind_contextvars(request_id=request_id, task=sent.task_id)
        assert self._commits is not None  # noqa: S101 - see `serve_in`
        try:
            outcome = await self._commits.of(self._ingest.submit(callback, event))
        except StoreUnavailable as error:
            answer = self._unavailable(error, request_id)
        except Exception:  # noqa: BLE001 - as above; or it is to be done alone, which takes long
            return None
        else:
            self._ingest.count(callback, event, outcome)
            answer = _answer(200, BODIES[outcome], "application/json", request_id)
        self._report(answer.status, time.perf_counter() - began)
        return answer

    def _has_another_host(self, headers: Mapping[str, str]) -> bool:
        """Did a proxy hide the host that was asked for? The view knows which of them is meant."""
        host = headers.get("Host", "")
        return self._is_behind_proxy and headers.get("X-Forwarded-Host", host) != host

    def _unavailable(self, error: StoreUnavailable, request_id: str) -> Answer:
        log.error("the record is unavailable", error=str(error))
        self._ingest.meter.store_failed()
        document = problems.document(503, problems.NOT_STORED)
        retry_after = {"retry-after": problems.seconds(error.retry_after)}
        return _answer(503, document, problems.MEDIA_TYPE, request_id, **retry_after)

    def _report(self, status: int, took: float) -> None:
        self._ingest.meter.observe(measures.CALLBACK_SECONDS, took, str(status))
        self._hand_over.ask()
        say = log.info if status < 400 else log.warning
        say("request", method="POST", route=ROUTE, status=status, ms=round(took * 1000, 1))
