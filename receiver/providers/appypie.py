"""Appy Pie, a reseller: Kling's legacy dialect, its own errors, and no signature.

Its callbacks probably come directly from Kling, signed (if at all) with a secret that the customer
of Appy Pie does not have.
"""

from __future__ import annotations

from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event, Source
from receiver.providers import kling_legacy
from receiver.providers.base import Provider
from receiver.providers.fields import code_in, text
from receiver.providers.json_body import decode, repeated


class AppyPie(Provider):
    """The responses of Appy Pie's gateway, and the callbacks of the tasks that it passes on."""

    name = "appypie"
    has_callbacks = True
    shares_ids = False  # whether callbacks contain its ids or Kling's is not documented
    statuses = kling_legacy.STATUSES
    results_kept_for = kling_legacy.RESULTS_KEPT_FOR
    schemas = (kling_legacy.LegacyCallback,)

    def parse(self, callback: Callback) -> Event:
        document = decode(callback.body)
        if callback.source is Source.CALLBACK:
            kling_legacy.refuse_foreign(document)
            return kling_legacy.read(self.name, document, callback.received_at)
        if {"code", "error"} & repeated(document):
            raise NotTheProtocol("code or error is repeated")
        if error := text(document.get("error")):
            return kling_legacy.refusal(self.name, callback, error)
        if "task_status" in document:  # without `data`: "task not found", not a failed task
            message = text(document.get("task_status_msg"))
            raise NotTheProtocol(f"the query found no task: {message}")
        if code_in(document) != 0:
            message = f"{document.get('code')} {document.get('message')}"
            return kling_legacy.refusal(self.name, callback, message)
        return kling_legacy.read(self.name, kling_legacy.unwrap(document), callback.received_at)
