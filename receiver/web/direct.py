"""Takes an ordinary callback as the Flask view does, by the same rules, without Flask.

It refuses nothing itself: what it does not take goes to the view, which says why.
"""

from __future__ import annotations

import time

import structlog
from structlog.contextvars import bind_contextvars

from receiver import measures, providers, signing, standard_webhooks
from receiver.clock import now_ms
from receiver.errors import StoreUnavailable
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.later import Later
from receiver.settings import Settings
from receiver.tasks import Outcome, Trust
from receiver.web import headers, requestlog
from receiver.web.callbacks import ROUTE, signers
from receiver.web.ordinary import Ordinary

log = structlog.get_logger()


class Direct:
    """The way in for callbacks that are trusted by their token."""

    def __init__(self, ingest: Ingest, settings: Settings, hand_over: Later) -> None:
        self._ingest, self._hand_over = ingest, hand_over
        self._settings = settings
        self._rooms = {room.name: room for room in providers.ROOMS if room.has_callbacks}

    def close(self) -> None:
        """Release the record, and stop handing over metrics."""
        self._hand_over.close()
        self._ingest.store.close()

    def take(self, request: Ordinary) -> tuple[Outcome, str] | None:
        """Its outcome, durably on record, and the request's id; None: it was not taken.

        Raises StoreUnavailable: to try again at once would not help.
        """
        began = time.perf_counter()
        if request.provider not in self._rooms or not self._has_token(request):
            return None
        is_behind_proxy = self._settings.trusted_proxies > 0
        host = request.headers["Host"]
        if is_behind_proxy and request.headers.get("X-Forwarded-Host", host) != host:
            return None  # the view knows which of them is meant
        given = request.headers.get(requestlog.REQUEST_ID, "") if is_behind_proxy else ""
        request_id = requestlog.named(given)
        bind_contextvars(request_id=request_id, task=request.task_id)
        outcome = self._recorded(request)
        if outcome is None:
            return None
        took = time.perf_counter() - began
        self._ingest.meter.observe(measures.CALLBACK_SECONDS, took, "200")
        self._hand_over.ask()
        log.info("request", method="POST", route=ROUTE, status=200, ms=round(took * 1000, 1))
        return outcome, request_id

    def _has_token(self, request: Ordinary) -> bool:
        secrets = self._settings.callback_secrets
        return signing.check(secrets, request.provider, request.task_id, request.token)

    def _recorded(self, request: Ordinary) -> Outcome | None:
        try:
            callback = Callback(
                provider=request.provider,
                task_id=request.task_id,
                body=request.body,
                received_at=now_ms(),
                headers=headers.kept(request.headers.items(), request.token),
                trust=self._trust(request),
            )
            event = self._rooms[request.provider].parse(callback)
            return self._ingest.take(callback, event)
        except StoreUnavailable:
            raise
        except Exception:  # noqa: BLE001 - the view meets it again, and answers for it
            return None

    def _trust(self, request: Ordinary) -> Trust:
        """Raises BadSignature."""
        secrets = signers(self._settings, request.provider, request.headers.items())
        if not secrets:
            return Trust.TOKEN
        named = headers.lowered(request.headers.items())
        standard_webhooks.verify(secrets, named, request.body, now_ms() / 1000)
        return Trust.SIGNED
