"""Creates a task in two phases: it is recorded first and then sent, so it is never paid for twice.

After any failure, the recorded status shows the outcome: `created` means that the task may exist at
the provider, and every other status is certain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.errors import NotFound, RequestRefused, StoreError
from receiver.events import Callback, Event, Source
from receiver.ingest import Ingest
from receiver.signing import callback_urls
from receiver.stores import Store
from receiver.tasks import NEVER_REACHED, Status, Task, Trust, new_task_id
from submitter.errors import (
    AlreadySubmitted,
    InputError,
    NeverReached,
    NotFoundAtProvider,
    OutcomeUnknown,
    ProviderError,
)
from submitter.pictures.inputs import TryOnInputs, store_thumbnails
from submitter.providers import Provider
from submitter.providers.base import TryOn
from submitter.queries import callback_of, query, schedule_for
from submitter.settings import DEFAULT_ACCOUNT

# ms; longer than any create request takes, including a batch's wait for a free slot.
CREATED_WITHIN = 900_000
LOOK_UP_AFTER = 2.0  # seconds, in which the provider can store a task that it accepted
RECENT = 86_400_000  # ms
ALL = 1_000_000  # tasks of one reference
# The beginning of the reason of a task that the provider did not accept; see NEVER_REACHED too.
REFUSED = "refused: "


def was_not_accepted(task: Task) -> bool:
    """Return whether the record proves that the provider neither accepted nor charged the task."""
    return (
        task.status is Status.FAILED
        and not task.id_at_provider
        and (task.reason or "").startswith((REFUSED.rstrip(), NEVER_REACHED))
    )


def submitted_before(store: Store, reference: str, provider: str | None = None) -> Task | None:
    """Return the newest task of this reference that was accepted, or may have been.

    Raises StoreUnavailable.
    """
    for task in store.lists.tasks(reference=reference, provider=provider, limit=ALL):
        if not was_not_accepted(task):
            return task
    return None


def open_or_recent(store: Store, reference: str) -> Task | None:
    """Return the newest task of this reference that is open, or was created in the last day."""
    since = now_ms() - RECENT
    for task in store.lists.tasks(reference=reference, limit=ALL):
        is_relevant = not task.status.is_terminal or task.created_at >= since
        if is_relevant and not was_not_accepted(task):
            return task
    return None


def check_once(reference: str | None) -> None:
    """Raise InputError if `once` is requested without a reference."""
    if reference is None:
        raise InputError("once", "needs a reference, of which it allows only one task")


@dataclass(frozen=True, slots=True)
class TaskCreator:
    """Creates tasks for one account of one provider."""

    ingest: Ingest
    adapter: Provider
    settings: Settings
    account: str = DEFAULT_ACCOUNT
    sleep: Callable[[float], None] = time.sleep

    def record_task(self, inputs: TryOnInputs, task_id: str | None = None) -> Task:
        """Record the task durably as `created` and return it; nothing is sent.

        Raises StoreError, and ValueError if a task with this id is recorded already.
        """
        now = now_ms()
        task = Task(
            id=task_id or new_task_id(now),
            provider=self.adapter.name,
            status=Status.CREATED,
            created_at=now,
            updated_at=now,
            account=self.account,
            reference=inputs.reference,
            model=inputs.model or self.adapter.default_model,
            metadata=inputs.metadata,
            trust=Trust.QUERIED,
            expects_callback=self._expects_callback,
            # Without the provider's id, a task that is found only by that id will be given up.
            deadline_at=self._first_query_at(now)
            if self.adapter.finds_by_our_id
            else now + CREATED_WITHIN,
        )
        self.ingest.store.inbox.create_task(task)
        return task

    def record_once(self, inputs: TryOnInputs, task_id: str | None = None) -> Task:
        """Record the task as `record_task` does, unless its reference was submitted before.

        Concurrent calls, also of other processes, record only one task of a reference. Raises
        AlreadySubmitted, and InputError without a reference.
        """
        check_once(inputs.reference)
        with self.ingest.store.database.alone():
            earlier = submitted_before(self.ingest.store, inputs.reference or "")
            if earlier is None:
                return self.record_task(inputs, task_id)
        raise AlreadySubmitted(
            f"task {earlier.id} ({earlier.status}) has the reference {inputs.reference} already; "
            "nothing was sent",
            earlier.id,
        )

    def send(self, task: Task, inputs: TryOnInputs) -> Task:
        """Send a recorded task to the provider, and return it once the provider has accepted it.

        Raises ProviderError with the id of the task. The task is then `failed` if the provider
        certainly did not accept it, and remains `created` after OutcomeUnknown.
        """
        if self.settings.keep_inputs:  # not in the commit of the task, on which others may wait
            store_thumbnails(self.ingest.store, task.id, inputs)
        try:
            answer = self.adapter.create(self._try_on(task, inputs))
        except OutcomeUnknown as error:
            return self._look_up(task, error)
        except ProviderError as error:
            self._record_refusal(task, error)
            raise error.about(task.id) from None
        try:
            self._record_answer(callback_of(task, answer.body, Source.CREATE, answer.headers))
        except (RequestRefused, StoreError) as error:
            unknown = OutcomeUnknown(
                f"the response could not be recorded: {error}", body=answer.body
            )
            return self._look_up(task, unknown)
        if not self.adapter.finds_by_our_id:
            self.ingest.store.polling.postpone(task, self._first_query_at(now_ms()))
        return self.ingest.store.queries.task(task.id)

    @property
    def _expects_callback(self) -> bool:
        return self.adapter.has_callbacks and self.settings.public_url is not None

    def _first_query_at(self, now: int) -> int:
        schedule = schedule_for(
            self.ingest,
            self.adapter,
            expects_callback=self._expects_callback,
            first_within=self.settings.reconcile_after,
        )
        return now + round(1000 * schedule.first)

    def _try_on(self, task: Task, inputs: TryOnInputs) -> TryOn:
        public_url = self.settings.public_url
        callback_url = None
        if public_url and self.adapter.has_callbacks:
            (secret, *_) = self.settings.with_secret().callback_secrets
            callback_url = callback_urls.callback_url(public_url, secret, task.provider, task.id)
        return TryOn(
            human=self.adapter.pictures.encoded(inputs.human),
            cloth=self.adapter.pictures.encoded(inputs.cloth),
            external_task_id=task.id,
            model=inputs.model,
            callback_url=callback_url,
        )

    def _record_answer(self, callback: Callback) -> None:
        """Record the response to a create.

        A second attempt is made if nothing else contains the provider's id of the task.
        """
        try:
            self.ingest.accept(callback)
        except StoreError:
            if self.adapter.finds_by_our_id:
                raise
            self.sleep(LOOK_UP_AFTER)
            self.ingest.accept(callback)

    def _record_refusal(self, task: Task, error: ProviderError) -> None:
        """Record that the task has failed, in the provider's own words if they can be parsed."""
        callback = callback_of(task, error.body, Source.CREATE)
        never_reached = isinstance(error, NeverReached)
        reason = NEVER_REACHED if never_reached else f"{REFUSED}{error.message}"
        event = Event(task.provider, "", Status.FAILED, callback.received_at, reason=reason)
        try:
            if error.code is not None:
                with suppress(RequestRefused):
                    self.ingest.accept(callback)
                    return
            self.ingest.record(callback, event)
        except (RequestRefused, StoreError) as problem:
            error.message += f"; this could not be recorded: {problem}"

    def _look_up(self, task: Task, unknown: OutcomeUnknown) -> Task:
        """Return the task if a query finds it at the provider. Otherwise raise OutcomeUnknown."""
        finding, advice = self._query(task)
        with suppress(StoreError):  # the first problem is the one to solve, so it is reported
            recorded = self.ingest.store.queries.task(task.id)
            # The status may also have been changed by a callback, which proves the same.
            if recorded.status is not Status.CREATED:
                return recorded
        unknown.message += (
            f"; {finding}. The task may have been accepted and paid for: do not "
            f"submit it again without checking. {advice}"
        )
        raise unknown.about(task.id) from None

    def _query(self, task: Task) -> tuple[str, str]:
        """Query the provider; return the finding and some advice, both as text."""
        if not self.adapter.finds_by_our_id:
            return self._without_query(task)
        advice = f"Check it later with: submitter status {task.id}"
        self.sleep(LOOK_UP_AFTER)
        try:
            outcome = query(self.ingest, self.adapter, task)
        except NotFoundAtProvider:
            return "the provider has no such task yet", advice
        except (ProviderError, StoreError) as error:
            return f"the query for the task also failed ({error})", advice
        return f"the query for the task changed nothing ({outcome})", advice

    def _without_query(self, task: Task) -> tuple[str, str]:
        finding = f"{task.provider} does not store our id, so the task cannot be queried"
        if self._expects_callback:
            return finding, "Its callback may still arrive"
        try:
            self.ingest.give_up(task.id, now_ms())
        except (StoreError, NotFound) as error:
            finding += f" (and that could not be recorded: {error})"
        return finding, f"Look for it at {task.provider} before you submit it again"
