"""An alert about an endpoint is sent at the right time, and once."""

from __future__ import annotations

import pytest

from receiver.deliveries import Attempt, State
from receiver.delivery.chores import AGAIN_AFTER, AlertSender
from receiver.endpoints import Alert as Message
from receiver.endpoints import AlertKind, Endpoint
from receiver.errors import PermanentFailure, TemporaryFailure
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000


class AlertHook:
    """A hook that receives alerts, unless the test makes it raise an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.told: list[Message] = []

    def alert(self, alert: Message) -> None:
        if self.error is not None:
            raise self.error
        self.told.append(alert)


@pytest.fixture
def store(store: SqliteStore) -> SqliteStore:
    """A store in which the hook "mail" has just been paused."""
    Ingest(store, [subscription("mail")]).accept(callback(body()))
    (delivery,) = store.outbox.claim("w", NOW, NOW + 1, 1)
    attempt = Attempt(1, NOW, NOW, "failed", "refused")
    opened = Endpoint("mail", 5, NOW, 1, NOW + 30_000, said="refused")
    store.outbox.settle(
        delivery, attempt, State.PENDING, NOW, change=lambda _: (opened, AlertKind.PAUSED)
    )
    return store


def send(store: SqliteStore, *hooks: tuple[str, AlertHook], now: int = NOW) -> None:
    AlertSender(store, hooks, clock=lambda: now).send()


def test_every_other_hook_sends_the_alert_once(store: SqliteStore) -> None:
    itself, chat, phone = AlertHook(), AlertHook(), AlertHook()
    for _ in range(3):
        send(store, ("mail", itself), ("chat", chat), ("phone", phone), now=NOW + 2 * AGAIN_AFTER)
    assert itself.told == []
    assert len(chat.told) == len(phone.told) == 1
    (message,) = chat.told
    assert (message.hook, message.kind, message.said) == ("mail", AlertKind.PAUSED, "refused")
    assert "mail" in message.title
    assert "refused" in message.text


def test_an_alert_is_retried_until_a_hook_has_sent_it(store: SqliteStore) -> None:
    chat = AlertHook(TemporaryFailure("no answer"))
    send(store, ("chat", chat))
    chat.error = None
    send(store, ("chat", chat), now=NOW + AGAIN_AFTER - 1)
    assert chat.told == []  # not due yet
    send(store, ("chat", chat), now=NOW + AGAIN_AFTER)
    assert len(chat.told) == 1


def test_one_successful_hook_is_enough(store: SqliteStore) -> None:
    chat, broken = AlertHook(), AlertHook(TemporaryFailure("no answer"))
    for round_ in range(3):
        send(store, ("chat", chat), ("broken", broken), now=NOW + round_ * AGAIN_AFTER)
    assert len(chat.told) == 1


def test_without_a_hook_for_alerts_there_is_no_retry(store: SqliteStore) -> None:
    send(store, ("chat", AlertHook(PermanentFailure("404"))))
    assert store.endpoints.take_alerts(NOW + 10**9, NOW) == []


def test_an_alert_of_the_previous_day_is_dropped(store: SqliteStore) -> None:
    chat = AlertHook()
    send(store, ("chat", chat), now=NOW + 86_400_001)
    assert chat.told == []
