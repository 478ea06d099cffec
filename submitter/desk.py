"""Creates a task in two phases: on record first, then at the provider, never paid for twice.

Whatever goes wrong on the way, the row tells of it: `created` means "may exist at the provider",
every other status is certain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from receiver import signing
from receiver.clock import now_ms
from receiver.errors import RequestRefused, StoreError
from receiver.events import Event, Source
from receiver.ingest import Ingest
from receiver.settings import Settings
from receiver.tasks import Status, Task, Trust, new_task_id
from submitter import images, reconcile
from submitter.errors import (
    InputError,
    NeverReached,
    NotFoundAtProvider,
    OutcomeUnknown,
    ProviderError,
)
from submitter.messages import message, words
from submitter.providers import Provider
from submitter.providers.base import TryOn
from submitter.record import opened_with
from submitter.settings import DEFAULT_ACCOUNT

ASKED_AFTER = 90_000  # ms; a try-on takes 15 to 60 s
LOOK_UP_AFTER = 2.0  # seconds; gives the provider time to file what it accepted
LONGEST_TEXT = 200  # characters of a reference or a model's name


@dataclass(frozen=True, slots=True)
class Order:
    """What a user wants made, checked: pictures as a URL or raw Base64."""

    human: str
    cloth: str
    reference: str | None = None
    model: str | None = None


def submit(
    provider: str,
    human: str,
    cloth: str,
    reference: str | None = None,
    model: str | None = None,
    account: str = DEFAULT_ACCOUNT,
) -> Task:
    """Submit one try-on and return its task as it then stands on record.

    `human` and `cloth` are each a path or an http(s) URL. `reference` is your own name for the
    task. Settings come from the environment. Raises InputError and ConfigurationError before
    anything is recorded or sent; ProviderError, with `task_id`, once the task is on record
    (OutcomeUnknown: do not submit it again blindly); and `receiver.errors.StoreError`.
    """
    with opened_with(provider, account) as (record, room):
        order = prepare(human, cloth, reference, model)
        desk = Desk(record.ingest, room, record.settings, account)
        return desk.send(desk.put_on_record(order), order)


def prepare(human: str, cloth: str, reference: str | None, model: str | None) -> Order:
    """Check everything that can be checked without the provider. Raises InputError."""
    for field, text in (("reference", reference), ("model", model)):
        if text is not None and not (0 < len(text) <= LONGEST_TEXT and text.isprintable()):
            raise InputError(field, f"use 1 to {LONGEST_TEXT} printable characters")
    return Order(images.prepare("human", human), images.prepare("cloth", cloth), reference, model)


@dataclass(frozen=True, slots=True)
class Desk:
    """Takes orders for one account of one provider."""

    ingest: Ingest
    room: Provider
    settings: Settings
    account: str = DEFAULT_ACCOUNT
    sleep: Callable[[float], None] = time.sleep

    def put_on_record(self, order: Order) -> Task:
        """The first phase: the task is `created`, durably. Raises StoreError; nothing is sent."""
        now = now_ms()
        task = Task(
            id=new_task_id(now),
            provider=self.room.name,
            status=Status.CREATED,
            created_at=now,
            updated_at=now,
            account=self.account,
            reference=order.reference,
            trust=Trust.QUERIED,
            deadline_at=now + ASKED_AFTER,
        )
        self.ingest.store.create_task(task)
        return task

    def send(self, task: Task, order: Order) -> Task:
        """The second phase: the task as it stands once the provider has taken it.

        Raises ProviderError that names the task: it is `failed` on record if the provider provably
        did not take it, and stays `created` after OutcomeUnknown.
        """
        try:
            answer = self.room.create(self._try_on(task, order))
        except OutcomeUnknown as error:
            return self._look_up(task, error)
        except ProviderError as error:
            self._refused(task, error)
            raise error.about(task.id) from None
        try:
            self.ingest.accept(message(task, answer, Source.CREATE))
        except (RequestRefused, StoreError) as error:
            unknown = OutcomeUnknown(f"the answer could not be recorded: {error}")
            return self._look_up(task, unknown)
        return self.ingest.store.task(task.id)

    def _try_on(self, task: Task, order: Order) -> TryOn:
        public_url, secret = self.settings.public_url, self.settings.callback_secrets[0]
        return TryOn(
            human=order.human,
            cloth=order.cloth,
            external_task_id=task.id,
            model=order.model,
            callback_url=public_url
            and signing.callback_url(public_url, secret, task.provider, task.id),
        )

    def _refused(self, task: Task, error: ProviderError) -> None:
        """The task does not exist at the provider: that is its end."""
        said = words(task, error.body, Source.CREATE)
        try:
            if error.code is not None:
                self.ingest.accept(said)
                return
            never = isinstance(error, NeverReached)
            event = Event(
                provider=task.provider,
                provider_task_id="",
                status=Status.FAILED,
                occurred_at=said.received_at,
                reason="never reached" if never else f"refused: {error.message}",
            )
            self.ingest.record(said, event)
        except (RequestRefused, StoreError) as trouble:
            error.message += f"; this could not be recorded: {trouble}"

    def _look_up(self, task: Task, unknown: OutcomeUnknown) -> Task:
        """Ask for the task by our id. Raises `unknown`, saying more, if that brings nothing."""
        self.sleep(LOOK_UP_AFTER)
        found = self._asked(task)
        stands = self._stands(task)
        # Moved: by the answer, or by a callback, which proves as well that it was accepted.
        if stands is not None and stands.status is not Status.CREATED:
            return stands
        raise OutcomeUnknown(
            f"{unknown.message}; {found}. It may have been accepted, and paid for: do not send it "
            f"again blindly. Ask later with: submitter status {task.id}",
            code=unknown.code,
            http_status=unknown.http_status,
            request_id=unknown.request_id,
            body=unknown.body,
        ).about(task.id) from None

    def _asked(self, task: Task) -> str:
        """Ask the provider, and what came of it in words."""
        try:
            return (
                f"looking it up brought nothing new ({reconcile.ask(self.ingest, self.room, task)})"
            )
        except NotFoundAtProvider:
            return "the provider does not know it so far"
        except (ProviderError, StoreError) as error:
            return f"looking it up failed too ({error})"

    def _stands(self, task: Task) -> Task | None:
        try:
            return self.ingest.store.task(task.id)
        except StoreError:
            return None  # what is raised then names the first trouble, which is the one to mend
