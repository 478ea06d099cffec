"""Failed results, from the attempt to the record, and their effects on other deliveries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.deliveries import State
from receiver.delivery.attempt import DeliveryWorker
from receiver.endpoints import Circuit
from receiver.events import Source
from receiver.hooks.download import Download
from receiver.ingest import Ingest
from receiver.stores.sql.claims import ClaimedDelivery
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Trust
from tests.support.attempts import current_notice, make_attempt
from tests.support.hook_servers import Page, Site, picture
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        made.pages["/good"] = Page(picture())
        yield made


class Shop:
    """A record with a download and an email that waits for it; the test sets the clock."""

    def __init__(self, store: SqliteStore, site: Site, folder: Path) -> None:
        self.store, self.site, self.now = store, site, NOW
        hooks = [subscription("pictures"), subscription("mail", after="pictures")]
        self.ingest = Ingest(store, hooks)
        hook = Download("pictures", {"to": str(folder), "allow_private": True})
        self.deliver = DeliveryWorker(store, {"pictures": hook}, clock=lambda: self.now)

    def succeed(self, task: str, *paths: str, **more: Any) -> Outcome:
        """Report that the task succeeded, with outputs at these paths."""
        images = [{"index": n, "url": f"{self.site.url}{path}"} for n, path in enumerate(paths)]
        raw = body(task_id=f"provider's {task}", task_result={"images": images})
        if more.get("source") is Source.QUERY:
            raw = b'{"code": 0, "message": "ok", "data": ' + raw + b"}"
        return self.ingest.accept(callback(raw, task, received_at=self.now, **more))

    def attempt(self) -> State:
        """Make the next attempt of the download that is due."""
        return make_attempt(self.deliver, self.claimed())

    def claimed(self) -> ClaimedDelivery:
        (delivery,) = self.store.outbox.claim("w", self.now, self.now + 10_000, 1)
        assert delivery.hook == "pictures"
        return delivery

    def wait_until_due(self) -> None:
        self.now = self.store.outbox.next_due_at(self.now) or self.now

    def files(self, task: str) -> list[str]:
        history = self.store.queries.history(task)
        return [file.media_index for files in history.files.values() for file in files]

    def paths_asked(self) -> list[str]:
        asked = [request.path for request in self.site.requests]
        self.site.requests.clear()
        return asked


@pytest.fixture
def shop(store: SqliteStore, site: Site, tmp_path: Path) -> Shop:
    return Shop(store, site, tmp_path / "pictures")


UNUSABLE = {
    "page": Page(b"<!doctype html><title>Sorry</title>"),
    "xml": Page(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'),
    "text": Page(b"error code: 1015"),
    "svg": Page(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "cut short": Page(picture()[:-40]),
    "empty": Page(b""),
    "expired": Page(b"<Error/>", 403),
    "signature": Page(b"<Error/>", 400),
    "login": Page(b"", 302, {"Location": "/page"}),
    "loop": Page(b"", 302, {"Location": "/bad"}),
    "nowhere": Page(b"", 302, {"Location": "ftp://127.0.0.1/"}),
    "part": Page(picture(), 206, {"Content-Range": "bytes 0-9/20"}),
    "not ready": Page(b"", 202),
    "not gzip": Page(picture(), 200, {"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_results_do_not_block_other_customers(shop: Shop, kind: str) -> None:
    shop.site.pages |= {"/bad": UNUSABLE[kind], "/page": UNUSABLE["page"]}
    for number in range(6):
        shop.succeed(f"bad-{number}", "/bad")
    for _ in range(6):
        assert shop.attempt() is State.PENDING
        shop.now += 6_000  # five failures in 20 s would open the circuit
    assert shop.store.endpoints.all() == []
    shop.succeed("good", "/good")
    due = shop.store.outbox.claim("w", shop.now, shop.now + 10_000, 100)
    (good,) = (delivery for delivery in due if delivery.task_id == "good")
    assert make_attempt(shop.deliver, good) is State.DELIVERED


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_an_unavailable_server_opens_the_circuit(shop: Shop, status: int) -> None:
    shop.site.pages["/bad"] = Page(b"", status)
    for number in range(5):
        shop.succeed(f"bad-{number}", "/bad")
    for _ in range(5):
        assert shop.attempt() is State.PENDING
        shop.now += 6_000
    assert shop.store.endpoints.of("pictures").circuit(shop.now) is Circuit.OPEN


@pytest.mark.parametrize("missing", [0, 1])
def test_downloaded_files_are_recorded_and_only_the_rest_is_fetched_again(
    shop: Shop, missing: int
) -> None:
    paths = ["/good", "/good?second"]
    shop.site.pages["/good?second"] = Page(picture())
    shop.site.pages[paths[missing]] = Page(b"", 503)
    shop.succeed("two", *paths)
    assert shop.attempt() is State.PENDING
    assert shop.paths_asked() == paths
    assert shop.files("two") == [str(1 - missing)]
    for _ in range(2):
        shop.wait_until_due()
        assert shop.attempt() is State.PENDING
        assert shop.paths_asked() == [paths[missing]]
    shop.site.pages[paths[missing]] = Page(picture())
    shop.wait_until_due()
    assert shop.attempt() is State.DELIVERED
    assert shop.paths_asked() == [paths[missing]]
    assert shop.files("two") == ["0", "1"]


def test_the_email_lists_the_downloaded_files_although_the_download_is_dead(shop: Shop) -> None:
    shop.succeed("two", "/good", "/gone")
    while shop.attempt() is State.PENDING:
        shop.wait_until_due()
    assert shop.paths_asked() == ["/good", *["/gone"] * 8]
    (mail,) = shop.store.outbox.claim("w", shop.now, shop.now + 10_000, 10)
    assert mail.hook == "mail"
    notice = current_notice(shop.deliver, mail)
    assert [notice.file_of(media) is not None for media in notice.media] == [True, False]


def test_a_redelivery_fetches_all_outputs(shop: Shop) -> None:
    shop.succeed("two", "/good", "/gone")
    while shop.attempt() is State.PENDING:
        shop.wait_until_due()
    (dead,) = shop.store.lists.deliveries(hook="pictures")
    shop.store.outbox.claim("w", shop.now, NOW + 10**9, 1)  # the email
    shop.paths_asked()
    shop.store.outbox.redeliver(dead.id, shop.now)
    assert shop.attempt() is State.PENDING
    assert shop.paths_asked() == ["/good", "/gone"]
    shop.wait_until_due()
    assert shop.attempt() is State.PENDING
    assert shop.paths_asked() == ["/gone"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refused_url_is_replaced_for_the_missing_outputs(shop: Shop, status: int) -> None:
    shop.site.pages["/expired"] = Page(b"<Error><Code>ExpiredToken</Code></Error>", status)
    shop.succeed("two", "/good", "/expired")
    assert shop.store.polling.next_deadline_at() is None
    assert shop.attempt() is State.PENDING
    (asked,) = shop.store.polling.claim_overdue(shop.now, shop.now + 60_000, 10)
    assert asked.id == "two"
    shop.site.pages |= {f"/fresh{n}": Page(picture()) for n in range(2)}
    fresh = shop.succeed("two", "/fresh0", "/fresh1", source=Source.QUERY, trust=Trust.QUERIED)
    assert fresh is Outcome.DUPLICATE
    shop.paths_asked()
    shop.wait_until_due()
    assert shop.attempt() is State.DELIVERED
    assert shop.paths_asked() == ["/fresh1"]
    assert shop.files("two") == ["0", "1"]
    assert shop.store.endpoints.all() == []


def test_forgetting_a_task_removes_the_files_of_failed_attempts(shop: Shop) -> None:
    shop.succeed("two", "/good", "/gone")
    shop.attempt()
    (file,) = shop.store.erasures.close_task("two", shop.now).files
    assert Path(file.url).read_bytes() == picture()
