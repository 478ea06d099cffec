"""A secret in any personal column is hidden on every page."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from flask.testing import FlaskClient

from receiver.signing.callback_urls import mint
from receiver.stores.sql.activity import Rejection
from receiver.stores.sql.personal_data import TABLES
from receiver.stores.sqlite import SqliteStore
from receiver.text.display import HIDDEN
from tests.support.rich_record import Rich
from tests.support.samples import SECRET

TOKEN = mint("a-secret-of-another-installation", "kling", "task-1")
EMPTY = {"idempotency_keys", "alerts", "inputs"}  # of the record that the test uses
LINK = f"https://shop.example/callbacks/kling/task-1/{TOKEN}"
# Not text, never shown, or the operator's own name, by which pages find tasks.
NOT_HIDDEN = {"thumbnail", "key", "reference"}
PAGES = ("", "tasks", "deliveries", "dead", "endpoints", "quarantine")


def put_everywhere(folder: Path) -> None:
    """Put a callback URL and our own secret into every personal text column of every row."""
    text = f"see {LINK} and {SECRET}"
    special = {"headers": f'{{"X-Link": "{text}"}}', "body": text.encode()}
    with closing(sqlite3.connect(folder / "receiver.db")) as connection, connection:
        for name, table in TABLES.items():
            for column in table.personal.keys() - NOT_HIDDEN:
                sql = f"update {name} set {column} = ?"  # noqa: S608 - names of our tables
                changed = connection.execute(sql, (special.get(column, text),)).rowcount
                assert changed or name in EMPTY, f"no row of {name} is shown"


def test_no_page_shows_a_secret_from_the_record(
    browser: FlaskClient, rich: Rich, store: SqliteStore, tmp_path: Path
) -> None:
    del rich  # has rows in most tables
    store.activity.add_rejections([Rejection(1, "192.0.2.1", "wrong token", "POST", "/x")])
    tasks = [task.id for task in store.lists.tasks(limit=200)]
    store.close()
    put_everywhere(tmp_path)
    pages = [f"/dashboard/{page}" for page in PAGES]
    pages += [f"/dashboard/tasks/{task}" for task in tasks]
    for page in pages:
        answer = browser.get(page)
        assert answer.status_code == 200, page
        assert TOKEN not in answer.text, page
        assert SECRET not in answer.text, page
        if page.rpartition("/")[2] in ("deliveries", "endpoints", "quarantine", *tasks):
            assert HIDDEN in answer.text, page
