"""Weaver's try-on: create and query. Each account has a secret that its messages repeat."""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import quote

from receiver.errors import RequestRefused
from receiver.providers.fields import code_in, identity
from receiver.providers.json_body import decode
from submitter.client import PATIENT, Answer, Client, Persistence
from submitter.providers.answers import Call, Vendor
from submitter.providers.base import CallbackPlace, PictureForm, Provider, TryOn
from submitter.settings import AccountSettings

BASE_URL = "https://api.weaver.example"
TASKS = "/api/v1/task"
VENDOR = Vendor("Weaver", keys="WEAVER_API_KEY", address="WEAVER_BASE_URL")


class Weaver(Provider):
    """One account at Weaver."""

    name = "weaver"
    key_settings = ("API_KEY",)
    pictures = PictureForm.URL_ONLY
    usual_seconds = 40
    callback_place = CallbackPlace(("config", "webhook", "endpoint"))

    def __init__(self, client: Client, key: str) -> None:
        self._client = client
        self.base_url = client.base_url
        self._keys = {"X-Api-Key": key}

    @classmethod
    def from_environment(cls, account: str, patient: Persistence | None = None) -> Self:
        settings = AccountSettings(cls.name, account)
        base_url = settings.base_url(BASE_URL)
        key = settings.needed_secret("API_KEY")
        settings.check()
        return cls(Client(base_url, patient=patient or PATIENT), key)

    def create(self, order: TryOn) -> Answer:
        body = {"input": {"person": order.human, "garment": order.cloth}}
        path = self.callback_place.add(order.callback_url, TASKS, body)

        def send() -> Answer:
            answer = self._client.create(path, self._keys, body)
            _task(answer, Call.CREATE)
            return answer

        return self._client.patient.persist(send)

    def fetch(
        self, *, provider_task_id: str | None = None, external_task_id: str | None = None
    ) -> Answer:
        if not provider_task_id:
            raise VENDOR.not_stored(external_task_id)
        path = f"{TASKS}/{quote(provider_task_id, safe='')}"

        def query() -> Answer:
            answer = self._client.ask(path, self._keys)
            if identity(_task(answer, Call.FETCH).get("task_id")) != provider_task_id:
                raise VENDOR.other_task(answer, provider_task_id)
            return answer

        return self._client.brisk.persist(query)


def _task(answer: Answer, call: Call) -> dict[str, Any]:
    """Return the task in a successful response; raise the error that any other one means."""
    try:
        document = decode(answer.body)
    except RequestRefused as error:
        raise VENDOR.unexpected(answer, call, str(error)) from None
    code, data = code_in(document), document.get("data")
    if code is None or (code == 200 and not isinstance(data, dict)):
        raise VENDOR.unexpected(answer, call, "no `code` or no `data` in it")
    if code != 200 or not isinstance(data, dict):
        message = f"Weaver {code}: {document.get('message')}"
        raise VENDOR.error(answer, call, code, message, code=code)
    return data
