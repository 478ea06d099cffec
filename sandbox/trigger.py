"""Sends the callbacks of one scenario to any receiver: a temporary sandbox runs one task."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from sandbox.callback_sender import Persistence
from sandbox.engine import CreateRequest, Task
from sandbox.ledger import LedgerEntry
from sandbox.providers.input_pictures import GARMENT, PERSON, sample
from sandbox.scenarios.scenario import PROVIDERS, named
from sandbox.server import Behaviour, Sandbox

# The paths of this project's receiver: the provider, and our id of the task.
CALLBACK_PATH = re.compile(r"/callbacks/(?P<provider>[a-z]+)/(?P<task>[^/]+)/[^/]+/?\Z")
MODEL = "kolors-virtual-try-on-v1"


class TriggerError(ValueError):
    """The callbacks cannot be sent. The message gives the reason."""


@dataclass(frozen=True)
class TriggerOptions:
    """The callbacks to send, and their target."""

    scenario: str
    url: str
    provider: str | None = None
    external_id: str | None = None
    webhook_secret: str | None = None
    pace: float = 0.2  # seconds
    retries: int = 3
    timeout: float = 10.0  # seconds

    def completed(self) -> TriggerOptions:
        """Return the options completed from the URL. Raises TriggerError."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TriggerError(f"{self.url} is not an http or https URL")
        changed = CALLBACK_PATH.search(parts.path)
        provider = self.provider or (changed["provider"] if changed else PROVIDERS[0])
        external = self.external_id or (
            changed["task"] if changed and provider == "kling" else None
        )
        if provider not in PROVIDERS:
            raise TriggerError(f"{provider} sends no callbacks; use {' or '.join(PROVIDERS)}")
        if named(self.scenario).needs_a_running_sandbox:
            raise TriggerError(
                f"{self.scenario} does not concern callbacks; request it from a running sandbox: "
                "POST /_sandbox/next"
            )
        return replace(self, provider=provider, external_id=external)


class Range:
    """A context manager whose sandbox serves the result picture until the end of the block."""

    def __init__(self, shot: TriggerOptions) -> None:
        """Prepare the sandbox.

        Raises TriggerError, UnknownScenarioError, SecretError and OSError.
        """
        self._shot = shot.completed()
        persistence = Persistence(shot.retries, shot.pace, shot.timeout)
        behaviour = Behaviour(
            shot.pace, webhook_secret=shot.webhook_secret, persistence=persistence
        )
        self.sandbox = Sandbox(behaviour=behaviour)
        self._task: Task | None = None

    def __enter__(self) -> Range:
        self.sandbox.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.sandbox.__exit__(*error)

    def fire(self) -> Iterator[LedgerEntry]:
        """Run the task, and yield every attempt at a callback when it ends."""
        shot = self._shot
        order = CreateRequest(
            provider=shot.provider or PROVIDERS[0],
            model=MODEL,
            human=sample(PERSON),
            cloth=sample(GARMENT),
            callback_url=shot.url,
            external_task_id=shot.external_id,
        )
        self._task = self.sandbox.play(order, shot.scenario)
        seen: set[int] = set()
        while not self._is_over():
            yield from self._ended(seen)
            time.sleep(0.02)
        yield from self._ended(seen)

    def missing(self) -> list[str]:
        """Return the statuses whose callbacks should have been acknowledged but were not."""
        entries = [entry for entry in self.sandbox.ledger.entries() if entry.insisted]
        changed = {entry.body_sha256 for entry in entries if entry.acknowledged}
        open_ones = {e.body_sha256: e.status for e in entries if e.body_sha256 not in changed}
        return list(open_ones.values())

    def _is_over(self) -> bool:
        return self._task is not None and self.sandbox.is_quiet(self._task.task_id)

    def _ended(self, seen: set[int]) -> Iterator[LedgerEntry]:
        for entry in self.sandbox.ledger.entries():
            if entry.answered_at is not None and entry.number not in seen:
                seen.add(entry.number)
                yield entry
