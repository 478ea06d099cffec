"""PgBouncer in front of PostgreSQL: any server connection may execute a transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from receiver.doctor import record
from receiver.doctor.findings import Verdict
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.stores.postgres import PostgresStore
from tests.support.dispatching import delivered, dispatchers
from tests.support.patience import PATIENCE, wait_until
from tests.support.real_servers import Place, pgbouncer, place
from tests.support.samples import body, callback, subscription

PROCESSES, CALLBACKS = 3, 20


@pytest.fixture
def server() -> Iterator[Place]:
    with place("pgbouncer") as found:
        yield found


@pytest.fixture
def pooled(server: Place, fresh: Callable[[], str]) -> Iterator[str]:
    """The URL of an empty database behind a pooler with fewer connections than we open."""
    with pgbouncer(server, fresh(), "transaction", settings="default_pool_size = 3") as url:
        yield url


def test_processes_that_share_servers_record_and_read_without_an_error(pooled: str) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(4 * PROCESSES) as pool:
        stores = [stack.enter_context(closing(PostgresStore(pooled))) for _ in range(PROCESSES)]

        def live(number: int) -> None:
            store, task = stores[number % PROCESSES], f"task-{number}"
            ingest = Ingest(store, [subscription("mail")])
            for status in ("submitted", "processing", "succeed"):
                ingest.accept(callback(body(status), task))
            assert len(store.queries.history(task).callbacks) == 3
            assert store.queries.task(task).status == "succeeded"
            store.metrics.backlog(1)

        list(pool.map(live, range(PROCESSES * CALLBACKS)))
        assert stores[0].database.is_pooled()


def test_deliveries_are_made_without_notifications(
    pooled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.delivery.procrastinate.FETCH_EVERY", 0.05)
    with closing(PostgresStore(pooled)) as store, dispatchers(store) as start:
        start(lambda _: Done("ok"))
        for number in range(12):
            Ingest(store, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
        wait_until(lambda: delivered(store) == 12)


def test_a_lock_for_all_machines_excludes_the_others(pooled: str) -> None:
    """No server connection of the pooler keeps the lock either."""
    order: list[str] = []
    is_held, may_end = threading.Event(), threading.Event()

    def hold(store: PostgresStore) -> None:
        with store.database.alone():
            order.append("first")
            is_held.set()
            assert may_end.wait(PATIENCE)
            order.append("first ends")

    def follow(store: PostgresStore) -> None:
        with store.database.alone():
            order.append("second")

    with closing(PostgresStore(pooled)) as one, closing(PostgresStore(pooled)) as other:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(hold, one)
            assert is_held.wait(PATIENCE)
            second = pool.submit(follow, other)
            for _ in range(5):
                one.metrics.backlog(1)
            may_end.set()
            first.result(PATIENCE)
            second.result(PATIENCE)
        for _ in range(3):
            follow(other)
            follow(one)
    assert order[:3] == ["first", "first ends", "second"]


@pytest.mark.parametrize("settings", ["", "server_round_robin = 1", "default_pool_size = 1"])
def test_a_pooler_that_changes_servers_is_reported(
    server: Place, fresh: Callable[[], str], settings: str
) -> None:
    url = fresh()
    with (
        pgbouncer(server, url, "transaction", settings=settings) as pooled,
        closing(PostgresStore(pooled)) as store,
    ):
        found = [one for one in record.check(store) if "pooler" in one.said]
    assert [one.verdict for one in found] == [Verdict.WARNING]
    assert "prepared statements" in found[0].said
    assert "session mode" in found[0].todo


def test_a_pooler_in_session_mode_and_no_pooler_are_not(
    server: Place, fresh: Callable[[], str]
) -> None:
    url = fresh()
    with pgbouncer(server, url, "session") as pooled:
        for each in (url, pooled):
            with closing(PostgresStore(each)) as store:
                assert store.database.pooler() is None
                store.check_schema()
