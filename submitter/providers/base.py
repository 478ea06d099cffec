"""The contract of every provider room on the way out (ours → theirs)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from submitter.client import Answer


@dataclass(frozen=True, slots=True)
class TryOn:
    """What is to be made: pictures as they go into the request (a URL or raw Base64)."""

    human: str
    cloth: str
    external_task_id: str  # our task id
    model: str | None = None  # None: the provider's default
    callback_url: str | None = None  # None: it is asked instead


@dataclass(frozen=True, slots=True)
class ListedTask:
    """One task in the provider's own list. Instants are integer milliseconds UTC."""

    provider_task_id: str
    status: str  # in our spelling where we know it, else as the provider wrote it
    external_task_id: str | None = None
    reason: str | None = None
    created_at: int | None = None
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the provider's own list, newest first; it tells no total."""

    number: int
    size: int
    tasks: tuple[ListedTask, ...]


class Provider(Protocol):
    """What the submitter knows of one account at one provider; safe to use from many threads.

    An Answer is the body as it came, because what the provider said enters the record by the same
    door as a callback. Every verb may raise NeverReached, WrongAccount, TryLater (after the
    retries that the provider's protocol allows) and UnexpectedAnswer.
    """

    name: str
    base_url: str  # where it is asked
    has_callbacks: bool
    finds_by_our_id: bool  # else a create whose answer was lost cannot be looked up
    usual_seconds: int  # from creation to the end
    default_model: str | None  # None: it takes no model
    combining: frozenset[str]  # the models that take an upper and a lower garment in one picture

    def create(self, order: TryOn) -> Answer:
        """Create the task; never sent twice unless the first one was provably refused.

        Raises WrongInput, and OutcomeUnknown if it may have been accepted. Every other error is
        a refusal: the task does not exist.
        """
        ...

    def fetch(
        self, *, provider_task_id: str | None = None, external_task_id: str | None = None
    ) -> Answer:
        """The task as it stands, by either id. Raises NotFoundAtProvider, which says nothing of
        the task where ours is the only id, and the provider does not find by it.
        """
        ...

    def list(self, page: int, page_size: int) -> Page:
        """The account's tasks. Raises InputError for a page, or a list, that is not served."""
        ...
