"""Test events requested on the dashboard: a worker sends them to real servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event as Signal

import pytest

from receiver import hooks, providers
from receiver.clock import now_ms
from receiver.config import hooks_file
from receiver.config.hook_secrets import secrets
from receiver.deliveries import Attempt, Notice, State
from receiver.delivery.hook_tests import LEASE, HookTestSender
from receiver.endpoints import AlertKind, Circuit, Endpoint
from receiver.hooks.base import Done, Hook
from receiver.ingest import Ingest
from receiver.stores.sql.endpoints import HookTest, HookTestOutcome
from receiver.stores.sqlite import SqliteStore
from receiver.text.display import hiding
from sandbox.server import Sandbox
from tests.support.hook_servers import Page, Site, events, refusals
from tests.support.installation import SHORT_LEASES, Installation
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import callback, subscription

PATH = "/services/T000/B000/a-secret-of-the-path"
KEY = "a-secret-of-the-environment"
HOOKS = """
[[hook]]
name = "chat"
type = "slack"
url = "${SLACK_WEBHOOK_URL}"
allow_private = true

[[hook]]
name = "ours"
type = "python"
call = "tests.support.hook_servers:on_event"
"""
SLOW_ONCE = """
[[hook]]
name = "slow-once"
type = "command"
command = ["/bin/sh", "-c", "[ -e {flag} ] && exec echo back; touch {flag}; exec tail -f /dev/null"]
"""


@pytest.fixture
def slack() -> Iterator[Site]:
    with Site() as site:
        site.pages[PATH] = Page(b"ok")
        yield site


@pytest.fixture
def worker(store: SqliteStore, slack: Site, tmp_path: Path) -> Callable[[], HookTestSender]:
    """Return a worker like that of `receiver worker`."""
    (tmp_path / "hooks.toml").write_text(HOOKS)
    environment = {"SLACK_WEBHOOK_URL": slack.url + PATH}
    entries = hooks_file.load(tmp_path / "hooks.toml", providers.status_for)
    hide = hiding([*secrets(entries, environment), KEY])
    return lambda: HookTestSender(store, hooks.build_all(entries, environment), hide)


@pytest.fixture
def ours() -> Iterator[list[Exception]]:
    """The exception that the function of the hook "ours" raises."""
    events.clear()
    yield refusals
    refusals.clear()


class Held:
    """A hook that waits until the test releases it."""

    name = "held"

    def __init__(self) -> None:
        self.asked, self.go_on = Signal(), Signal()

    def send(self, notice: Notice) -> Done:
        assert notice.is_test
        self.asked.set()
        assert self.go_on.wait(PATIENCE)
        return Done("at last")


def ask(store: SqliteStore, hook: str, status: str = "succeeded") -> None:
    assert store.endpoints.request_test(hook, status, now_ms())


def ended(store: SqliteStore, *workers: HookTestSender, hook: str = "chat") -> HookTest:
    """Run the workers until the test event of this hook has ended."""

    def trial() -> HookTest:
        (found,) = [one for one in store.endpoints.tests() if one.hook == hook]
        return found

    def has_ended() -> bool:
        for one in workers:
            one.round()
        return trial().ended_at is not None

    wait_until(has_ended, lambda: f"it did not end: {store.endpoints.tests()}")
    return trial()


def test_a_test_event_is_sent_once_and_the_response_is_stored(
    store: SqliteStore, slack: Site, worker: Callable[[], HookTestSender]
) -> None:
    ask(store, "chat")
    one = worker()
    trial = ended(store, one)
    assert (trial.outcome, trial.answer) == (HookTestOutcome.DELIVERED, "Slack answered 200 ok")
    assert trial.ended_at is not None
    assert trial.asked_at <= trial.ended_at <= now_ms()
    one.round()
    (sent,) = slack.requests
    assert json.loads(sent.body)["text"] == "TEST succeeded (kling)"
    assert store.lists.tasks() == []
    assert store.lists.deliveries() == []


def test_the_requested_status_is_sent(
    store: SqliteStore, slack: Site, worker: Callable[[], HookTestSender]
) -> None:
    ask(store, "chat", "failed")
    ended(store, worker())
    assert json.loads(slack.requests[0].body)["text"] == "TEST failed (kling)"


def test_several_workers_send_it_once(
    store: SqliteStore, slack: Site, worker: Callable[[], HookTestSender]
) -> None:
    workers = [worker() for _ in range(6)]
    for number in range(1, 6):
        ask(store, "chat")
        with ThreadPoolExecutor(len(workers)) as pool:
            list(pool.map(HookTestSender.round, workers))
        ended(store, *workers)
        assert len(slack.requests) == number


def test_a_failure_is_reported_without_secrets_and_not_retried(
    store: SqliteStore, slack: Site, worker: Callable[[], HookTestSender]
) -> None:
    slack.pages[PATH] = Page(f"no such hook: {slack.url}{PATH}".encode(), 503)
    ask(store, "chat")
    one = worker()
    trial = ended(store, one)
    assert trial.outcome is HookTestOutcome.FAILED
    assert trial.answer.startswith("Slack answered 503 no such hook")
    assert "a-secret" not in trial.answer
    one.round()
    assert len(slack.requests) == 1


@pytest.mark.parametrize("status", [200, 503, 410])
def test_a_paused_hook_is_tested_and_stays_paused(
    store: SqliteStore, slack: Site, worker: Callable[[], HookTestSender], status: int
) -> None:
    now = now_ms()
    Ingest(store, [subscription("chat")]).accept(callback())
    (delivery,) = store.outbox.claim("w", now, now + 60_000, 1)
    opened = Endpoint("chat", 5, now, 1, now + 600_000, said="503")
    change = (opened, AlertKind.PAUSED)
    attempt = Attempt(1, now, now, "failed", "503")
    store.outbox.settle(delivery, attempt, State.DEAD, None, change=lambda _: change)
    slack.pages[PATH] = Page(b"ok", status)
    ask(store, "chat")
    trial = ended(store, worker())
    assert trial.outcome == ("delivered" if status == 200 else "failed")
    assert len(slack.requests) == 1
    assert store.endpoints.of("chat") == opened
    assert opened.circuit(now_ms()) is Circuit.OPEN


def test_a_failure_does_not_open_the_circuit(
    store: SqliteStore, slack: Site, worker: Callable[[], HookTestSender]
) -> None:
    slack.pages[PATH] = Page(b"gone", 410)
    ask(store, "chat")
    ended(store, worker())
    assert store.endpoints.all() == []
    assert store.endpoints.take_alerts(now_ms(), now_ms()) == []


def test_every_exception_of_a_hook_can_be_stored(
    store: SqliteStore, ours: list[Exception], worker: Callable[[], HookTestSender]
) -> None:
    long = f"{'x' * 3000}\0\ud800 the key {KEY}"
    ours.append(ZeroDivisionError(long))
    ask(store, "ours")
    trial = ended(store, worker(), hook="ours")
    assert trial.outcome is HookTestOutcome.FAILED
    assert len(trial.answer) == 2000
    assert trial.answer.endswith(
        "xxx\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} the key …\n"
    )
    assert KEY not in trial.answer


@pytest.mark.parametrize("at", range(1990, 2002))
def test_truncation_leaves_no_part_of_a_secret(store: SqliteStore, at: int) -> None:
    class Chatty:
        name = "chatty"

        def send(self, _: Notice) -> Done:
            return Done("x" * at + KEY)

    ask(store, "chatty")
    trial = ended(store, HookTestSender(store, {"chatty": Chatty()}, hiding([KEY])), hook="chatty")
    assert trial.answer == ("x" * at + "…")[:2000]


def test_a_hook_that_the_worker_does_not_know_is_reported(
    store: SqliteStore, worker: Callable[[], HookTestSender]
) -> None:
    ask(store, "new")
    trial = ended(store, worker(), hook="new")
    assert trial.outcome is HookTestOutcome.FAILED
    assert "does not know this hook; restart the worker" in trial.answer


def test_a_test_event_that_hangs_is_renewed_and_blocks_nothing(
    store: SqliteStore, slack: Site
) -> None:
    """For three leases, it belongs to this worker, and no other worker claims it."""
    held, now = Held(), [now_ms()]
    known: dict[str, Hook] = {"held": held, "quick": Quick()}
    one, other = (HookTestSender(store, known, clock=lambda: now[0]) for _ in range(2))
    ask(store, "held")
    now[0] = now_ms()
    one.round()
    assert held.asked.wait(PATIENCE)
    for _ in range(6):
        now[0] += LEASE // 2
        one.round()
        other.round()
    ask(store, "quick")
    now[0] = max(now[0], now_ms())
    assert ended(store, one, hook="quick").answer == "quick"
    held.go_on.set()
    trial = ended(store, one, hook="held")
    assert (trial.tries, trial.answer) == (1, "at last")
    assert slack.requests == []


class Quick:
    name = "quick"

    def send(self, notice: Notice) -> Done:
        assert notice.is_test
        return Done("quick")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with Sandbox(pace=0.1) as sandbox:
        made = Installation(tmp_path, sandbox)
        made.migrate()
        yield made
        made.close()


def test_a_worker_process_sends_requested_test_events(installation: Installation) -> None:
    store = installation.store
    installation.start("worker", "receiver", "worker")
    for hook in ("slack", "mail", "pictures"):
        assert store.endpoints.request_test(hook, "succeeded", now_ms())
    wait_until(lambda: all(one.ended_at for one in store.endpoints.tests()), installation.logs)
    assert {(one.hook, one.outcome) for one in store.endpoints.tests()} == {
        (hook, HookTestOutcome.DELIVERED) for hook in ("slack", "mail", "pictures")
    }
    (mail,) = installation.sandbox.mails()
    assert "TEST" in mail.headers["subject"]
    assert installation.stop("worker") == 0


def test_a_killed_worker_does_not_lose_a_test_event(
    installation: Installation, tmp_path: Path
) -> None:
    store, file, flag = installation.store, tmp_path / "hooks.toml", tmp_path / "begun"
    file.write_text(file.read_text() + SLOW_ONCE.format(flag=flag))
    installation.start("worker", SHORT_LEASES, "receiver", "worker")
    assert store.endpoints.request_test("slow-once", "succeeded", now_ms())
    wait_until(flag.exists, installation.logs)
    installation.kill("worker")
    installation.start("worker", SHORT_LEASES, "receiver", "worker")
    wait_until(lambda: store.endpoints.tests()[0].ended_at, installation.logs)
    (trial,) = store.endpoints.tests()
    assert (trial.outcome, trial.tries) == (HookTestOutcome.DELIVERED, 2)
    assert "back" in trial.answer
