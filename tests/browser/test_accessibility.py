"""Every page is accessible: at both widths, in both modes, with all details open."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from receiver.clock import now_ms
from receiver.deliveries import Notice, Transition
from receiver.events import Media
from receiver.hooks.mime_message import address, versions
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task, Trust
from sandbox.server import Sandbox
from tests.support import rich_record
from tests.support.accessibility import (
    ADD_STYLE,
    NARROW,
    PHONE,
    TEXT_SPACING,
    WIDE,
    fixed_texts,
    open_details,
    overflowing,
    repeated_names,
    violations,
)
from tests.support.dashboard_visits import PASSWORD
from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from tests.support.samples import body, callback, subscription
from tests.support.sandbox_client import Kling

LISTS = (
    "",
    "tasks",
    "tasks?view=gallery",
    "tasks?status=nonsense",
    "deliveries?hook=pictures",
    "dead",
    "redeliver?state=dead&count=1",
    "endpoints",
    "quarantine",
    "no/such/page",
)
RICH = rich_record.Rich()
TASKS = (
    *(RICH.succeeded, RICH.processing, RICH.not_downloaded, RICH.forgotten, RICH.hostile),
    *("task-conflict", "task-mismatch"),
)
DASHBOARD = [
    *(f"dashboard/{path}" for path in LISTS),
    *(f"dashboard/tasks/{task}" for task in TASKS),
]
SANDBOX = [
    "",
    "_sandbox/mail",
    "_sandbox/slack",
    "_sandbox/sign-in",
    "no/such/page",
]


@dataclass(frozen=True)
class Site:
    """A dashboard with everything in it, and a browser that is logged in."""

    url: str
    page: Page


@pytest.fixture(scope="module")
def site(
    chromium: Browser,
    tmp_path_factory: pytest.TempPathFactory,
    serve: Callable[[Path, SqliteStore], AbstractContextManager[str]],
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("rich")
    store = SqliteStore(folder / "receiver.db")
    store.migrate()
    rich_record.fill(store, folder / "pictures", now_ms())
    ingest = Ingest(store, [subscription("pictures")])
    for status, at_provider in (("succeed", "one"), ("failed", "one")):
        ingest.accept(callback(body(status, at_provider), "task-conflict", received_at=now_ms()))
    for at_provider in ("two", "three"):
        raw = body("processing", at_provider)
        ingest.accept(callback(raw, "task-mismatch", received_at=now_ms()))
    with serve(folder, store) as url:
        page = new_page(chromium)
        page.goto(f"{url}/dashboard/")
        assert violations(page) == []  # of the login
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{url}/dashboard/")
        yield Site(url, page)
        page.context.close()
    store.close()


@pytest.fixture(scope="module")
def sandbox(chromium: Browser) -> Iterator[Site]:
    with Sandbox() as sandbox:
        send_messages(sandbox)
        page = new_page(chromium)
        yield Site(sandbox.url, page)
        page.context.close()


def new_page(chromium: Browser) -> Page:
    context = chromium.new_context(viewport=WIDE, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE * 1000)
    return context.new_page()


def send_messages(sandbox: Sandbox) -> None:
    """Create a task whose callbacks fail, and send an e-mail with HTML and a Slack message."""
    create_task(sandbox.url)
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "ORDER-7", "a@x.example", "b@x.example"
    message.set_content("plain")
    html = '<html lang="en"><title>ORDER-7</title><main><h1>ORDER-7 succeeded</h1></main></html>'
    message.add_alternative(html, subtype="html")
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=PATIENCE) as client:
        client.send_message(message)
    blocks = [
        {"type": "header", "text": {"type": "plain_text", "text": "ORDER-7"}},
        {"type": "section", "text": {"type": "mrkdwn", "text": "*Task* <https://x.example|open>"}},
    ]
    url = f"{sandbox.url}/_sandbox/slack/T0/B0/x"
    requests.post(url, json={"text": "done", "blocks": blocks}, timeout=PATIENCE)


def create_task(sandbox_url: str) -> None:
    with requests.Session() as session:
        callback_url = f"http://127.0.0.1:{free_port()}/"
        assert Kling(sandbox_url, session).create(callback_url=callback_url).status_code == 200


def check(page: Page, address: str) -> None:
    """Check one page. It is loaded once, because only its display differs."""
    page.goto(address)
    open_details(page)
    assert violations(page) == [], address
    assert fixed_texts(page) == [], address
    assert repeated_names(page) == [], address
    assert page.locator("table:not(:has(caption))").count() == 0, address
    page.set_viewport_size(NARROW)
    assert overflowing(page) == [], address
    page.evaluate(ADD_STYLE, TEXT_SPACING)
    assert overflowing(page) == [], address


@pytest.mark.parametrize("path", DASHBOARD)
def test_a_page_of_the_dashboard_is_accessible(site: Site, path: str) -> None:
    check(site.page, f"{site.url}/{path}")


def test_the_docs_of_the_api_are_accessible(site: Site) -> None:
    site.page.goto(f"{site.url}/docs")
    site.page.wait_for_load_state("networkidle")  # a script may write the page
    expect(site.page.get_by_role("heading", level=1)).to_be_visible()
    open_details(site.page)
    assert violations(site.page) == []


@pytest.mark.parametrize("path", SANDBOX)
def test_a_page_of_the_sandbox_is_accessible(sandbox: Site, path: str) -> None:
    check(sandbox.page, f"{sandbox.url}/{path}")


def test_the_sandbox_shows_new_tasks_without_reloading(sandbox: Site) -> None:
    page = sandbox.page
    page.goto(sandbox.url)
    tasks = page.locator("#tasks article")
    count = tasks.count()
    link = page.get_by_role("link", name="Mail")
    link.focus()
    create_task(sandbox.url)
    expect(tasks).to_have_count(count + 1)
    expect(link).to_be_focused()


def test_an_email_is_accessible(sandbox: Site) -> None:
    """As a mail client displays it: in a page of its own, without scripts."""
    sender, recipient = address("a@x.example"), address("b@x.example")
    notice = Notice(
        Task("task-1", "kling", Status.SUCCEEDED, 0, 0, reference="ORDER-7"),
        Transition("succeeded", 0, 0, Trust.SIGNED),
        (Media("image", "https://cdn.example/0.png"),),
    )
    (message,) = versions(
        notice, hook="mail", sender=sender, recipients=[recipient], subject="{reference}", now=0
    )
    html = message.get_body(("html",))
    assert html is not None
    sandbox.page.set_content(html.get_content())
    assert violations(sandbox.page) == []
    sandbox.page.set_viewport_size(NARROW)
    assert overflowing(sandbox.page) == []


@pytest.mark.parametrize("path", ["", "tasks", "deliveries", "quarantine"])
def test_a_phone_has_the_same_column_headers(site: Site, path: str) -> None:
    """In the accessibility tree, and in every cell that people see."""
    page = site.page
    page.goto(f"{site.url}/dashboard/{path}")
    headers = []
    for size in (WIDE, PHONE):
        page.set_viewport_size(size)
        headers.append(page.get_by_role("columnheader").all_inner_texts())
    assert headers[0] == headers[1] != []
    shown = page.locator(".stack td:visible").evaluate_all(
        "(cells) => cells.filter((cell) => cell.dataset.label).map("
        "(cell) => [cell.dataset.label, getComputedStyle(cell, '::before').content])"
    )
    assert shown
    assert [label for label, content in shown if content != f'"{label}"'] == []


def test_a_phone_shows_all_tabs_and_the_current_one(site: Site) -> None:
    page = site.page
    page.set_viewport_size(PHONE)
    for name in ("Quarantine", "Dead letters"):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        tabs = page.get_by_role("navigation", name="Pages").get_by_role("link")
        boxes = [tab.bounding_box() for tab in tabs.all()]
        assert len(boxes) == 6
        assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
        current = page.locator("nav [aria-current=page]")
        assert name in current.inner_text()
        other = page.locator("nav[aria-label=Pages] a:not([aria-current])").first
        colours = [
            one.evaluate("(link) => getComputedStyle(link).backgroundColor")
            for one in (current, other)
        ]
        assert colours[0] != colours[1]
