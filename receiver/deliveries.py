"""Deliveries, their attempts, and the notice that a hook receives; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from receiver.events import Media
from receiver.filters.where import Check, EventFilter
from receiver.tasks import Status, Task, Trust
from receiver.text.display import rfc3339

GIVEN_UP = "given_up"  # sent to hooks like a status, although the task keeps its own status


class State(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"  # until a worker claims it, at `due_at` or later
    CLAIMED = "claimed"  # until the attempt ends, or the lease of a dead worker expires
    DELIVERED = "delivered"  # the hook succeeded
    DEAD = "dead"  # it is no longer retried; `redeliver` makes it pending again

    @property
    def is_final(self) -> bool:
        """Whether the delivery has ended, so that `redeliver` can make it pending again."""
        return self in (State.DELIVERED, State.DEAD)


@dataclass(frozen=True, slots=True)
class Subscription:
    """The events that a hook receives; the web process reads nothing else from the hooks file."""

    hook: str
    on: frozenset[str]  # our names of the statuses
    providers: frozenset[str] = frozenset()  # empty: all of them
    match: str = "*"  # a glob pattern for the reference
    after: str | None = None  # wait for this hook's delivery of the same event to end
    wait_ms: int | None = None  # maximum wait for `after`; None: no limit
    where: EventFilter | None = None  # conditions for the fields of the event
    ahead: tuple[str, ...] = ()  # the hooks for which it waits through `after`, the nearest first

    @property
    def test_status(self) -> str:
        """The status of a test event: one that the hook receives, preferably success."""
        preferred = (Status.SUCCEEDED.value, Status.FAILED.value, *sorted(self.on))
        return next(status for status in preferred if status in self.on)

    def due_at(self, at: int, *, waits: bool) -> int | None:
        """Return when a delivery created at `at` is due; None: as soon as the awaited one ends."""
        if not waits:
            return at
        return None if self.wait_ms is None else at + self.wait_ms

    def awaited(self, hooks: Collection[str]) -> str | None:
        """Return the hook that this one waits for; `hooks` are those that receive the event.

        If the hook named by `after` does not receive it, that is the next one ahead that does.
        """
        if self.after is None:
            return None
        return next((hook for hook in (self.after, *self.ahead) if hook in hooks), None)

    def includes(self, *, status: str, provider: str, reference: str | None) -> bool:
        """Return whether the hook receives an event with these values, regardless of `where`."""
        return (
            status in self.on
            and (not self.providers or provider in self.providers)
            and (self.match == "*" or fnmatchcase(reference or "", self.match))
        )

    def matches(self, notice: Notice) -> bool:
        """Return whether `where` matches the event."""
        return self.where is None or self.where.matches(notice)

    def checks(self, notice: Notice) -> Iterator[Check]:
        """Yield the result of each condition; the hook receives the event if all of them hold."""
        status, task = notice.status, notice.task
        on = [str(one) for one in (*Status, GIVEN_UP) if one in self.on]
        yield Check("on", on, status, status in self.on)
        if self.providers:
            is_included = task.provider in self.providers
            yield Check("providers", sorted(self.providers), task.provider, is_included)
        if self.match != "*":
            is_matched = fnmatchcase(task.reference or "", self.match)
            yield Check("match", self.match, task.reference, is_matched)
        if self.where is not None:
            yield from self.where.checks(notice)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one hook.

    A delivery that waits for the delivery of the hook named by `after` is due when that delivery
    ends, or at `due_at` if that is earlier. If `due_at` is None, the wait has no limit.
    """

    id: int
    task_id: str
    status: str  # of the transition
    hook: str
    state: State
    attempts: int
    due_at: int | None
    retries_from: int = 0  # attempts before the last redelivery, which do not count as retries
    after: str | None = None
    ended_at: int | None = None
    output: Mapping[str, Any] = field(default_factory=dict, hash=False)  # what the hook returned

    def lacks_hook(self, hooks: Collection[str]) -> bool:
        """Return whether it waits because its hook is not in `hooks`, those of the hooks file."""
        return self.state is State.PENDING and self.hook not in hooks

    def is_waiting(self, now: int) -> bool:
        """Return whether it is still waiting for the delivery of the hook named by `after`."""
        if self.after is None or self.state is not State.PENDING:
            return False
        return self.due_at is None or (self.attempts == self.retries_from and now < self.due_at)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a delivery, after it has ended."""

    number: int
    started_at: int
    ended_at: int
    outcome: str  # "delivered", "failed" or "abandoned" (its worker died)
    answer: str  # the response of the endpoint, or the error

    @property
    def duration_ms(self) -> int:
        """The duration of the attempt; 0 if the clock was set back during it."""
        return max(0, self.ended_at - self.started_at)


@dataclass(frozen=True, slots=True)
class File:
    """A file that a hook stored for one output."""

    media_index: str
    url: str  # its path, or its URL in an object store
    sha256: str  # hex
    size: int  # bytes
    content_type: str
    thumbnail: bytes | None = field(default=None, repr=False)  # a JPEG of at most 40 kB


@dataclass(frozen=True, slots=True)
class Transition:
    """A recorded status change of a task, once per task and status."""

    status: str
    occurred_at: int
    recorded_at: int
    trust: Trust
    corrected: bool = False
    revision: int = 0  # how often results of other provider tasks have replaced it


def evidence(task: Task, transition: Transition) -> Trust | None:
    """Return the evidence for a transition; None if it was an action of our own."""
    is_own = transition.status in (Status.CREATED, GIVEN_UP) or (
        transition.status == Status.FAILED and task.was_never_sent
    )
    return None if is_own else transition.trust


@dataclass(frozen=True, slots=True)
class Notice:
    """Everything that a hook receives about one transition."""

    task: Task
    transition: Transition
    media: tuple[Media, ...] = ()
    files: tuple[File, ...] = ()  # stored by any hook
    made: tuple[File, ...] = ()  # stored by this hook in attempts since the last redelivery
    outputs: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # of other hooks, by name
    is_test: bool = False  # whether this is a test event, without a transition
    zone: tzinfo = UTC  # the time zone of times that people read; the JSON uses UTC

    @property
    def id(self) -> str:
        """The idempotency key: the same for every attempt and every hook.

        A corrected result under the same status has another key, so that consumers accept it.
        """
        key = f"{self.task.id}:{self.transition.status}"
        return f"{key}:{self.transition.revision}" if self.transition.revision else key

    @property
    def status(self) -> str:
        """The status of the transition."""
        return self.transition.status

    @property
    def type(self) -> str:
        """The type of the event, such as `task.succeeded`."""
        return f"task.{self.transition.status}"

    @property
    def trust(self) -> Trust | None:
        """The evidence for the transition; None if we made it ourselves."""
        # Only a provider reports success; we can conclude the other statuses ourselves.
        if self.transition.status == Status.SUCCEEDED:
            return self.transition.trust
        return evidence(self.task, self.transition)

    def file_of(self, media: Media) -> File | None:
        """Return the file that a download stored for this output, if there is one."""
        return next((file for file in self.files if file.media_index == media.index), None)

    def with_files(self, files: tuple[File, ...]) -> Notice:
        """Return the same notice with these files."""
        return replace(self, files=files)

    def as_json(self) -> dict[str, Any]:
        """Return the event as hooks and the API show it; keys may be added, but not changed."""
        transition = self.transition
        files = {file.media_index: file for file in reversed(self.files)}  # the first one counts
        outputs = []
        for media in self.media:
            file = files.get(media.index)
            outputs.append(
                {
                    "kind": media.kind,
                    "index": media.index,
                    "url": media.url,
                    "expires_at": None if media.expires_at is None else rfc3339(media.expires_at),
                    "file": file.url if file else None,
                    "sha256": file.sha256 if file else None,
                    "size": file.size if file else None,
                }
            )
        return {
            "id": self.id,
            "type": self.type,
            "occurred_at": rfc3339(transition.occurred_at),
            "task": task_json(self.task),
            "media": outputs,
            "trust": self.trust,
            "corrected": transition.corrected,
            **({"outputs": dict(self.outputs)} if self.outputs else {}),
            **({"test": True} if self.is_test else {}),
        }


def task_json(task: Task) -> dict[str, Any]:
    """Return a task as hooks, commands and the API show it; keys may be added, but not changed."""
    return {
        "id": task.id,
        "provider": task.provider,
        "account": task.account,
        "provider_task_id": task.id_at_provider,
        "reference": task.reference,
        "model": task.model,
        "status": task.status.value,
        "reason": task.reason,
        "cost": task.cost,
        "cost_unit": task.cost_unit,
        "created_at": rfc3339(task.created_at),
        "given_up_at": None if task.given_up_at is None else rfc3339(task.given_up_at),
        "metadata": dict(task.metadata),
    }
