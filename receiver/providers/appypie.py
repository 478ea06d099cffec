"""Appy Pie, a reseller: Kling's legacy dialect, its own errors, and no signature.

Its callbacks probably come directly from Kling, signed (if at all) with a secret that the customer
of Appy Pie does not have.
"""

from __future__ import annotations

from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event, Source
from receiver.providers.base import refusal
from receiver.providers.fields import code_in, decode, repeated, text
from receiver.providers.foreign_messages import refuse_foreign
from receiver.providers.kling_api import KlingApi, LegacyCallback, read_legacy, unwrap


class AppyPie(KlingApi):
    """The responses of Appy Pie's gateway, and the callbacks of the tasks that it passes on."""

    name = "appypie"
    shares_ids = False  # whether callbacks contain its ids or Kling's is not documented
    schemas = (LegacyCallback,)

    def parse(self, callback: Callback) -> Event:
        document = decode(callback.body)
        if callback.source is Source.CALLBACK:
            refuse_foreign(document, self.statuses)
            return read_legacy(self.name, document, callback.received_at)
        if {"code", "error"} & repeated(document):
            raise NotTheProtocol("code or error is repeated")
        if error := text(document.get("error")):
            return refusal(self.name, callback, error)
        if "task_status" in document:  # without `data`: "task not found", not a failed task
            message = text(document.get("task_status_msg"))
            raise NotTheProtocol(f"the query found no task: {message}")
        if code_in(document) != 0:
            message = f"{document.get('code')} {document.get('message')}"
            return refusal(self.name, callback, message)
        return read_legacy(self.name, unwrap(document), callback.received_at)
