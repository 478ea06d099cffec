"""The contract of the provider adapters: how the submitter creates and queries tasks.

An adapter is a class; an instance is one account. `tests/contract/test_submitter_providers.py` runs
the same cases for every adapter; docs/adding-a-provider.md explains how to add one.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import quote

from receiver.pictures.file_types import HEAD, detect
from submitter.errors import InputError

if TYPE_CHECKING:
    from submitter.client import Answer, Persistence

BASE64_HEAD = 4 * HEAD  # characters; more than enough to detect the type of a picture


# The names that Kling uses, and the resellers that have the fields of its API.
PICTURE_FIELDS = MappingProxyType({"human_image": "human", "cloth_image": "cloth"})


class PictureForm(Enum):
    """The form in which a provider accepts a picture that is not at a URL."""

    BASE64 = auto()  # the bytes as raw Base64
    DATA_URI = auto()  # the same after a prefix, such as `data:image/png;base64,`
    URL_ONLY = auto()  # none: every picture has to be at a URL

    def check(self, field: str, picture: str) -> None:
        """Raise InputError if the provider does not accept this picture, a URL or raw Base64.

        `field` is the name of the option that the picture was given in.
        """
        if self is PictureForm.URL_ONLY and not is_url(picture):
            raise InputError(field, "the provider accepts URLs only; give an http(s) URL")

    def encoded(self, picture: str) -> str:
        """Return a picture that was checked, a URL or raw Base64, in this form."""
        if self is not PictureForm.DATA_URI or is_url(picture):
            return picture
        content_type = detect(base64.b64decode(picture[:BASE64_HEAD])).content_type
        return f"data:{content_type};base64,{picture}"


def is_url(given: str) -> bool:
    """Return whether the text is meant as a URL; Base64 and paths do not start like a URL."""
    return "://" in given[:32]


@dataclass(frozen=True, slots=True)
class CallbackPlace:
    """The place of the callback URL in a create request: its JSON body, or its query."""

    keys: tuple[str, ...] = ()  # in the body, from the outermost object
    parameter: str = ""  # of the query

    def add(self, url: str | None, path: str, body: dict[str, Any]) -> str:
        """Add the callback URL to the body or to the path; return the path. None adds nothing."""
        if url is None:
            return path
        if self.parameter:
            separator = "&" if "?" in path else "?"
            return f"{path}{separator}{self.parameter}={quote(url, safe='')}"
        *outer, last = self.keys
        for key in outer:
            body = body.setdefault(key, {})
        body[last] = url
        return path


@dataclass(frozen=True, slots=True)
class TryOn:
    """A task to create; its pictures are URLs, or have the adapter's `pictures` form."""

    human: str
    cloth: str
    external_task_id: str  # our task id
    model: str | None = None  # None: the adapter's default
    callback_url: str | None = None  # None: the result is fetched by queries


@dataclass(frozen=True, slots=True)
class ListedTask:
    """One task in the provider's own list."""

    provider_task_id: str
    status: str  # ours, or the provider's if we do not know it
    external_task_id: str | None = None
    reason: str | None = None
    created_at: int | None = None  # ms UTC
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the provider's own list, newest first; the total is not known."""

    number: int
    size: int
    tasks: tuple[ListedTask, ...]


class Provider(Protocol):
    """A provider adapter of the submitter: one account, safe to use from several threads.

    The methods return the body as received, because it is parsed and recorded like a callback. All
    of them may raise NeverReached, WrongAccount, UnexpectedAnswer, and TryLater after the retries
    that are safe.

    Adapters inherit the default values below.
    """

    name: str  # the same as that of the receiver's adapter
    # The settings that contain its keys, without the prefix: `API_KEY` is read from NAME_API_KEY.
    key_settings: tuple[str, ...]
    pictures: PictureForm
    # The names of the pictures in its create request, and ours; its error messages use them.
    picture_fields: Mapping[str, str] = MappingProxyType({})
    usual_seconds: int  # from the creation of a task to its end
    callback_place: CallbackPlace | None = None  # None: the provider has no callbacks
    finds_by_our_id: bool = False  # if False, a create request without a response stays unknown
    default_model: str | None = None  # None: the provider has no choice of models
    combining: frozenset[str] = frozenset()  # models that accept two garments in one picture
    base_url: str  # of this account

    @classmethod
    def from_environment(cls, account: str, patient: Persistence | None = None) -> Self:
        """Return the adapter for an account, with its settings from the environment.

        `patient` replaces how create requests are retried after TryLater. Raises
        ConfigurationError with a line for each setting that is missing or wrong.
        """
        ...

    @property
    def has_callbacks(self) -> bool:
        """Whether the provider sends callbacks."""
        return self.callback_place is not None

    def create(self, order: TryOn) -> Answer:
        """Create the task. The request is repeated only if the first one was provably rejected.

        Raises WrongInput, and OutcomeUnknown if the task may have been created. After any other
        error, it was not.
        """
        ...

    def fetch(
        self, *, provider_task_id: str | None = None, external_task_id: str | None = None
    ) -> Answer:
        """Return the present state of the task with either id, the provider's or ours.

        If the provider needs several requests for one query, the adapter returns one body that
        contains everything that the receiver's adapter parses. Raises UnexpectedAnswer for a
        response about another task, and NotFoundAtProvider for an unknown id; also, without any
        request, for our id if the provider does not find tasks by it.
        """
        ...

    def list(self, page: int, page_size: int) -> Page:  # noqa: ARG002 - without a list
        """Return a page of the account's tasks.

        Raises InputError, without any request, for a page that does not exist, or if the provider
        has no list.
        """
        raise InputError(
            "provider", f"{self.name} has no list of tasks; see those on record: receiver tasks"
        )
