"""People's use of the dashboard, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from receiver.clock import now_ms
from receiver.deliveries import Attempt, State
from receiver.delivery.hook_tests import HookTestSender
from receiver.endpoints import Circuit
from receiver.hooks.slack import Slack
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from tests.support.dashboard_visits import PASSWORD
from tests.support.hook_servers import Page as PageOfSite
from tests.support.hook_servers import Site
from tests.support.patience import wait_until
from tests.support.rich_record import picture
from tests.support.samples import body, callback, subscription

MINUTE = 60_000  # ms; a page shows a change of the record within two or three seconds
REDELIVER = "Redeliver to pictures, for succeeded"
HOOKS = (subscription("pictures"), subscription("mail", after="pictures"))


def begin(store: SqliteStore) -> None:
    now = now_ms()
    store.inbox.create_task(Task("t1", "kling", Status.CREATED, now, now, reference="ORDER-7"))
    receive(store, "submitted")


def receive(store: SqliteStore, status: str) -> None:
    Ingest(store, HOOKS).accept(callback(body(status), "t1", received_at=now_ms()))


def end(store: SqliteStore, state: State, answer: str, folder: Path | None = None) -> None:
    """Make one attempt at every due delivery."""
    now = now_ms()
    for delivery in store.outbox.claim("w", now, now + 60_000, 9):
        files = [picture(folder)] if folder and delivery.hook == "pictures" else []
        attempt = Attempt(delivery.attempts, now, now + 20, "delivered", answer)
        store.outbox.settle(delivery, attempt, state, None, files)


def note(page: Page) -> Locator:
    """The text that says what an action did."""
    return page.locator("main").get_by_role("status")


def status_of(page: Page) -> str:
    return page.locator('[data-live="status"]').inner_text()


def test_a_task_is_followed_from_submission_to_its_picture(
    page: Page, url: str, store: SqliteStore, tmp_path: Path
) -> None:
    begin(store)
    page.goto(f"{url}/dashboard/tasks?q=ORDER-7")
    page.get_by_role("link", name="ORDER-7").click()
    badge = page.locator('[data-live="status"]')
    expect(badge).to_contain_text("submitted")
    page.evaluate("window.sameDocument = true")
    receive(store, "processing")
    expect(badge).to_contain_text("processing")
    receive(store, "succeed")
    end(store, State.DELIVERED, "downloaded 1 file", tmp_path / "pictures")
    expect(badge).to_contain_text("succeeded")
    thumbnail = page.get_by_alt_text("Output 1 of ORDER-7")
    expect(thumbnail).to_be_visible()
    assert page.evaluate("window.sameDocument")
    assert thumbnail.evaluate("image => image.decode().then(() => image.naturalWidth)") == 600
    with page.expect_navigation(url=re.compile("/dashboard/files/")):
        thumbnail.click()
    assert page.evaluate("document.images[0].naturalWidth") == 600


def test_a_dead_letter_is_redelivered_and_shown_as_delivered(
    page: Page, url: str, store: SqliteStore
) -> None:
    begin(store)
    receive(store, "succeed")
    end(store, State.DEAD, "550 no such mailbox")
    end(store, State.DELIVERED, "250 OK")
    page.goto(f"{url}/dashboard/")
    tabs = page.get_by_role("navigation", name="Pages")
    tabs.get_by_role("link", name="Dead letters").click()
    expect(page.get_by_text("550 no such mailbox").first).to_be_visible()
    page.get_by_role("button", name="to pictures").click()
    expect(note(page)).to_contain_text("is due again")
    (delivery,) = store.lists.deliveries(hook="pictures")
    assert delivery.state is State.PENDING
    expect(page.get_by_text("No dead letters.")).to_be_visible()  # on the same page
    tabs.get_by_role("link", name="Deliveries").click()
    row = page.locator(f"#delivery-{delivery.id}")
    expect(row).to_contain_text("pending")
    end(store, State.DELIVERED, "250 OK this time")
    expect(row).to_contain_text("250 OK this time")


def test_many_deliveries_are_redelivered_after_a_dry_run(
    page: Page, url: str, store: SqliteStore
) -> None:
    begin(store)
    receive(store, "succeed")
    end(store, State.DEAD, "no")
    page.goto(f"{url}/dashboard/dead")
    page.get_by_role("link", name="Redeliver many").click()
    page.get_by_role("button", name="Count").click()
    expect(note(page)).to_contain_text("1 delivery will be due again")
    assert store.lists.deliveries(hook="pictures")[0].state is State.DEAD
    page.get_by_role("button", name="Redeliver 1").click()
    expect(note(page)).to_contain_text("Redelivered: 1.")
    assert store.lists.deliveries(hook="pictures")[0].state is State.PENDING


def test_a_wrong_password_is_reported(visitor: Page, url: str) -> None:
    visitor.get_by_label("Password").fill("not this one")
    visitor.keyboard.press("Enter")
    expect(visitor.get_by_role("alert")).to_have_text("The password is wrong.")
    visitor.get_by_label("Password").fill(PASSWORD)
    visitor.keyboard.press("Enter")
    expect(visitor.get_by_role("heading", name="Overview")).to_be_visible()
    visitor.get_by_role("button", name="Log out").click()
    visitor.wait_for_url(f"{url}/dashboard/login")


# Updates the page when a form is submitted, and requests `handled` when the update has ended.
UPDATE_ON_SUBMIT = """() => {
  const send = window.fetch;
  window.fetch = async (...request) => {
    const response = await send(...request);
    setTimeout(() => send("/dashboard/handled"));
    return response;
  };
  const update = () => document.dispatchEvent(new Event("visibilitychange"));
  document.addEventListener("submit", update);
}"""


def test_an_update_after_the_logout_does_not_prevent_it(visitor: Page, url: str) -> None:
    """Reloading the page would cancel the form's request while the server works on it."""
    visitor.get_by_label("Password").fill(PASSWORD)
    visitor.keyboard.press("Enter")
    expect(visitor.get_by_role("heading", name="Overview")).to_be_visible()
    held: list[Route] = []
    visitor.route("**/dashboard/logout", lambda route: held.append(route))  # noqa: PLW0108
    visitor.route("**/dashboard/", lambda route: route.fulfill(status=401))
    visitor.evaluate(UPDATE_ON_SUBMIT)
    with (
        visitor.expect_request("**/dashboard/logout"),
        visitor.expect_request("**/dashboard/handled"),
    ):
        visitor.get_by_role("button", name="Log out").click(no_wait_after=True)
    visitor.context.cookies()  # the response comes after the events before it, such as the route's
    held[0].continue_()
    visitor.wait_for_url(f"{url}/dashboard/login")


def test_a_form_with_a_wrong_token_is_refused(visitor: Page, url: str, store: SqliteStore) -> None:
    visitor.get_by_label("Password").fill(PASSWORD)
    visitor.keyboard.press("Enter")
    expect(visitor.get_by_role("heading", name="Overview")).to_be_visible()
    visitor.goto(f"{url}/dashboard/endpoints")
    # otherwise, an update would contain a new token
    visitor.get_by_role("button", name="Live").click()
    visitor.evaluate(
        "for (const field of document.getElementsByName('csrf_token')) field.value = 'forged'"
    )
    visitor.get_by_role("button", name="Pause mail").click()
    expect(visitor.get_by_role("alert")).to_contain_text("Nothing was done")
    assert store.endpoints.of("mail").circuit(now_ms()) is Circuit.CLOSED


def test_a_form_on_another_site_is_sent_without_our_cookie(
    visitor: Page, url: str, store: SqliteStore
) -> None:
    visitor.get_by_label("Password").fill(PASSWORD)
    visitor.keyboard.press("Enter")
    expect(visitor.get_by_role("heading", name="Overview")).to_be_visible()
    form = f'<form method="post" action="{url}/dashboard/endpoints/mail/pause"><button>x</button>'
    visitor.route(
        "http://attacker.example/",
        lambda route: route.fulfill(body=form, content_type="text/html"),
    )
    visitor.goto("http://attacker.example/")
    visitor.get_by_role("button").click()
    expect(visitor.get_by_role("alert")).to_contain_text("Nothing was done")
    expect(visitor.get_by_role("button", name="Log out")).to_have_count(0)
    assert store.endpoints.of("mail").circuit(now_ms()) is Circuit.CLOSED


def test_a_test_event_is_requested_and_shown_as_delivered(
    page: Page, url: str, store: SqliteStore
) -> None:
    """The endpoint is real, and the test runs the worker's rounds."""
    with Site() as slack:
        slack.pages["/hook"] = PageOfSite(b"ok")
        options = {"url": f"{slack.url}/hook", "allow_private": True}
        worker = HookTestSender(store, {"chat": Slack("chat", options)})
        page.goto(f"{url}/dashboard/endpoints")
        card = page.locator("#hook-chat")
        page.get_by_role("button", name="Send a test event to chat").click()
        expect(note(page)).to_contain_text("A worker will send a test event")
        expect(card).to_contain_text("waiting for a worker. No worker is running. Start one.")
        expect(page.get_by_role("button", name="Send a test event to chat")).to_have_count(0)
        page.evaluate("window.sameDocument = true")
        store.activity.heartbeat("w", "worker", now_ms())
        expect(card).not_to_contain_text("No worker is running")
        expect(card).to_contain_text("waiting for a worker")

        def has_ended() -> bool:
            worker.round()
            return store.endpoints.tests()[0].ended_at is not None

        wait_until(has_ended)
        expect(card).to_contain_text("Slack answered 200 ok")
        expect(card).to_contain_text("delivered Test event (task.succeeded) just now")
        expect(page.get_by_role("button", name="Send a test event to chat")).to_be_visible()
        assert page.evaluate("window.sameDocument")
        assert len(slack.requests) == 1


def test_an_endpoint_is_paused_and_resumed(page: Page, url: str, store: SqliteStore) -> None:
    page.goto(f"{url}/dashboard/endpoints")
    page.get_by_role("button", name="Pause mail").click()
    expect(note(page)).to_contain_text("mail is paused")
    assert store.endpoints.of("mail").circuit(now_ms()) is Circuit.PAUSED
    page.get_by_role("button", name="Resume mail").click()
    expect(note(page)).to_contain_text("mail is resumed")


def test_a_paused_page_does_not_change(page: Page, url: str, store: SqliteStore) -> None:
    begin(store)
    followed: list[str] = []
    page.clock.install()  # so that the test can advance the page's time
    page.goto(f"{url}/dashboard/tasks/t1")
    page.get_by_role("button", name="Live").click()
    paused = page.get_by_role("button", name="Live", exact=True)
    expect(paused).to_have_attribute("aria-pressed", "false")
    receive(store, "processing")
    page.on("request", lambda sent: followed.append(sent.url) if "x-live" in sent.headers else None)
    page.clock.fast_forward(MINUTE)  # a live page would have sent a request
    assert page.evaluate("fetch(location.href).then((answer) => answer.status)") == 200
    assert followed == []
    assert "submitted" in status_of(page)
    paused.click()
    page.clock.fast_forward(MINUTE)
    expect(page.locator('[data-live="status"]')).to_contain_text("processing")


def test_a_page_is_requested_only_after_a_change(page: Page, url: str, store: SqliteStore) -> None:
    begin(store)
    followed: list[str] = []
    page.on("request", lambda sent: followed.append(sent.url) if "x-live" in sent.headers else None)
    with page.expect_response(
        lambda response: response.url.endswith("/dashboard/events")
    ) as opened:
        page.goto(f"{url}/dashboard/tasks/t1")
    assert opened.value.headers["content-type"].startswith("text/event-stream")
    badge = page.locator('[data-live="status"]')
    for status in ("processing", "succeed"):
        receive(store, status)
        expect(badge).to_contain_text(status)
    count = len(followed)
    page.clock.install()
    page.clock.fast_forward(MINUTE)  # a polling page would have sent a request
    assert page.evaluate("fetch(location.href).then((answer) => answer.status)") == 200
    assert len(followed) == count


def test_a_page_without_a_stream_is_requested_regularly(
    page: Page, url: str, store: SqliteStore
) -> None:
    begin(store)
    page.route("**/dashboard/events", lambda route: route.fulfill(status=204))
    page.goto(f"{url}/dashboard/tasks/t1")
    receive(store, "processing")
    expect(page.locator('[data-live="status"]')).to_contain_text("processing")


def test_open_details_and_keyboard_focus_survive_a_change(
    page: Page, url: str, store: SqliteStore
) -> None:
    begin(store)
    receive(store, "succeed")
    end(store, State.DEAD, "no")
    page.goto(f"{url}/dashboard/tasks/t1")
    page.locator("summary").last.click()
    page.get_by_role("button", name=REDELIVER).focus()
    end(store, State.DELIVERED, "250 OK")  # the mail, which waited for the pictures
    store.inbox.quarantine(callback(b"{}", "t1", received_at=now_ms()), "not the protocol")
    expect(page.get_by_text("250 OK").first).to_be_visible()
    expect(page.locator("details.message")).to_have_count(3)
    assert page.evaluate("document.activeElement.ariaLabel") == REDELIVER
    assert page.locator("details.message").last.get_attribute("open") is not None


def test_scroll_positions_outlast_a_change(page: Page, url: str, store: SqliteStore) -> None:
    for number in range(30):
        store.inbox.create_task(Task(f"a{number}", "kling", Status.CREATED, number, number))
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{url}/dashboard/tasks")
    page.locator("#task-a5").scroll_into_view_if_needed()
    top = "document.getElementById('task-a5').getBoundingClientRect().top"
    before = page.evaluate(top)
    assert page.evaluate("scrollY") > 0
    begin(store)
    expect(page.locator("#task-t1")).to_have_count(1)
    wait_until(lambda: abs(page.evaluate(top) - before) < 2)  # the browser has moved the page
    page.goto(f"{url}/dashboard/")
    page.locator("#day-table summary").click()
    table = page.locator("#day-table .scroll")
    table.evaluate("(region) => region.scrollTo(150, 0)")
    page.locator("#providers").evaluate("(heading) => (heading.isSameElement = true)")
    page.locator("#provider-kling a").focus()
    receive(store, "processing")
    receive(store, "failed")
    expect(page.locator("#provider-kling [data-label=Failed]")).to_have_text("1")
    assert table.evaluate("(region) => region.scrollLeft") == 150
    assert page.evaluate("document.activeElement.textContent") == "kling"


def test_focus_stays_near_an_element_that_disappears(
    page: Page, url: str, store: SqliteStore
) -> None:
    begin(store)
    receive(store, "succeed")
    end(store, State.DEAD, "no")
    (delivery,) = store.lists.deliveries(hook="pictures")
    page.goto(f"{url}/dashboard/tasks/t1")
    page.get_by_role("button", name=REDELIVER).focus()
    store.outbox.redeliver(delivery.id, now_ms())
    expect(page.get_by_role("button", name=REDELIVER)).to_have_count(0)
    near = "document.activeElement.closest('[id]').id"
    assert page.evaluate(near) == f"delivery-{delivery.id}"


@pytest.mark.parametrize("path", ["", "tasks"])
def test_new_problems_and_dead_letters_are_announced(
    page: Page, url: str, store: SqliteStore, path: str
) -> None:
    store.activity.heartbeat("w", "worker", now_ms())
    page.goto(f"{url}/dashboard/{path}")
    announcement = page.locator("#announcement[role=status]")
    expect(announcement).to_be_empty()
    store.endpoints.pause("mail", now_ms())
    expect(announcement).to_have_text("The hook mail is paused by an operator.")
    begin(store)
    receive(store, "succeed")
    end(store, State.DEAD, "no")
    expect(announcement).to_have_text("There is 1 dead letter.")
    expect(page.get_by_role("link", name="Overview 2 problems")).to_be_visible()


def test_a_missing_response_is_shown(visitor: Page, url: str, store: SqliteStore) -> None:
    visitor.get_by_label("Password").fill(PASSWORD)
    visitor.keyboard.press("Enter")
    expect(visitor.get_by_role("button", name="Live")).to_be_visible()
    visitor.clock.install()  # so that the test can advance the page's time
    visitor.goto(f"{url}/dashboard/tasks")
    visitor.route(f"{url}/dashboard/tasks", lambda route: route.fulfill(status=503, body=""))
    store.activity.heartbeat("w", "worker", now_ms())  # a change, which the page then requests
    connection = visitor.locator("#connection[role=status]")
    expect(connection).to_contain_text("The server does not respond.")
    expect(visitor.get_by_role("button", name="Live", exact=True)).to_be_visible()
    visitor.unroute(f"{url}/dashboard/tasks")
    visitor.clock.fast_forward(MINUTE)
    expect(connection).to_be_empty()
    announcement = visitor.locator("#announcement[role=status]")
    expect(announcement).to_have_text("The server responds again.")


def test_the_first_tab_stop_skips_to_the_content(page: Page, url: str) -> None:
    page.goto(f"{url}/dashboard/tasks")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_everything_works_without_scripts(chromium: Browser, url: str, store: SqliteStore) -> None:
    begin(store)
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{url}/dashboard/tasks")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Status").select_option("open")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("link", name="ORDER-7").click()
    page.get_by_role("button", name="Reconcile now").click()
    expect(note(page)).to_contain_text("The poller will query the provider now")
    expect(page.get_by_role("button", name="Live")).to_have_count(0)
    assert store.queries.task("t1").deadline_at is not None
    context.close()
