"""The structure of the web application."""

from __future__ import annotations

import threading
from collections.abc import Callable
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest

from receiver.config.settings import Settings
from receiver.signing.callback_urls import mint
from receiver.stores.sqlite import SqliteStore
from tests.support.applications import MakeApp, applications
from tests.support.patience import wait_until
from tests.support.samples import SECRET, body


def test_no_function_of_the_application_is_asynchronous(
    tmp_path: Path, store: SqliteStore, make_app: MakeApp
) -> None:
    store.check_schema()  # already migrated
    url, hooks = f"sqlite:///{tmp_path / 'receiver.db'}", tmp_path / "hooks.toml"
    hooks.write_text("")
    app = make_app(Settings(url, (SECRET,), hooks_file=hooks))
    asked: list[dict[Any, list[Any]]] = [
        app.before_request_funcs,
        app.after_request_funcs,
        app.teardown_request_funcs,
    ]
    around = [one for table in asked for found in table.values() for one in found]
    handlers = [
        one
        for by_status in app.error_handler_spec.values()
        for by_type in by_status.values()
        for one in by_type.values()
    ]
    found = [*app.view_functions.values(), *around, *handlers]
    assert len(found) > 40
    assert not [one.__qualname__ for one in found if iscoroutinefunction(one)]


def test_a_closed_application_leaves_no_file_or_thread(
    tmp_path: Path, migrated: Callable[[Path], SqliteStore]
) -> None:
    """The application has counted and written. Thousands of tests create one."""
    migrated(tmp_path / "receiver.db").close()
    chosen = Settings(f"sqlite:///{tmp_path / 'receiver.db'}", (SECRET,))
    url = f"/callbacks/kling/task-1/{mint(SECRET, 'kling', 'task-1')}"
    before = threading.active_count()
    with applications() as make:
        client = make(chosen).test_client()
        assert client.post(url, data=body(), content_type="application/json").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert open_below(tmp_path)
    assert open_below(tmp_path) == []
    wait_until(lambda: threading.active_count() <= before)  # a cancelled timer's thread ends


def open_below(folder: Path) -> list[Path]:
    """Return the files below the folder that this process has open."""
    links = Path("/proc/self/fd")
    if not links.is_dir():
        pytest.skip("this system has no /proc/self/fd, which lists the open files")
    return [one for one in folder.iterdir() for link in links.iterdir() if is_of(link, one)]


def is_of(link: Path, file: Path) -> bool:
    return link.exists() and link.samefile(file)
