"""The dashboard on a real SQLite file; a browser that is logged in, and one that is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.stores.sqlite import SqliteStore
from tests.support.applications import MakeApp, applications
from tests.support.dashboard_visits import PASSWORD, FullSite, log_in
from tests.support.rich_record import Rich, fill
from tests.support.samples import SECRET

HOOKS = """
[[hook]]
name = "pictures"
type = "download"
to = "data/pictures"

[[hook]]
name = "mail"
type = "email"
host = "127.0.0.1"
from = "a@shop.example"
to = "b@shop.example"
"""


def settings_in(folder: Path) -> Settings:
    (folder / "hooks.toml").write_text(HOOKS)
    return Settings(
        database_url=f"sqlite:///{folder / 'receiver.db'}",
        callback_secrets=(SECRET,),
        hooks_file=folder / "hooks.toml",
        dashboard_password=PASSWORD,
    )


@pytest.fixture
def settings(tmp_path: Path, store: SqliteStore) -> Settings:
    store.check_schema()  # already migrated
    return settings_in(tmp_path)


@pytest.fixture
def site(settings: Settings, make_app: MakeApp) -> Flask:
    """The application. It is not named `app`, because pytest-flask would share one `g` between
    requests.
    """
    return make_app(settings)


@pytest.fixture
def stranger(site: Flask) -> FlaskClient:
    """A browser that is not logged in."""
    return site.test_client()


@pytest.fixture
def browser(site: Flask) -> FlaskClient:
    """A browser that is logged in."""
    client = site.test_client()
    assert log_in(client, PASSWORD).status_code == 302
    return client


@pytest.fixture
def rich(store: SqliteStore, tmp_path: Path) -> Rich:
    return fill(store, tmp_path / "pictures", now_ms())


@pytest.fixture(scope="module")
def full(
    tmp_path_factory: pytest.TempPathFactory, migrated: Callable[[Path], SqliteStore]
) -> Iterator[FullSite]:
    folder = tmp_path_factory.mktemp("full")
    with closing(migrated(folder / "receiver.db")) as store, applications() as make:
        rich = fill(store, folder / "pictures", now_ms())
        settings = settings_in(folder)
        site = make(settings)
        browser = site.test_client()
        assert log_in(browser, PASSWORD).status_code == 302
        yield FullSite(store, rich, settings, site, browser)
