"""Appy Pie's virtual try-on: create and query in Kling's envelope, with its own errors.

Endpoints and fields: Appy Pie's page on Kling AI virtual try-on (seen 2026-11). Its table calls the
garment `image_tail`; every sample on that page sends Kling's own name, `cloth_image`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Self

from receiver.errors import RequestRefused
from receiver.providers.fields import decode
from submitter.client import PATIENT, Answer, Client, Persistence
from submitter.errors import NotFoundAtProvider
from submitter.providers import kling_envelope
from submitter.providers.answers import Call, Vendor
from submitter.providers.base import PICTURE_FIELDS, CallbackPlace, PictureForm, Provider, TryOn
from submitter.settings import AccountSettings
from submitter.text import readable

BASE_URL = "https://gateway.appypie.com"
CREATE = "/kling-ai-vton/v1/getVirtualTryOnTask"
STATUS = "/kling-ai-polling/v1/getVirtualTryOnStatus"  # a POST request
VENDOR = Vendor("Appy Pie", "APPYPIE_SUBSCRIPTION_KEY", "APPYPIE_BASE_URL")
# The gateway in front of the API sends these statuses with a body of its own.
GATEWAY_STATUSES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)


class AppyPie(Provider):
    """One account at Appy Pie."""

    name = "appypie"
    key_settings = ("SUBSCRIPTION_KEY",)
    pictures = PictureForm.BASE64
    picture_fields = PICTURE_FIELDS
    usual_seconds = 30
    callback_place = CallbackPlace(("callback_url",))

    def __init__(self, client: Client, key: str) -> None:
        self._client = client
        self.base_url = client.base_url
        self._keys = {"Ocp-Apim-Subscription-Key": key, "Cache-Control": "no-cache"}

    @classmethod
    def from_environment(cls, account: str, patient: Persistence | None = None) -> Self:
        settings = AccountSettings(cls.name, account)
        base_url = settings.base_url(BASE_URL)
        key = settings.needed_secret("SUBSCRIPTION_KEY")
        settings.check()
        return cls(Client(base_url, patient=patient or PATIENT), key)

    def create(self, order: TryOn) -> Answer:
        body = {"human_image": order.human, "cloth_image": order.cloth}
        path = self.callback_place.add(order.callback_url, CREATE, body)

        def send() -> Answer:
            answer = self._client.create(path, self._keys, body)
            _data_of(answer, Call.CREATE)
            return answer

        return self._client.patient.persist(send)

    def fetch(
        self, *, provider_task_id: str | None = None, external_task_id: str | None = None
    ) -> Answer:
        if not provider_task_id:
            raise VENDOR.not_stored(external_task_id)

        def query() -> Answer:
            answer = self._client.ask(STATUS, self._keys, {"task_id": provider_task_id})
            data = _data_of(answer, Call.FETCH)
            kling_envelope.check_identity(VENDOR, answer, data, provider_task_id)
            return answer

        return self._client.brisk.persist(query)


def _data_of(answer: Answer, call: Call) -> Any:
    """Return the data, as `kling_envelope.data_of` does, also of responses without the envelope."""
    try:
        document = decode(answer.body)
    except RequestRefused:
        document = {}
    if "code" not in document:
        _check_without_envelope(document, answer, call)
    return kling_envelope.data_of(VENDOR, answer, call)


def _check_without_envelope(document: Mapping[str, Any], answer: Answer, call: Call) -> None:
    """Raise the error for a response without the envelope, if it is a known one."""
    error = readable(document.get("error"))
    if error or answer.status in GATEWAY_STATUSES:
        text = error or readable(document.get("message")) or "no message"
        message = f"Appy Pie {answer.status}: {text}"
        raise VENDOR.error(answer, call, answer.status, message)
    # The HTTP status of this response is not documented.
    if call is Call.FETCH and document.get("task_status") and "task_id" not in document:
        text = readable(document.get("task_status_msg"))
        message = f"Appy Pie: {text}; it has no task with this id"
        raise NotFoundAtProvider(message, http_status=answer.status, body=answer.body)
