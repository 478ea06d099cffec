"""The contract of hook types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from receiver.deliveries import File, Notice
from receiver.endpoints import Alert
from receiver.tasks import Task


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of a successful attempt."""

    answer: str  # one line for people, such as the endpoint's response
    files: tuple[File, ...] = ()  # files that the hook stored; they are put on record
    # The output for the hooks that wait for this one: JSON values, at most 16 kB as JSON.
    output: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Preview:
    """A message as a hook would send it, for display; it may contain the hook's secrets."""

    destination: str  # one line, such as `POST https://shop.example`
    headers: Mapping[str, str]
    body: str  # lines of text


@runtime_checkable
class Hook(Protocol):
    """An action that is run when a task changes. It has no access to the store, and no state.

    Delivery is at least once: `send` may be called again with the same notice. It must pass the
    same identity (`notice.id`) to the endpoint each time.
    """

    name: str

    def send(self, notice: Notice) -> Done:
        """Deliver the notice to the endpoint; returning means success.

        Raises one of the three kinds of DeliveryFailure. TemporaryFailure: the endpoint is not
        available now. PermanentFailure: a retry cannot help (EndpointGone: for any notice).
        ContentFailure: this notice or one of its results is unusable, independent of the endpoint.
        The `files` of the failure are recorded and passed to the next attempt as `notice.made`.
        Any other exception is retried as a content failure, or as a temporary failure if it is an
        error of the network or the operating system.
        """
        ...


@runtime_checkable
class Alerting(Protocol):
    """A hook that can also report the state of another hook's endpoint (`alerts = true`)."""

    def alert(self, alert: Alert) -> None:
        """Send the alert. The same alert, with the same id, may be sent twice.

        Raises DeliveryFailure.
        """
        ...


@runtime_checkable
class Previewing(Protocol):
    """A hook that can show the message for an event without sending it."""

    def preview(self, notice: Notice) -> Preview:
        """Return the message that `send` would send. Raises DeliveryFailure."""
        ...


@runtime_checkable
class NeedsTestPicture(Protocol):
    """A hook that fetches results from a provider, so a test must supply a picture."""

    def send_test(self, notice: Notice, picture: Path) -> Done:
        """Handle the picture like a result, and then remove it. Raises DeliveryFailure."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """A hook that stores files of a task, and can find them even if they are not on record."""

    name: str

    def remove_files(self, task: Task) -> int:
        """Remove all files that attempts for this task left; return the number of results.

        Includes partial files of attempts that were killed, and empty directories that belong to
        this task alone. Raises OSError.
        """
        ...

    def tidy(self, task: Task) -> None:
        """Remove stale partial files and empty directories that failed attempts left."""
        ...


class HookType(Protocol):
    """Builds a hook from its entry in the hooks file; usually the class of the hook."""

    def __call__(self, name: str, options: Mapping[str, Any]) -> Hook:
        """Return a hook with these values of the type's own keys, in which `${NAME}` is replaced.

        Raises SettingsError with a line for every wrong key.
        """
        ...
