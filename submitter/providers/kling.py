"""Kling's virtual try-on: create, query by either id, and list.

Endpoints and fields: Kling API reference, virtual try-on (seen 2026-11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from receiver import providers
from receiver.clock import wall_ms
from submitter.client import MEGABYTE, PATIENT, Answer, Client, Persistence
from submitter.errors import InputError, ProviderError, UnexpectedAnswer
from submitter.providers import envelope
from submitter.providers.answers import Call, Vendor
from submitter.providers.base import Listed, Page, TryOn
from submitter.providers.kling_token import ApiKey, Signed, Tokens
from submitter.settings import AccountSettings
from submitter.text import readable

NAME = "kling"
BASE_URL = "https://api-singapore.klingai.com"
TRY_ON = "/v1/images/kolors-virtual-try-on"
DEFAULT_MODEL = "kolors-virtual-try-on-v1"
VENDOR = Vendor(
    "Kling", "KLING_API_KEY, or KLING_ACCESS_KEY and KLING_SECRET_KEY", "KLING_BASE_URL"
)
PAGES, PAGE_SIZES = 1000, 500
LONGEST_URL = 4096  # characters to show; recorded ones reach about 1,000
LONGEST_PAGE = 4 * MEGABYTE  # 500 tasks, whose URLs reach 1 kB each


class Kling:
    """One account at Kling."""

    name = NAME
    has_callbacks = True
    finds_by_our_id = True
    usual_seconds = 30  # 15 to 60 were seen
    default_model: str | None = DEFAULT_MODEL
    combining = frozenset({"kolors-virtual-try-on-v1-5"})

    def __init__(self, client: Client, tokens: Tokens) -> None:
        self._client = client
        self.base_url = client.base_url
        self._tokens = tokens

    def create(self, order: TryOn) -> Answer:
        body = {
            # Always named: a change of Kling's default would change what our users get.
            "model_name": order.model or DEFAULT_MODEL,
            "human_image": order.human,
            "cloth_image": order.cloth,
            "external_task_id": order.external_task_id,
        }
        if order.callback_url is not None:
            body["callback_url"] = order.callback_url
        answer, _ = self._client.patient.persist(
            lambda: self._authorized(
                lambda keys: self._client.create(TRY_ON, keys, body), Call.CREATE
            )
        )
        return answer

    def fetch(
        self, *, provider_task_id: str | None = None, external_task_id: str | None = None
    ) -> Answer:
        key = provider_task_id or external_task_id
        if not key:
            raise ValueError("one of the two ids is needed")
        answer, data = self._ask(f"{TRY_ON}/{quote(key, safe='')}", Call.FETCH)
        envelope.check_it_is_about(VENDOR, answer, data, provider_task_id, external_task_id)
        return answer

    def list(self, page: int, page_size: int) -> Page:
        _check_range("page", page, PAGES)
        _check_range("page_size", page_size, PAGE_SIZES)
        path = f"{TRY_ON}?pageNum={page}&pageSize={page_size}"
        answer, data = self._ask(path, Call.LIST, max_bytes=LONGEST_PAGE)
        if not isinstance(data, list) or not all(isinstance(task, dict) for task in data):
            raise UnexpectedAnswer("Kling's list holds no array of tasks", body=answer.body)
        return Page(page, page_size, tuple(map(_listed, data)))

    def _ask(self, path: str, call: Call, max_bytes: int = MEGABYTE) -> tuple[Answer, Any]:
        def ask(keys: Mapping[str, str]) -> Answer:
            return self._client.ask(path, keys, max_bytes=max_bytes)

        return self._client.brisk.persist(lambda: self._authorized(ask, call))

    def _authorized(
        self, exchange: Callable[[Mapping[str, str]], Answer], call: Call
    ) -> tuple[Answer, Any]:
        """The answer and the data in it; a token that is not valid now is signed anew, once."""
        token = self._tokens.token(wall_ms() // 1000)
        answer = exchange(_bearer(token))
        try:
            return answer, envelope.data_of(VENDOR, answer, call)
        except ProviderError as error:
            if error.code not in envelope.TOKEN_NOT_VALID_NOW:
                raise
            another = self._tokens.renewed(token, wall_ms() // 1000)
            if another is None:
                raise
        answer = exchange(_bearer(another))
        return answer, envelope.data_of(VENDOR, answer, call)


def from_environment(account: str, patient: Persistence | None = None) -> Kling:
    """The account's room. Raises ConfigurationError with a line for each wrong setting."""
    settings = AccountSettings(NAME, account)
    base_url = settings.base_url(BASE_URL)
    api_key = settings.secret("API_KEY")
    access_key, secret_key = settings.secret("ACCESS_KEY"), settings.secret("SECRET_KEY")
    if not api_key and not settings.problems:
        settings.problems += _missing_keys(settings, access_key, secret_key)
    settings.check()
    tokens = ApiKey(api_key) if api_key else Signed(access_key or "", secret_key or "")
    return Kling(Client(base_url, patient=patient or PATIENT), tokens)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _missing_keys(
    settings: AccountSettings, access_key: str | None, secret_key: str | None
) -> Iterator[str]:
    access, secret = settings.name("ACCESS_KEY"), settings.name("SECRET_KEY")
    if not access_key and not secret_key:
        yield f"{settings.name('API_KEY')}: not set; set it, or {access} and {secret}"
    elif not access_key:
        yield f"{access}: not set, and {secret} needs it"
    elif not secret_key:
        yield f"{secret}: not set, and {access} needs it"


def _check_range(field: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise InputError(field, f"{value} is not between 1 and {most}")


def _listed(task: dict[str, Any]) -> Listed:
    """Leniently: a list is looked at by people, and one odd task must not hide the others."""
    provider_task_id, external = envelope.ids(task)
    status = readable(task.get("task_status"))
    created_at = task.get("created_at")
    return Listed(
        provider_task_id=readable(provider_task_id),
        status=providers.PROVIDERS[NAME].status(status) or status,
        external_task_id=readable(external) or None,
        reason=readable(task.get("task_status_msg")) or None,
        created_at=created_at if type(created_at) is int else None,
        urls=tuple(_urls(task.get("task_result"))),
    )


def _urls(result: object) -> Iterator[str]:
    images = result.get("images") if isinstance(result, dict) else None
    for image in images if isinstance(images, list) else ():
        url = image.get("url") if isinstance(image, dict) else None
        if isinstance(url, str):
            yield readable(url, LONGEST_URL)
