"""While two endpoints of the sandbox hang, the delivery of a third hook is made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from receiver.deliveries import State
from receiver.delivery.attempt import DeliveryWorker
from receiver.delivery.dispatcher import dispatcher
from receiver.hooks.base import Hook
from receiver.hooks.email import Email
from receiver.hooks.slack import Slack
from receiver.hooks.webhook import Webhook
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from sandbox.server import Sandbox
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback, subscription

SIGNING_KEY = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture(params=["sqlite", "postgres"])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    fresh: Callable[[], str],
    migrated: Callable[[Path], Store],
) -> Iterator[Store]:
    if request.param == "sqlite":
        made = migrated(tmp_path / "receiver.db")
    else:
        made = PostgresStore(fresh())
    yield made
    made.close()


def hooks(sandbox: Sandbox) -> dict[str, Hook]:
    """A mail server that hangs at DATA, a webhook consumer that hangs, and a working Slack."""
    mail = {
        "host": "127.0.0.1",
        "port": sandbox.smtp_port,
        "starttls": "never",
        "from": "callbacks@shop.example",
        "to": ["hang@shop.example"],
    }
    consumer = {
        "url": f"{sandbox.url}/_sandbox/hang",
        "secrets": [SIGNING_KEY],
        "deadline": PATIENCE,
        "allow_private": True,
    }
    chat = {"url": f"{sandbox.url}/_sandbox/slack/test", "allow_private": True}
    return {
        "mail": Email("mail", {**mail, "deadline": PATIENCE}),
        "consumer": Webhook("consumer", consumer),
        "chat": Slack("chat", chat),
    }


def test_a_mail_server_and_a_consumer_that_hang_do_not_delay_the_chat(store: Store) -> None:
    stop = threading.Event()
    with Sandbox() as sandbox:
        made = dispatcher(DeliveryWorker(store, hooks(sandbox), concurrency=4))
        worker = threading.Thread(target=made.run, args=(stop,))
        for number in range(4):
            for hook in ("mail", "consumer"):
                message = callback(body(), f"{hook}-{number}")
                Ingest(store, [subscription(hook)]).accept(message)
        worker.start()
        try:
            wait_until(lambda: len(store.lists.deliveries(state=State.CLAIMED)) == 3)
            for number in range(2):
                message = callback(body(), f"chat-{number}")
                Ingest(store, [subscription("chat")]).accept(message)
            wait_until(lambda: len(store.lists.deliveries(state=State.DELIVERED)) == 2)
            assert {found.hook for found in store.lists.deliveries(state=State.CLAIMED)} == {
                "mail",
                "consumer",
            }
            assert len(sandbox.slack_messages()) == 2
            assert sandbox.mails() == []
        finally:
            stop.set()
    worker.join(PATIENCE)  # the sandbox has closed the connections
    assert not worker.is_alive()
