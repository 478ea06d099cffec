"""The dashboard in a real browser: Chromium, driven by Playwright."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from werkzeug.serving import make_server

from receiver.config.settings import Settings
from receiver.stores.sqlite import SqliteStore
from tests.support.applications import applications
from tests.support.dashboard_visits import PASSWORD, token
from tests.support.patience import PATIENCE
from tests.support.programs import Program, find_or_skip
from tests.support.samples import SECRET

# These files are linked only when the package is installed.
FONTS = """\
<?xml version="1.0"?>
<fontconfig>
<dir>/usr/share/fonts</dir>
<dir>{package}/usr/share/fonts</dir>
<include ignore_missing="yes">{package}/usr/share/fontconfig/conf.avail/45-latin.conf</include>
<include ignore_missing="yes">{package}/usr/share/fontconfig/conf.avail/60-latin.conf</include>
<cachedir>{cache}</cachedir>
</fontconfig>
"""
expect.set_options(timeout=PATIENCE * 1000)
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


FOLDER = Path(__file__).parent
_browsers: list[Browser] = []  # the one that runs
_running = ExitStack()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """The browser of all modules that a process runs one after the other."""
    if not _browsers:
        program = find_or_skip("chromium")
        environment = program.environment() | fonts(program, tmp_path_factory.mktemp("fonts"))
        # Chromium's own sandbox does not work for root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        playwright = _running.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=program.path, args=arguments, env={**os.environ, **environment}
        )
        _running.callback(_browsers.clear)
        _running.callback(browser.close)
        _browsers.append(browser)
    return _browsers[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Iterator[None]:
    """Close the browser before tests of other folders run.

    While Playwright is up, this thread has a running event loop, which they do not expect.
    """
    try:
        yield
    finally:
        if nextitem is None or nextitem.path.parent != FOLDER:
            _running.close()


def fonts(program: Program, folder: Path) -> dict[str, str]:
    """Return the variables that name a font configuration, if it is not installed either."""
    if program.folder is None or not (program.folder / "etc/fonts/fonts.conf").exists():
        return {}
    (folder / "fonts.conf").write_text(FONTS.format(package=program.folder, cache=folder))
    return {"FONTCONFIG_FILE": str(folder / "fonts.conf")}


@pytest.fixture
def url(tmp_path: Path, store: SqliteStore) -> Iterator[str]:
    """The URL of the web process, which runs in a thread."""
    with serving(tmp_path, store) as url:
        yield url


@pytest.fixture(scope="module")
def serve() -> Callable[[Path, SqliteStore], AbstractContextManager[str]]:
    """A function that serves another record, `receiver.db` in a folder."""
    return serving


@contextmanager
def serving(folder: Path, store: SqliteStore) -> Iterator[str]:
    store.check_schema()
    (folder / "hooks.toml").write_text(HOOKS)
    settings = Settings(
        database_url=f"sqlite:///{folder / 'receiver.db'}",
        callback_secrets=(SECRET,),
        hooks_file=folder / "hooks.toml",
        dashboard_password=PASSWORD,
    )
    with applications() as make_app:
        server = make_server("127.0.0.1", 0, make_app(settings), threaded=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(PATIENCE)
            server.server_close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A new browser context."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)
    yield context
    context.close()


@pytest.fixture
def visitor(context: BrowserContext, url: str) -> Page:
    """A page that shows the login form."""
    page = context.new_page()
    page.goto(f"{url}/dashboard/")
    return page


@pytest.fixture
def page(context: BrowserContext, url: str) -> Iterator[Page]:
    """A new page of a visitor who is logged in.

    It must request nothing from other hosts, and cause no browser errors.
    """
    log_in(context, url)
    page = context.new_page()
    faults: list[str] = []
    requests: list[str] = []
    page.on(
        "console", lambda message: faults.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    yield page
    assert [one for one in requests if not one.startswith(url)] == []
    assert faults == []


def log_in(context: BrowserContext, url: str) -> None:
    """Log in without displaying the pages, which takes less CPU time."""
    address, limit = f"{url}/dashboard/login", PATIENCE * 1000
    form = context.request.get(address, timeout=limit).text()
    sent: dict[str, str | float | bool] = {"csrf_token": token(form), "password": PASSWORD}
    response = context.request.post(address, form=sent, max_redirects=0, timeout=limit)
    assert response.headers["location"] == "/dashboard/"
