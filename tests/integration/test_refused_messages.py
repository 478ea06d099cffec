"""Messages that an endpoint refuses are retried, and delay no other message of the hook."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from receiver.deliveries import State
from receiver.delivery.attempt import DeliveryWorker
from receiver.endpoints import Circuit
from receiver.hooks.apprise import Apprise
from receiver.hooks.base import Hook
from receiver.hooks.slack import Slack
from receiver.hooks.webhook import Webhook
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from tests.support.attempts import make_attempt
from tests.support.hook_servers import Page, Site
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
HOUR = 3_600_000  # ms
MESSAGES = 8  # enough to open a circuit
SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


def slack(site: Site) -> Hook:
    return Slack("chat", {"url": f"{site.url}/hook", "allow_private": True})


def webhook(site: Site) -> Hook:
    options = {"url": f"{site.url}/hook", "secrets": [SECRET], "allow_private": True}
    return Webhook("chat", options)


def apprise(site: Site) -> Hook:
    address = site.url.removeprefix("http://")
    return Apprise("chat", {"url": f"json://{address}/hook", "allow_private": True})


@pytest.mark.parametrize(
    ("make", "page", "circuit"),
    [
        (slack, Page(b"invalid_blocks", 400), Circuit.CLOSED),
        (slack, Page(b"rollup_error", 500), Circuit.OPEN),
        (webhook, Page(b"", 404), Circuit.CLOSED),
        (webhook, Page(b"", 400), Circuit.CLOSED),
        (webhook, Page(b"", 302, {"Location": "/"}), Circuit.CLOSED),
        (webhook, Page(b"", 503), Circuit.OPEN),
        (apprise, Page(b"", 413), Circuit.CLOSED),
        (apprise, Page(b"", 503), Circuit.OPEN),
    ],
)
def test_only_an_endpoint_that_cannot_answer_holds_up_other_messages(
    store: SqliteStore,
    site: Site,
    make: Callable[[Site], Hook],
    page: Page,
    circuit: Circuit,
) -> None:
    site.pages["/hook"] = page
    clock = [NOW]
    deliver = DeliveryWorker(store, {"chat": make(site)}, clock=lambda: clock[0])
    for number in range(MESSAGES):
        clock[0] = NOW + number * 5_000
        at, task = clock[0], f"task-{number}"
        Ingest(store, [subscription("chat")]).accept(callback(body(), task, received_at=at))
        for claimed in store.outbox.claim("w", at, at + HOUR, MESSAGES):
            assert make_attempt(deliver, claimed) is State.PENDING
    assert store.endpoints.of("chat").circuit(clock[0]) is circuit
    (delivery,) = store.lists.deliveries(task_id=f"task-{MESSAGES - 1}")
    has_waited = store.queries.delivery(delivery.id).attempts == 0
    assert has_waited is (circuit is Circuit.OPEN)
    site.pages["/hook"] = Page(b"ok")
    clock[0] += HOUR
    for claimed in store.outbox.claim("w", clock[0], clock[0] + HOUR, 100):
        assert make_attempt(deliver, claimed) is State.DELIVERED
