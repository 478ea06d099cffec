"""Flask on a real SQLite file."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from receiver.config.settings import Settings
from receiver.stores.sqlite import SqliteStore
from tests.support.applications import MakeApp
from tests.support.samples import SECRET

HOOKS = """
[[hook]]
name = "mail"
type = "email"
host = "127.0.0.1"
from = "a@shop.example"
to = "b@shop.example"
"""


@pytest.fixture
def settings(tmp_path: Path, store: SqliteStore) -> Settings:
    store.check_schema()  # already migrated
    (tmp_path / "hooks.toml").write_text(HOOKS)
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'receiver.db'}",
        callback_secrets=(SECRET,),
        hooks_file=tmp_path / "hooks.toml",
    )


@pytest.fixture
def app(settings: Settings, make_app: MakeApp) -> Flask:
    return make_app(settings)
