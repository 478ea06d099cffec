"""What a hook is told, and how far telling it has come."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from receiver.events import Media
from receiver.tasks import Status, Task, Trust
from receiver.text.display import rfc3339

GIVEN_UP = "given_up"  # told to hooks like a status, though the task keeps its own


class State(StrEnum):
    """How far a delivery is."""

    PENDING = "pending"  # left when a worker claims it, at `due_at` or later
    CLAIMED = "claimed"  # left when the attempt ends, or when the lease runs out (a dead worker)
    DELIVERED = "delivered"  # the hook did its work
    DEAD = "dead"  # given up on, and kept; `redeliver` makes it pending again


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which hook hears which moves: all that the web process needs to know of the hooks file."""

    hook: str
    on: frozenset[str]  # statuses in our spelling
    providers: frozenset[str] = frozenset()  # empty: all of them
    match: str = "*"  # glob on the reference
    after: str | None = None  # wait for this hook's delivery of the same event to end
    wait_ms: int | None = None  # maximum wait for `after`; None: no limit

    @property
    def tried_with(self) -> str:
        """The status that a test event tells it: one that it hears, success before failure."""
        preferred = (Status.SUCCEEDED.value, Status.FAILED.value, *sorted(self.on))
        return next(status for status in preferred if status in self.on)

    def due_at(self, at: int, *, waits: bool) -> int | None:
        """Return when a delivery created at `at` is due; None: when the awaited delivery ends."""
        if not waits:
            return at
        return None if self.wait_ms is None else at + self.wait_ms

    def hears(self, *, status: str, provider: str, reference: str | None) -> bool:
        """Does this hook want to know of the move?"""
        return (
            status in self.on
            and (not self.providers or provider in self.providers)
            and (self.match == "*" or fnmatchcase(reference or "", self.match))
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one hook.

    A delivery that waits for the delivery of the hook named by `after` is due when that one ends,
    or at `due_at` if that is earlier. `due_at` None: there is no limit to the wait.
    """

    id: int
    task_id: str
    status: str  # the status whose transition is told
    hook: str
    state: State
    attempts: int
    due_at: int | None
    retries_from: int = 0  # attempts made before the last redelivery: retries count from here
    after: str | None = None
    ended_at: int | None = None

    def lacks_hook(self, hooks: Collection[str]) -> bool:
        """Return whether it waits because its hook is not among these, those of the hooks file."""
        return self.state is State.PENDING and self.hook not in hooks

    def is_waiting(self, now: int) -> bool:
        """Return whether it is still waiting for the delivery of the hook named by `after`."""
        if self.after is None or self.state is not State.PENDING:
            return False
        return self.due_at is None or (self.attempts == self.retries_from and now < self.due_at)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a delivery, as it ended."""

    number: int
    started_at: int
    ended_at: int
    outcome: str  # "delivered", "failed" or "abandoned" (its worker died)
    answer: str  # what the other side said, or the error

    @property
    def duration_ms(self) -> int:
        """How long it took; 0 if the clock was set back meanwhile."""
        return max(0, self.ended_at - self.started_at)


@dataclass(frozen=True, slots=True)
class File:
    """A file that a hook made of one output."""

    media_index: str
    url: str  # where it lies: a path, or an object store's URL
    sha256: str  # hex
    size: int  # bytes
    content_type: str
    thumbnail: bytes | None = None  # a JPEG of at most 40 kB


@dataclass(frozen=True, slots=True)
class Transition:
    """A recorded move of a task, once per task and status."""

    status: str
    occurred_at: int
    recorded_at: int
    trust: Trust
    corrected: bool = False
    revision: int = 0  # how often the result of another provider task replaced it


@dataclass(frozen=True, slots=True)
class Notice:
    """All that a hook is told of one transition."""

    task: Task
    transition: Transition
    media: tuple[Media, ...] = ()
    files: tuple[File, ...] = ()  # made by any hook
    made: tuple[File, ...] = ()  # by this hook, in earlier attempts since the last redelivery
    is_test: bool = False  # no task moved: somebody tries the hook
    zone: tzinfo = UTC  # in which people are shown times; machines are told UTC

    @property
    def id(self) -> str:
        """The idempotency key: the same for every attempt and every hook.

        A corrected result under the same status has another key, so that consumers accept it.
        """
        key = f"{self.task.id}:{self.transition.status}"
        return f"{key}:{self.transition.revision}" if self.transition.revision else key

    @property
    def status(self) -> str:
        return self.transition.status

    def file_of(self, media: Media) -> File | None:
        """The file that a download made of this output, if one did."""
        for file in self.files:
            if file.media_index == media.index:
                return file
        return None

    def with_files(self, files: tuple[File, ...]) -> Notice:
        return replace(self, files=files)

    def as_json(self) -> dict[str, Any]:
        """The event in the shape that hooks and the API show; additive changes only."""
        transition = self.transition
        return {
            "id": self.id,
            "type": f"task.{transition.status}",
            "occurred_at": rfc3339(transition.occurred_at),
            "task": task_json(self.task),
            "media": list(map(self._media_json, self.media)),
            "trust": transition.trust.value,
            "corrected": transition.corrected,
            **({"test": True} if self.is_test else {}),
        }

    def _media_json(self, media: Media) -> Mapping[str, Any]:
        file = self.file_of(media)
        return {
            "kind": media.kind,
            "url": media.url,
            "expires_at": None if media.expires_at is None else rfc3339(media.expires_at),
            "file": file.url if file else None,
            "sha256": file.sha256 if file else None,
            "size": file.size if file else None,
        }


def task_json(task: Task) -> dict[str, Any]:
    """A task in the shape that hooks, commands and the API show; additive changes only."""
    return {
        "id": task.id,
        "provider": task.provider,
        "account": task.account,
        "provider_task_id": task.id_at_provider,
        "reference": task.reference,
        "status": task.status.value,
        "reason": task.reason,
        "cost": task.cost,
        "cost_unit": task.cost_unit,
        "created_at": rfc3339(task.created_at),
    }
