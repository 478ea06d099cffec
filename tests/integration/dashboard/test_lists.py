"""The lists: columns, filters, what deliveries wait for, and how endpoints are described."""

from __future__ import annotations

import html
import re
from functools import partial

import pytest
from flask.testing import FlaskClient

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.deliveries import Attempt, State
from receiver.endpoints import AlertKind, Endpoint
from receiver.ingest import Ingest
from receiver.stores.sql.endpoints import HookTestOutcome
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from tests.support.applications import MakeApp
from tests.support.dashboard_visits import PASSWORD, FullSite, act, log_in
from tests.support.rich_record import DEAD, MINUTE, Rich, settle
from tests.support.samples import body, callback, subscription


def rows(browser: FlaskClient, path: str) -> list[str]:
    """Return the rows of the table on a page as their text."""
    text = browser.get(f"/dashboard/{path}").text.partition("<main")[2]
    found = re.findall(r'<tr role="row"[^>]*>(.*?)</tr>', text, re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)).strip() for row in found]


def event(store: SqliteStore, hook: str = "mail") -> None:
    """Record a success, of which this hook receives an event."""
    Ingest(store, [subscription(hook)]).accept(callback(received_at=now_ms()))


def attempt(
    store: SqliteStore,
    state: State,
    outcome: str,
    endpoint: Endpoint | None,
    answer: str = "the answer",
) -> None:
    """End an attempt at the delivery that is due."""
    (delivery,) = store.outbox.claim("worker", now_ms(), now_ms() + MINUTE, 1)
    ended = Attempt(delivery.attempts, now_ms(), now_ms(), outcome, answer)
    due_at = now_ms() + 7 * MINUTE + 1_000 if state is State.PENDING else None
    change = None if endpoint is None else partial(_changed, endpoint)
    store.outbox.settle(delivery, ended, state, due_at, change=change)


def _changed(endpoint: Endpoint, _: Endpoint) -> tuple[Endpoint, AlertKind | None]:
    return endpoint, None


def state_of(browser: FlaskClient, hook: str = "mail") -> str:
    """Return the badge of an endpoint."""
    text = browser.get("/dashboard/endpoints").text.partition(f'id="hook-{hook}"')[2]
    found = re.search(r'<span class="badge (\w+)"><span[^>]*>.</span> ([^<]+)</span>', text)
    assert found
    return f"{found[1]}: {found[2]}"


# -- deliveries


def test_deliveries_have_columns_and_thumbnails(browser: FlaskClient, rich: Rich) -> None:
    header, *shown = rows(browser, "deliveries?hook=pictures&q=ORDER-0")
    assert header == "Picture Task Event Hook State Last attempt Response Action"
    (row,) = shown
    assert re.fullmatch(
        # The attempt of the record ends 140 ms after its other events.
        "ORDER-0 succeeded pictures ✓ delivered (just now|in less than 1 min) 1 attempt "
        r"downloaded 1 file Details .* Redeliver",
        row,
    )
    text = browser.get("/dashboard/deliveries?q=ORDER-0").text
    assert text.count("/dashboard/thumbnails/") == 2  # of its deliveries to two hooks
    assert f"/dashboard/tasks/{rich.succeeded}" in text


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("q=ORDER-0", 2),
        ("q=task-succeeded", 2),
        ("q=at-provider-task-succeeded", 2),
        ("q=unknown", 0),
        ("provider=kling&hook=chat&q=ORDER-1", 1),
        ("provider=modellix", 0),
        ("within=1h&q=ORDER-0", 2),
        ("until=2020-01-01T00:00", 0),
        ("state=dead&q=ORDER-0", 1),
    ],
)
def test_deliveries_are_found_by_filters(full: FullSite, query: str, count: int) -> None:
    assert len(rows(full.browser, f"deliveries?{query}")[1:]) == count


@pytest.mark.parametrize(("query", "says"), [("provider=x", "Provider"), ("since=soon", "From")])
@pytest.mark.parametrize("path", ["deliveries", "dead"])
def test_a_filter_that_cannot_be_is_named(full: FullSite, path: str, query: str, says: str) -> None:
    answer = full.browser.get(f"/dashboard/{path}?{query}")
    assert answer.status_code == 400
    assert f'role="alert">{says}:' in answer.text


def test_the_pages_of_a_list_keep_its_filters(browser: FlaskClient, store: SqliteStore) -> None:
    ingest = Ingest(store, [subscription("mail")])
    for number in range(52):
        ingest.accept(callback(task_id=f"t{number}", received_at=now_ms()))
    text = browser.get("/dashboard/deliveries?hook=mail&within=24h").text
    older = re.search(r'rel="next" href="([^"]+)"', text)
    assert older
    path = older[1].replace("&amp;", "&")
    assert "hook=mail" in path
    assert "within=24h" in path
    assert browser.get(path).text.count('<th role="rowheader"') == 2


@pytest.mark.parametrize(
    ("endpoint", "worker", "reason"),
    [
        (Endpoint("mail", paused_at=1), True, "endpoint paused by an operator, waits until"),
        (Endpoint("mail", disabled_at=1), True, "endpoint disabled, so it becomes a dead letter"),
        (
            Endpoint("mail", 5, 1, 1, now_ms() + 900 * MINUTE),
            True,
            "endpoint paused after failures, next try in 1",
        ),
        (Endpoint("mail", 5, 1, 1, 1), True, "endpoint being tested with one delivery"),
        (None, True, "due now"),
        (None, False, "no worker is running, due now"),
    ],
)
def test_a_waiting_delivery_says_what_holds_it(
    browser: FlaskClient,
    store: SqliteStore,
    endpoint: Endpoint | None,
    worker: bool,
    reason: str,
) -> None:
    event(store)
    if endpoint is not None:  # left by an attempt at another delivery
        attempt(store, State.DEAD, "failed", endpoint)
        Ingest(store, [subscription("mail")]).accept(callback(task_id="t2", received_at=now_ms()))
    if worker:
        store.activity.heartbeat("w", "worker", now_ms())
    task = "task-1" if endpoint is None else "t2"
    (row,) = rows(browser, "deliveries?state=pending")[1:]
    assert f"pending {reason}" in row
    assert reason[1:] in browser.get(f"/dashboard/tasks/{task}").text


def test_a_retry_says_when_it_is_due(browser: FlaskClient, store: SqliteStore) -> None:
    event(store)
    attempt(store, State.PENDING, "failed", None)
    assert "○ pending next try in 7 min" in rows(browser, "deliveries")[1]
    assert "Next try in 7 min." in browser.get("/dashboard/tasks/task-1").text


# -- where an action returns to


@pytest.mark.parametrize(
    ("start", "action"),
    [
        ("deliveries?hook=chat&state=dead", "deliveries/{dead}/redeliver"),
        ("dead?hook=chat", "deliveries/{dead}/redeliver"),
        ("tasks/{task}", "deliveries/{dead}/redeliver"),
        ("quarantine", "callbacks/{quarantined}/replay"),
        ("endpoints", "endpoints/mail/resume"),
        ("tasks/{open}", "tasks/{open}/ask"),
    ],
)
def test_an_action_returns_to_the_page_and_filter_it_was_started_from(
    browser: FlaskClient, rich: Rich, store: SqliteStore, start: str, action: str
) -> None:
    (dead,) = store.lists.deliveries(task_id=rich.failed, hook=DEAD)
    quarantined = store.lists.page_of_quarantine(before=None, limit=1).rows[0].id
    names = {"dead": dead.id, "task": rich.failed, "open": rich.processing}
    path = f"/dashboard/{start}".format(**names)
    target = f"/dashboard/{action}".format(**names, quarantined=quarantined)
    page = browser.get(path).text
    form = re.search(rf'action="{target}">(.*?)</form>', page, re.DOTALL)
    assert form
    fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', form[1].replace("&amp;", "&")))
    answer = browser.post(target, data=fields)
    assert answer.status_code == 303
    assert answer.location.partition("#")[0] == path


def test_redelivering_many_returns_to_the_list_it_was_started_from(
    browser: FlaskClient, rich: Rich
) -> None:
    del rich
    text = browser.get("/dashboard/dead?hook=chat&provider=kling").text
    form = re.search(r'href="(/dashboard/redeliver[^"]+)"', text)
    assert form
    counted = browser.get(form[1].replace("&amp;", "&") + "&count=1").text
    fields = re.search(r'action="/dashboard/redeliver">(<input.*?)</form>', counted, re.DOTALL)
    assert fields
    values = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', fields[1].replace("&amp;", "&")))
    assert (values["hook"], values["provider"]) == ("chat", "kling")
    answer = browser.post("/dashboard/redeliver", data=values)
    assert answer.location == "/dashboard/dead?hook=chat&provider=kling"


@pytest.mark.parametrize(
    "back",
    ["https://evil.example/", "//evil.example", "/dashboard/\\evil", "/docs", "/dashboard/x#y", ""],
)
def test_an_action_returns_to_no_other_site(browser: FlaskClient, back: str) -> None:
    form = browser.get("/dashboard/endpoints").text
    token = re.search(r'name="csrf_token" value="([^"]+)"', form)
    assert token
    data = {"csrf_token": token[1], "back": back}
    answer = browser.post("/dashboard/endpoints/mail/pause", data=data)
    assert answer.location == "/dashboard/endpoints#hook-mail"


# -- endpoints


def test_an_endpoint_with_failing_attempts_is_not_shown_as_healthy(
    browser: FlaskClient, store: SqliteStore
) -> None:
    assert state_of(browser) == "plain: not used yet"
    event(store)
    attempt(store, State.PENDING, "failed", Endpoint("mail", 1, now_ms()))
    assert state_of(browser) == "bad: failing"
    assert "The last attempt failed <time" in browser.get("/dashboard/endpoints").text
    store.endpoints.resume("mail", now_ms())
    assert state_of(browser) == "bad: last attempt failed"  # also after a content failure
    (delivery,) = store.outbox.claim("worker", now_ms(), now_ms() + MINUTE, 1)
    settle(store, delivery, State.DELIVERED, now_ms() + 1, "250 OK")
    assert state_of(browser) == "good: healthy"


def test_an_endpoint_that_refuses_everything_is_shown_and_announced(
    browser: FlaskClient, store: SqliteStore
) -> None:
    event(store)
    refusal = "http://127.0.0.1:5000 answered 401 wrong signature"
    for _ in range(3):  # a content failure has no effect on the circuit breaker
        attempt(store, State.PENDING, "failed", None, refusal)
        store.endpoints.resume("mail", now_ms())
    assert state_of(browser) == "bad: last attempt failed"
    advice = "Check that the endpoint uses the same secret as the hook."
    text = browser.get("/dashboard/endpoints").text
    assert "The last 3 attempts failed, the first of them <time" in text
    overview = browser.get("/dashboard/").text
    assert f"The hook mail: the last 3 attempts failed: {refusal}. {advice}" in overview
    (delivery,) = store.outbox.claim("worker", now_ms(), now_ms() + MINUTE, 1)
    settle(store, delivery, State.DELIVERED, now_ms() + 1, "250 OK")
    assert state_of(browser) == "good: healthy"
    assert "The hook mail:" not in browser.get("/dashboard/").text


def test_the_last_response_is_shown_even_if_the_breaker_ignores_it(
    browser: FlaskClient, store: SqliteStore
) -> None:
    event(store)
    failing = Endpoint("mail", 2, now_ms(), said="Connection refused")
    attempt(store, State.PENDING, "failed", failing, "https://x.example answered 401 No")
    shown = browser.get("/dashboard/endpoints").text
    assert "answered 401 No" in shown
    assert "Connection refused" not in shown


def test_the_last_response_is_shown_without_a_traceback(
    browser: FlaskClient, store: SqliteStore
) -> None:
    event(store)
    frames = "".join(f'  File "hook.py", line {line}, in send\n    call()\n' for line in range(50))
    answer = f"Traceback (most recent call last):\n{frames}ValueError: no picture"
    attempt(store, State.PENDING, "failed", None, answer)
    for path in ("/dashboard/endpoints", "/dashboard/"):
        shown = browser.get(path).text
        assert "ValueError: no picture" in shown
        assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (HookTestOutcome.FAILED, "bad: test failed"),
        (HookTestOutcome.DELIVERED, "good: healthy"),
    ],
)
def test_a_newer_test_event_counts_like_an_attempt(
    browser: FlaskClient, store: SqliteStore, outcome: HookTestOutcome, state: str
) -> None:
    act(browser, "/dashboard/endpoints/mail/test")
    (test,) = store.endpoints.claim_tests(now_ms(), now_ms() + MINUTE)
    store.endpoints.end_test(test, outcome, "the answer", now_ms())
    assert state_of(browser) == state


# -- quarantine and overview


def test_the_quarantine_shows_references(browser: FlaskClient, store: SqliteStore) -> None:
    store.inbox.create_task(Task("t", "kling", Status.PROCESSING, 1, 1, reference="ORDER-7"))
    store.inbox.quarantine(callback(body("odd"), "t"), "the status is unknown")
    text = browser.get("/dashboard/quarantine").text
    assert '<a href="/dashboard/tasks/t">ORDER-7</a>' in text


@pytest.mark.usefixtures("rich")
def test_recent_results_are_near_the_top_and_zeros_are_less_prominent(browser: FlaskClient) -> None:
    text = re.sub(r"\s+", " ", browser.get("/dashboard/").text)
    places = [text.index(f'id="{part}"') for part in ("newest", "now", "day", "providers")]
    assert places == sorted(places)
    assert '<li class="nothing-here"><div><strong>0</strong> <span>callbacks missed</span>' in text
    assert '<li class="alarm"><a href="/dashboard/dead"><strong>5</strong>' in text
    assert 'data-label="Callbacks missed" class="number"><span class="zero">0</span>' in text


def test_an_endpoint_shows_the_conditions_of_its_hook(
    make_app: MakeApp, settings: Settings
) -> None:
    where = 'where = { task.account = "<b>*", task.cost = { min = 1 }, media.kind = ["video"] }'
    settings.hooks_file.write_text(
        f'[[hook]]\nname = "mail"\ntype = "email"\nmatch = "ORDER-*"\n{where}\n'
    )
    browser = make_app(settings).test_client()
    log_in(browser, PASSWORD)
    text = browser.get("/dashboard/endpoints").text.partition('id="hook-mail"')[2]
    shown = html.unescape(re.sub(r"<[^>]+>", "", text))
    assert (
        'references matching ORDER-*, where task.account = "<b>*" and task.cost = { min = 1 } '
        'and media.kind = ["video"]'
    ) in shown
    assert "<b>" not in text


@pytest.mark.parametrize(("seconds", "shown"), [(120, "2 min"), (90, "90 s")])
def test_an_endpoint_shows_how_long_its_hook_waits(
    make_app: MakeApp, settings: Settings, seconds: int, shown: str
) -> None:
    pictures = '[[hook]]\nname = "pictures"\ntype = "download"\nto = "pictures"\n'
    mail = f'[[hook]]\nname = "mail"\ntype = "email"\nwait_for_files = "{seconds}s"\n'
    settings.hooks_file.write_text(pictures + mail)
    browser = make_app(settings).test_client()
    log_in(browser, PASSWORD)
    text = browser.get("/dashboard/endpoints").text
    assert f"Waits for pictures, for up to {shown}." in text
