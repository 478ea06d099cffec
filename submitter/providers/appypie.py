"""Appy Pie's virtual try-on: create and query in Kling's envelope, with errors of its own.

Endpoints and fields: Appy Pie's page on Kling AI virtual try-on (seen 2026-11). Its table names
the garment `image_tail`; every sample on it sends Kling's own name, `cloth_image`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from receiver.errors import RequestRefused
from receiver.providers.base import decode
from submitter.client import PATIENT, Answer, Client, Persistence
from submitter.errors import InputError, NotFoundAtProvider
from submitter.providers import envelope
from submitter.providers.answers import Call, Vendor
from submitter.providers.base import Page, TryOn
from submitter.settings import AccountSettings
from submitter.text import readable

NAME = "appypie"
BASE_URL = "https://gateway.appypie.com"
CREATE = "/kling-ai-vton/v1/getVirtualTryOnTask"
STATUS = "/kling-ai-polling/v1/getVirtualTryOnStatus"  # by POST
VENDOR = Vendor("Appy Pie", "APPYPIE_SUBSCRIPTION_KEY", "APPYPIE_BASE_URL")
# The gateway before the API says these in a body of its own.
BY_THE_GATEWAY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)


class AppyPie:
    """One account at Appy Pie."""

    name = NAME
    has_callbacks = True
    finds_by_our_id = False
    usual_seconds = 30
    default_model: str | None = None
    combining: frozenset[str] = frozenset()

    def __init__(self, client: Client, key: str) -> None:
        self._client = client
        self.base_url = client.base_url
        self._keys = {"Ocp-Apim-Subscription-Key": key, "Cache-Control": "no-cache"}

    def create(self, order: TryOn) -> Answer:
        body = {"human_image": order.human, "cloth_image": order.cloth}
        if order.callback_url is not None:
            body["callback_url"] = order.callback_url

        def send() -> Answer:
            answer = self._client.create(CREATE, self._keys, body)
            _data_of(answer, Call.CREATE)
            return answer

        return self._client.patient.persist(send)

    def fetch(
        self, *, provider_task_id: str | None = None, external_task_id: str | None = None
    ) -> Answer:
        if not provider_task_id:
            raise NotFoundAtProvider(
                f"Appy Pie keeps no id of ours: it cannot be asked for {external_task_id}"
            )

        def ask() -> Answer:
            answer = self._client.ask(STATUS, self._keys, {"task_id": provider_task_id})
            data = _data_of(answer, Call.FETCH)
            envelope.check_it_is_about(VENDOR, answer, data, provider_task_id)
            return answer

        return self._client.brisk.persist(ask)

    def list(self, page: int, page_size: int) -> Page:  # noqa: ARG002 - there is none
        raise InputError(
            "provider", "Appy Pie has no list of tasks; see what is on record: receiver tasks"
        )


def from_environment(account: str, patient: Persistence | None = None) -> AppyPie:
    """The account's room. Raises ConfigurationError with a line for each wrong setting."""
    settings = AccountSettings(NAME, account)
    base_url = settings.base_url(BASE_URL)
    key = settings.needed_secret("SUBSCRIPTION_KEY")
    settings.check()
    return AppyPie(Client(base_url, patient=patient or PATIENT), key)


def _data_of(answer: Answer, call: Call) -> Any:
    """As `envelope.data_of`, but for the answers that come without the envelope."""
    try:
        document = decode(answer.body)
    except RequestRefused:
        document = {}
    if "code" not in document:
        _check_bare(document, answer, call)
    return envelope.data_of(VENDOR, answer, call)


def _check_bare(document: Mapping[str, Any], answer: Answer, call: Call) -> None:
    """Raises what an answer without the envelope means, if that is known."""
    error = readable(document.get("error"))
    if error or answer.status in BY_THE_GATEWAY:
        words = error or readable(document.get("message")) or "no message"
        said = f"Appy Pie {answer.status}: {words}"
        raise VENDOR.refused(answer, call, answer.status, said)
    # With which HTTP status it says this is not documented.
    if call is Call.FETCH and document.get("task_status") and "task_id" not in document:
        words = readable(document.get("task_status_msg"))
        raise NotFoundAtProvider(
            f"Appy Pie: {words}; it knows no task by this id",
            http_status=answer.status,
            body=answer.body,
        )
