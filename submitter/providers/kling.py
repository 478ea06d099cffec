"""Kling's virtual try-on: create, query by either id, and list.

The token in the Authorization header is a static API key, or a signed JWT.

Endpoints and fields: Kling API reference, virtual try-on (seen 2026-11).
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, Self
from urllib.parse import quote

from receiver import providers
from receiver.clock import wall_ms
from submitter.client import MEGABYTE, PATIENT, Answer, Client, Persistence
from submitter.errors import InputError, ProviderError, UnexpectedAnswer
from submitter.providers import kling_envelope
from submitter.providers.answers import Call, Vendor
from submitter.providers.base import (
    PICTURE_FIELDS,
    CallbackPlace,
    ListedTask,
    Page,
    PictureForm,
    Provider,
    TryOn,
)
from submitter.settings import AccountSettings
from submitter.text import readable

BASE_URL = "https://api-singapore.klingai.com"
TRY_ON = "/v1/images/kolors-virtual-try-on"
DEFAULT_MODEL = "kolors-virtual-try-on-v1"
VENDOR = Vendor(
    "Kling", "KLING_API_KEY, or KLING_ACCESS_KEY and KLING_SECRET_KEY", "KLING_BASE_URL"
)
MAX_PAGE, MAX_PAGE_SIZE = 1000, 500
MAX_URL = 4096  # characters that are shown; recorded ones have up to 1,000
MAX_LIST = 4 * MEGABYTE  # 500 tasks with URLs of up to 1 kB each
# Of the signed tokens:
VALID_FOR = 1800  # seconds
VALID_BEFORE = 5  # seconds, in case Kling's clock is behind ours
# A create request can take minutes, so a token is renewed long before it expires.
RENEW_WHEN_LEFT = 300  # seconds


class TokenSource(Protocol):
    """Provides the tokens of one account; safe to use from several threads."""

    def token(self, now: int) -> str:
        """Return a token that is valid at `now` (Unix seconds) and for a few more minutes."""
        ...

    def renewed(self, rejected: str, now: int) -> str | None:
        """Return another token after Kling rejected this one as not valid now, or None."""
        ...


class ApiKey:
    """A static API key, which Kling accepts as a token (since 2026-06)."""

    def __init__(self, key: str) -> None:
        self._key = key

    def token(self, now: int) -> str:  # noqa: ARG002 - it is always valid
        return self._key

    def renewed(self, rejected: str, now: int) -> str | None:  # noqa: ARG002 - there is no other
        return None


class SignedTokens:
    """Signs JWTs with the secret key, and reuses each one until it is renewed."""

    def __init__(self, access_key: str, secret_key: str) -> None:
        self._access_key = access_key
        self._secret_key = secret_key
        self._lock = threading.Lock()
        self._token = ""
        self._expires_at = 0

    def token(self, now: int) -> str:
        with self._lock:
            left = self._expires_at - now
            # More than VALID_FOR: the clock was set back, and the token is not valid yet.
            if not RENEW_WHEN_LEFT <= left <= VALID_FOR + VALID_BEFORE:
                self._sign(now)
            return self._token

    def renewed(self, rejected: str, now: int) -> str | None:
        with self._lock:
            if self._token == rejected:  # otherwise, another thread has renewed it
                self._sign(now)
            return self._token

    def _sign(self, now: int) -> None:
        import jwt  # noqa: PLC0415 - a slow import, which accounts with an API key do not need

        claims = {"iss": self._access_key, "exp": now + VALID_FOR, "nbf": now - VALID_BEFORE}
        with warnings.catch_warnings():
            # Kling chose the length of the key, and its users cannot change it.
            warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
            self._token = jwt.encode(claims, self._secret_key, algorithm="HS256")
        self._expires_at = now + VALID_FOR


class Kling(Provider):
    """One account at Kling."""

    name = "kling"
    key_settings = ("API_KEY", "ACCESS_KEY", "SECRET_KEY")
    pictures = PictureForm.BASE64
    picture_fields = PICTURE_FIELDS
    usual_seconds = 30  # measured: 15 to 60
    callback_place = CallbackPlace(("callback_url",))
    finds_by_our_id = True
    default_model = DEFAULT_MODEL
    combining = frozenset({"kolors-virtual-try-on-v1-5"})

    def __init__(self, client: Client, tokens: TokenSource) -> None:
        self._client = client
        self.base_url = client.base_url
        self._tokens = tokens

    @classmethod
    def from_environment(cls, account: str, patient: Persistence | None = None) -> Self:
        settings = AccountSettings(cls.name, account)
        base_url = settings.base_url(BASE_URL)
        api_key = settings.secret("API_KEY")
        access_key, secret_key = settings.secret("ACCESS_KEY"), settings.secret("SECRET_KEY")
        if not api_key and not settings.problems:
            settings.problems += _missing_keys(settings, access_key, secret_key)
        settings.check()
        tokens = ApiKey(api_key) if api_key else SignedTokens(access_key or "", secret_key or "")
        return cls(Client(base_url, patient=patient or PATIENT), tokens)

    def create(self, order: TryOn) -> Answer:
        body = {
            # Always sent, so that a new default of Kling's does not change the results.
            "model_name": order.model or DEFAULT_MODEL,
            "human_image": order.human,
            "cloth_image": order.cloth,
            "external_task_id": order.external_task_id,
        }
        path = self.callback_place.add(order.callback_url, TRY_ON, body)
        answer, _ = self._client.patient.persist(
            lambda: self._authorized(
                lambda keys: self._client.create(path, keys, body), Call.CREATE
            )
        )
        return answer

    def fetch(
        self, *, provider_task_id: str | None = None, external_task_id: str | None = None
    ) -> Answer:
        task_id = provider_task_id or external_task_id
        if not task_id:
            raise ValueError("one of the two ids is required")
        answer, data = self._query(f"{TRY_ON}/{quote(task_id, safe='')}", Call.FETCH)
        kling_envelope.check_identity(VENDOR, answer, data, provider_task_id, external_task_id)
        return answer

    def list(self, page: int, page_size: int) -> Page:
        _check_range("page", page, MAX_PAGE)
        _check_range("page_size", page_size, MAX_PAGE_SIZE)
        path = f"{TRY_ON}?pageNum={page}&pageSize={page_size}"
        answer, data = self._query(path, Call.LIST, max_bytes=MAX_LIST)
        if not isinstance(data, list) or not all(isinstance(task, dict) for task in data):
            raise UnexpectedAnswer("Kling's list contains no array of tasks", body=answer.body)
        return Page(page, page_size, tuple(map(_listed, data)))

    def _query(self, path: str, call: Call, max_bytes: int = MEGABYTE) -> tuple[Answer, Any]:
        def query(keys: Mapping[str, str]) -> Answer:
            return self._client.ask(path, keys, max_bytes=max_bytes)

        return self._client.brisk.persist(lambda: self._authorized(query, call))

    def _authorized(
        self, exchange: Callable[[Mapping[str, str]], Answer], call: Call
    ) -> tuple[Answer, Any]:
        """Return the response and its data; if the token is not valid now, repeat it once."""
        token = self._tokens.token(wall_ms() // 1000)
        answer = exchange({"Authorization": f"Bearer {token}"})
        try:
            return answer, kling_envelope.data_of(VENDOR, answer, call)
        except ProviderError as error:
            if error.code not in kling_envelope.TOKEN_NOT_VALID_NOW:
                raise
            another = self._tokens.renewed(token, wall_ms() // 1000)
            if another is None:
                raise
        answer = exchange({"Authorization": f"Bearer {another}"})
        return answer, kling_envelope.data_of(VENDOR, answer, call)


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


def _check_range(field: str, value: int, maximum: int) -> None:
    if not 1 <= value <= maximum:
        raise InputError(field, f"{value} is not between 1 and {maximum}")


def _listed(task: dict[str, Any]) -> ListedTask:
    """Return a task of the list. Lenient, so that one malformed task does not hide the others."""
    provider_task_id, external = kling_envelope.ids(task)
    status = readable(task.get("task_status"))
    created_at = task.get("created_at")
    return ListedTask(
        provider_task_id=readable(provider_task_id),
        status=providers.get(Kling.name).statuses.get(status.lower(), status),
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
            yield readable(url, MAX_URL)
