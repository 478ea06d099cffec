"""The examples of docs/live-events.md for browsers run in a browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from werkzeug.serving import make_server

from receiver.config.settings import Settings
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from tests.support.applications import applications
from tests.support.docs_pages import ROOT, blocks
from tests.support.hook_servers import Page as StaticPage
from tests.support.hook_servers import Site
from tests.support.live_events import TOKEN
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body, callback

EXAMPLES = {
    re.search("EventSource|fetch", block.text)[0]: block.text  # type: ignore[index]
    for block in blocks(ROOT / "docs" / "live-events.md")
    if block.language == "js"
}
SHOW = """
window.shown = [];
const show = (event) => {
  shown.push(event.id);
  document.body.textContent = shown.join(" ");
};
"""


@pytest.fixture
def shop(tmp_path: Path, store: SqliteStore) -> Iterator[tuple[str, str]]:
    """The origins of a shop's page and of the API, which allows this origin."""
    store.check_schema()
    (tmp_path / "hooks.toml").touch()

    content = b"<title>A shop</title><link rel=icon href='data:,'>"
    with Site() as site, applications() as make_app:
        site.pages["/"] = StaticPage(content, headers={"Content-Type": "text/html"})
        settings = Settings(
            f"sqlite:///{tmp_path / 'receiver.db'}",
            (SECRET,),
            hooks_file=tmp_path / "hooks.toml",
            api_token=TOKEN,
            cors_origins=(site.url,),
        )
        api = make_server("127.0.0.1", 0, make_app(settings), threaded=True)
        thread = threading.Thread(target=api.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield site.url, f"http://127.0.0.1:{api.server_port}"
        finally:
            api.shutdown()
            thread.join(PATIENCE)
            api.server_close()


@pytest.fixture
def page(chromium: Browser, shop: tuple[str, str]) -> Iterator[Page]:
    page = chromium.new_page()
    page.goto(f"{shop[0]}/")
    yield page
    page.close()


def happen(store: SqliteStore, task: str) -> None:
    Ingest(store, []).accept(callback(body(task_id=f"at-{task}"), task))


def test_a_page_of_an_allowed_origin_follows_events(
    page: Page, shop: tuple[str, str], store: SqliteStore
) -> None:
    call = f"for await (const event of liveEvents('{shop[1]}', '{TOKEN}', 'events-0')) show(event);"
    page.evaluate(f"{SHOW}; {EXAMPLES['fetch']}; (async () => {{ {call} }})(); null")
    for task in ("a", "b"):
        happen(store, task)
        expect(page.locator("body")).to_contain_text(f"{task}:succeeded")
    assert page.evaluate("shown") == ["a:succeeded", "b:succeeded"]


def test_an_event_source_follows_events_behind_a_server_that_adds_the_token(
    page: Page, shop: tuple[str, str], store: SqliteStore
) -> None:
    def add_token(route: Route) -> None:
        headers = {**route.request.headers, "authorization": f"Bearer {TOKEN}"}
        route.continue_(url=f"{shop[1]}/api/events?last_event_id=events-0", headers=headers)

    page.route(f"{shop[0]}/events", add_token)
    happen(store, "a")
    page.evaluate(f"{SHOW}; {EXAMPLES['EventSource']}; null")
    expect(page.locator("body")).to_contain_text("a:succeeded")
