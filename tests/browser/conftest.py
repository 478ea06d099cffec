"""The dashboard in a real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from werkzeug.serving import make_server

from receiver.settings import Settings
from receiver.stores.sqlite import SqliteStore
from receiver.web import create_app
from tests.support.dashboard_visits import PASSWORD
from tests.support.samples import SECRET

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = "no Chromium found: apt-get install chromium"
HOOKS = """
[[hook]]
name = "pictures"
type = "download"
on = ["succeeded"]
to = "data/pictures"

[[hook]]
name = "mail"
type = "email"
host = "127.0.0.1"
from = "a@shop.example"
to = "b@shop.example"

[[hook]]
name = "chat"
type = "slack"
url = "https://hooks.example/"
"""


@pytest.fixture(scope="module")  # while Playwright is up, this thread has a running event loop
def chromium() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(INSTALL)
    # Chromium's own cage does not work for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def url(tmp_path: Path, store: SqliteStore) -> Iterator[str]:
    """The web process, in a thread of ours."""
    with serving(tmp_path, store) as url:
        yield url


@pytest.fixture(scope="module")
def serve() -> Callable[[Path, SqliteStore], AbstractContextManager[str]]:
    """The same for whoever has a record of his own, `receiver.db` in a folder."""
    return serving


@contextmanager
def serving(folder: Path, store: SqliteStore) -> Iterator[str]:
    store.check_schema()
    (folder / "hooks.toml").write_text(HOOKS)
    app = create_app(
        Settings(
            database_url=f"sqlite:///{folder / 'receiver.db'}",
            callback_secrets=(SECRET,),
            hooks_file=folder / "hooks.toml",
            dashboard_password=PASSWORD,
        )
    )
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A fresh browser."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def visitor(context: BrowserContext, url: str) -> Page:
    """Stands before the door."""
    page = context.new_page()
    page.goto(f"{url}/dashboard/")
    return page


@pytest.fixture
def page(visitor: Page, url: str) -> Iterator[Page]:
    """Logged in. At the end nothing was asked of others, and the browser complained of nothing."""
    faults: list[str] = []
    asked: list[str] = []
    visitor.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    visitor.on("pageerror", lambda error: faults.append(str(error)))
    visitor.on("request", lambda request: asked.append(request.url))
    visitor.get_by_label("Password").fill(PASSWORD)
    visitor.get_by_role("button", name="Log in").click()
    visitor.wait_for_url(f"{url}/dashboard/")
    yield visitor
    assert [one for one in asked if not one.startswith(url)] == []
    assert faults == []
