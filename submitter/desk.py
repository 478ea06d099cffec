"""Creates a task in two phases: on record first, then at the provider, never paid for twice.

Whatever goes wrong on the way, the row tells of it: `created` means "may exist at the provider",
every other status is certain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.errors import NotFound, RequestRefused, StoreError
from receiver.events import Callback, Event, Source
from receiver.ingest import Ingest
from receiver.signing import callback_urls
from receiver.tasks import Status, Task, Trust, new_task_id
from submitter import inputs, reconcile
from submitter.errors import NeverReached, NotFoundAtProvider, OutcomeUnknown, ProviderError
from submitter.messages import message, words
from submitter.orders import Order
from submitter.providers import Provider
from submitter.providers.base import TryOn
from submitter.settings import DEFAULT_ACCOUNT

# ms; longer than any create is under way, a batch that waits for a free slot included.
CREATED_WITHIN = 900_000
LOOK_UP_AFTER = 2.0  # seconds; gives the provider time to file what it accepted
REFUSED, NEVER_REACHED = "refused: ", "never reached"  # how the reason of a refused task begins


def was_not_accepted(task: Task) -> bool:
    """Does the record prove that the provider never took it, so that nothing was paid?"""
    return (
        task.status is Status.FAILED
        and not task.id_at_provider
        and (task.reason or "").startswith((REFUSED.rstrip(), NEVER_REACHED))
    )


@dataclass(frozen=True, slots=True)
class Desk:
    """Takes orders for one account of one provider."""

    ingest: Ingest
    room: Provider
    settings: Settings
    account: str = DEFAULT_ACCOUNT
    sleep: Callable[[float], None] = time.sleep

    def put_on_record(self, order: Order, task_id: str | None = None) -> Task:
        """The first phase: the task is `created`, durably; nothing is sent.

        Raises StoreError, and ValueError if a task with this id is on record.
        """
        now = now_ms()
        task = Task(
            id=task_id or new_task_id(now),
            provider=self.room.name,
            status=Status.CREATED,
            created_at=now,
            updated_at=now,
            account=self.account,
            reference=order.reference,
            model=order.model or self.room.default_model,
            trust=Trust.QUERIED,
            expects_callback=self._expects_callback,
            # A task that can be asked about by the provider's id alone is given up on otherwise.
            deadline_at=self._ask_at(now) if self.room.finds_by_our_id else now + CREATED_WITHIN,
        )
        self.ingest.store.inbox.create_task(task)
        return task

    def send(self, task: Task, order: Order) -> Task:
        """The second phase: the task as it stands once the provider has taken it.

        Raises ProviderError that names the task: it is `failed` on record if the provider provably
        did not take it, and stays `created` after OutcomeUnknown.
        """
        if self.settings.keep_inputs:  # not with the task: many may wait for its commit
            inputs.keep(self.ingest.store, task.id, order)
        try:
            answer = self.room.create(self._try_on(task, order))
        except OutcomeUnknown as error:
            return self._look_up(task, error)
        except ProviderError as error:
            self._refused(task, error)
            raise error.about(task.id) from None
        try:
            self._keep(message(task, answer, Source.CREATE))
        except (RequestRefused, StoreError) as error:
            unknown = OutcomeUnknown(f"the answer could not be recorded: {error}", body=answer.body)
            return self._look_up(task, unknown)
        if not self.room.finds_by_our_id:
            self.ingest.store.polling.postpone(task, self._ask_at(now_ms()))
        return self.ingest.store.queries.task(task.id)

    @property
    def _expects_callback(self) -> bool:
        return self.room.has_callbacks and self.settings.public_url is not None

    def _ask_at(self, now: int) -> int:
        schedule = reconcile.schedule_for(
            self.ingest,
            self.room,
            expects_callback=self._expects_callback,
            at_most=self.settings.reconcile_after,
        )
        return now + round(1000 * schedule.first)

    def _try_on(self, task: Task, order: Order) -> TryOn:
        public_url = self.settings.public_url
        callback_url = None
        if public_url and self.room.has_callbacks:
            (secret, *_) = self.settings.with_secret().callback_secrets
            callback_url = callback_urls.callback_url(public_url, secret, task.provider, task.id)
        return TryOn(
            human=self.room.pictures.encoded(order.human),
            cloth=self.room.pictures.encoded(order.cloth),
            external_task_id=task.id,
            model=order.model,
            callback_url=callback_url,
        )

    def _keep(self, said: Callback) -> None:
        """Record the answer to a create; once more, where nothing else would tell of the task."""
        try:
            self.ingest.accept(said)
        except StoreError:
            if self.room.finds_by_our_id:
                raise
            self.sleep(LOOK_UP_AFTER)
            self.ingest.accept(said)

    def _refused(self, task: Task, error: ProviderError) -> None:
        """The task does not exist at the provider: that is its end."""
        said = words(task, error.body, Source.CREATE)
        try:
            if error.code is None or not self._understood(said):
                self.ingest.record(said, _end(task, error, said.received_at))
        except (RequestRefused, StoreError) as trouble:
            error.message += f"; this could not be recorded: {trouble}"

    def _understood(self, said: Callback) -> bool:
        """Record the refusal in the provider's own words, if the receiver can read them."""
        try:
            self.ingest.accept(said)
        except RequestRefused:
            return False
        return True

    def _look_up(self, task: Task, unknown: OutcomeUnknown) -> Task:
        """Ask for the task by our id. Raises `unknown`, saying more, if that brings nothing."""
        found, advice = self._asked(task)
        stands = self._stands(task)
        # Moved: by the answer, or by a callback, which proves as well that it was accepted.
        if stands is not None and stands.status is not Status.CREATED:
            return stands
        raise OutcomeUnknown(
            f"{unknown.message}; {found}. It may have been accepted, and paid for: do not send it "
            f"again blindly. {advice}",
            code=unknown.code,
            http_status=unknown.http_status,
            request_id=unknown.request_id,
            body=unknown.body,
        ).about(task.id) from None

    def _asked(self, task: Task) -> tuple[str, str]:
        """Ask the provider; what came of it, and what to do now, in words."""
        later = f"Ask later with: submitter status {task.id}"
        if not self.room.finds_by_our_id:
            return self._cannot_ask(task)
        self.sleep(LOOK_UP_AFTER)
        try:
            outcome = reconcile.ask(self.ingest, self.room, task)
        except NotFoundAtProvider:
            return "the provider does not know it so far", later
        except (ProviderError, StoreError) as error:
            return f"looking it up failed too ({error})", later
        return f"looking it up brought nothing new ({outcome})", later

    def _cannot_ask(self, task: Task) -> tuple[str, str]:
        found = f"{task.provider} keeps no id of ours, so it cannot be looked up"
        if self._expects_callback:
            return found, "Its callback may still tell"
        try:
            self.ingest.give_up(task.id, now_ms())
        except (StoreError, NotFound) as error:
            found += f" (and that could not be recorded: {error})"
        return found, f"Look for it at {task.provider} before you submit it again"

    def _stands(self, task: Task) -> Task | None:
        try:
            return self.ingest.store.queries.task(task.id)
        except StoreError:
            return None  # what is raised then names the first trouble, which is the one to mend


def _end(task: Task, error: ProviderError, at: int) -> Event:
    never = isinstance(error, NeverReached)
    return Event(
        provider=task.provider,
        provider_task_id="",
        status=Status.FAILED,
        occurred_at=at,
        reason=NEVER_REACHED if never else f"{REFUSED}{error.message}",
    )
