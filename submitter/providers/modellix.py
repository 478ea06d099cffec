"""Modellix's virtual try-on: create and query; it calls nobody back and keeps no id of ours.

Endpoints and fields: Modellix API reference, try-on and task query (seen 2026-11).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from receiver.errors import RequestRefused
from receiver.providers.base import decode, repeated
from receiver.providers.fields import code_in, identity
from submitter.client import ONCE, Answer, Client, Persistence
from submitter.errors import InputError, NotFoundAtProvider, UnexpectedAnswer
from submitter.providers.answers import Call, Vendor
from submitter.providers.base import Page, TryOn
from submitter.settings import AccountSettings
from submitter.text import readable

NAME = "modellix"
BASE_URL = "https://api.modellix.ai"
# Newer pages of the vendor leave `image-to-image/` out; both are served.
CREATE_PATH = "/api/v1/image-to-image/kling/{model}/async"
TASKS = "/api/v1/tasks"
DEFAULT_MODEL = "kolors-virtual-try-on-v1-5"
VENDOR = Vendor("Modellix", "MODELLIX_API_KEY", "MODELLIX_BASE_URL and MODELLIX_CREATE_PATH")


class Modellix:
    """One account at Modellix."""

    name = NAME
    has_callbacks = False
    finds_by_our_id = False
    usual_seconds = 20
    default_model: str | None = DEFAULT_MODEL
    combining = frozenset({"kolors-virtual-try-on-v1-5"})

    def __init__(self, client: Client, key: str, create_path: str = CREATE_PATH) -> None:
        self._client = client
        self.base_url = client.base_url
        self._keys = {"Authorization": f"Bearer {key}"}
        self._create_path = create_path

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
            raise NotFoundAtProvider(
                f"Modellix keeps no id of ours: it cannot be asked for {external_task_id}"
            )
        path = f"{TASKS}/{quote(provider_task_id, safe='')}"

        def ask() -> Answer:
            answer = self._client.ask(path, self._keys)
            data = _data_of(answer, Call.FETCH)
            if isinstance(data, dict) and identity(data.get("task_id")) != provider_task_id:
                raise UnexpectedAnswer(
                    f"Modellix was asked for task {provider_task_id} and told of another",
                    body=answer.body,
                )
            return answer

        return self._client.brisk.persist(ask)

    def list(self, page: int, page_size: int) -> Page:  # noqa: ARG002 - there is none
        raise InputError(
            "provider", "Modellix has no list of tasks; see what is on record: receiver tasks"
        )


def from_environment(account: str, patient: Persistence | None = None) -> Modellix:
    """The account's room. Raises ConfigurationError with a line for each wrong setting."""
    settings = AccountSettings(NAME, account)
    base_url = settings.base_url(BASE_URL)
    create_path = settings.path("CREATE_PATH", CREATE_PATH, holding="{model}")
    key = settings.needed_secret("API_KEY")
    settings.check()
    # Its create is paid for and nothing tells afterwards whether it arrived: it goes out once.
    return Modellix(Client(base_url, patient=patient or ONCE), key, create_path)


def _data_of(answer: Answer, call: Call) -> Any:
    """What is in the envelope of a success. Raises what the answer means if it is none.

    Its error codes are HTTP statuses.
    """
    try:
        document = decode(answer.body)
    except RequestRefused as error:
        raise VENDOR.strange(answer, call, str(error)) from None
    code = code_in(document)
    words = readable(document.get("message")) or "no message"
    if code is None or {"code", "data"} & repeated(document):
        raise VENDOR.strange(answer, call, words)
    if code:
        status = code if code in tuple(HTTPStatus) else answer.status
        raise VENDOR.refused(answer, call, status, f"Modellix {code}: {words}", code=code)
    return document.get("data")
