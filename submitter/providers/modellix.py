"""Modellix's virtual try-on: create and query. It has no callbacks and does not store our ids.

Endpoints and fields: Modellix API reference, try-on and task query (seen 2026-11).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Self
from urllib.parse import quote

from receiver.providers.fields import identity
from submitter.client import ONCE, Answer, Client, Persistence
from submitter.providers.answers import Call, Vendor
from submitter.providers.base import PICTURE_FIELDS, PictureForm, Provider, TryOn
from submitter.settings import AccountSettings
from submitter.text import readable

BASE_URL = "https://api.modellix.ai"
# Newer pages of the vendor omit `image-to-image/`; both paths work.
CREATE_PATH = "/api/v1/image-to-image/kling/{model}/async"
TASKS = "/api/v1/tasks"
DEFAULT_MODEL = "kolors-virtual-try-on-v1-5"
VENDOR = Vendor("Modellix", "MODELLIX_API_KEY", "MODELLIX_BASE_URL and MODELLIX_CREATE_PATH")


class Modellix(Provider):
    """One account at Modellix."""

    name = "modellix"
    key_settings = ("API_KEY",)
    pictures = PictureForm.BASE64
    picture_fields = PICTURE_FIELDS
    usual_seconds = 20
    default_model = DEFAULT_MODEL
    combining = frozenset({"kolors-virtual-try-on-v1-5"})

    def __init__(self, client: Client, key: str, create_path: str = CREATE_PATH) -> None:
        self._client = client
        self.base_url = client.base_url
        self._keys = {"Authorization": f"Bearer {key}"}
        self._create_path = create_path

    @classmethod
    def from_environment(cls, account: str, patient: Persistence | None = None) -> Self:
        settings = AccountSettings(cls.name, account)
        base_url = settings.base_url(BASE_URL)
        create_path = settings.path("CREATE_PATH", CREATE_PATH, holding="{model}")
        key = settings.needed_secret("API_KEY")
        settings.check()
        # A create request is charged and cannot be looked up afterwards, so it is sent only once.
        return cls(Client(base_url, patient=patient or ONCE), key, create_path)

    def create(self, order: TryOn) -> Answer:
        model = quote(order.model or DEFAULT_MODEL, safe="")
        path = self._create_path.replace("{model}", model)
        body = {"human_image": order.human, "cloth_image": order.cloth}

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
        path = f"{TASKS}/{quote(provider_task_id, safe='')}"

        def query() -> Answer:
            answer = self._client.ask(path, self._keys)
            data = _data_of(answer, Call.FETCH)
            if isinstance(data, dict) and identity(data.get("task_id")) != provider_task_id:
                raise VENDOR.other_task(answer, provider_task_id)
            return answer

        return self._client.brisk.persist(query)


def _data_of(answer: Answer, call: Call) -> Any:
    """Return the `data` of a successful response; for any other one, raise the corresponding error.

    Modellix's error codes are HTTP statuses.
    """
    code, document = VENDOR.document_of(answer, call)
    if code:
        status = code if code in tuple(HTTPStatus) else answer.status
        message = f"Modellix {code}: {readable(document.get('message')) or 'no message'}"
        raise VENDOR.error(answer, call, status, message, code=code)
    return document.get("data")
