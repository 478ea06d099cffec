"""Appy Pie, a reseller: Kling's legacy dialect, its own errors, and no signature.

Its callbacks probably come straight from Kling, signed (if at all) with a secret that its customer
does not hold.
"""

from __future__ import annotations

from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event, Source
from receiver.providers import kling_legacy
from receiver.providers.base import decode, repeated, text
from receiver.providers.fields import code_in


class AppyPie:
    """Answers of its gateway, and the callbacks of the jobs it passes on."""

    name = "appypie"
    has_callbacks = True
    shares_ids = (
        False  # its documentation does not say whether callbacks contain its ids or Kling's
    )

    def status(self, spelling: str) -> str | None:
        return kling_legacy.STATUSES.get(spelling.lower())

    def parse(self, callback: Callback) -> Event:
        document = decode(callback.body)
        if callback.source is Source.CALLBACK:
            kling_legacy.refuse_foreign(document)
            return kling_legacy.read(self.name, document, callback.received_at)
        if {"code", "error"} & repeated(document):
            raise NotTheProtocol("code or error is repeated")
        if error := text(document.get("error")):
            return kling_legacy.refusal(self.name, callback, error)
        if "task_status" in document:  # not wrapped: "task not found", which is no failed task
            words = text(document.get("task_status_msg"))
            raise NotTheProtocol(f"the query found no task: {words}")
        if code_in(document) != 0:
            words = f"{document.get('code')} {document.get('message')}"
            return kling_legacy.refusal(self.name, callback, words)
        return kling_legacy.read(self.name, kling_legacy.unwrap(document), callback.received_at)
