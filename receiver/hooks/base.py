"""The contract of every hook room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from receiver.deliveries import File, Notice
from receiver.endpoints import Alert
from receiver.tasks import Task


@dataclass(frozen=True, slots=True)
class Done:
    """What a hook says of an attempt that worked."""

    answer: str  # one line for people: what the other side said
    files: tuple[File, ...] = ()  # files this hook made; `deliver` records them


@runtime_checkable
class Hook(Protocol):
    """What is done when a task moves. A hook never sees a store, and keeps nothing in between.

    Delivery is at least once: `send` may be called again with the same notice, and has to give
    the other side the same identity (`notice.id`) each time.
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
    """A hook that can also tell people of another hook's endpoint (`alerts = true`)."""

    def alert(self, alert: Alert) -> None:
        """Tell people. The same alert may come twice, with the same id. Raises DeliveryFailure."""
        ...


@runtime_checkable
class NeedsTestPicture(Protocol):
    """A hook that needs a provider's URL to work: a test hands it a picture instead."""

    def rehearse(self, notice: Notice, picture: Path) -> Done:
        """Do with this picture what is done with a result, and undo it. Raises DeliveryFailure."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """A hook that stores files of a task, and can find them without a record of them."""

    name: str

    def remove_files(self, task: Task) -> int:
        """Remove everything that attempts for this task left; return how many results that were.

        Includes partial files of attempts that were killed, and directories of this task alone
        once they are empty. Raises OSError.
        """
        ...

    def tidy(self, task: Task) -> None:
        """Remove what failed attempts left: old partial files, and empty directories."""
        ...


class HookType(Protocol):
    """How a room is made from its entry in the hooks file."""

    def __call__(self, name: str, options: Mapping[str, Any]) -> Hook:
        """Build the hook from the type's own keys (secrets already put in).

        Raises SettingsError that names every wrong key.
        """
        ...
