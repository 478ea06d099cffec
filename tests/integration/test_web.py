"""What the web application is made of."""

from __future__ import annotations

from inspect import iscoroutinefunction
from pathlib import Path

from applications import MakeApp
from receiver.settings import Settings
from receiver.stores.sqlite import SqliteStore
from samples import SECRET


def test_no_function_of_the_application_is_asynchronous(
    tmp_path: Path, store: SqliteStore, make_app: MakeApp
) -> None:
    store.check_schema()  # migrated already
    url, hooks = f"sqlite:///{tmp_path / 'receiver.db'}", tmp_path / "hooks.toml"
    hooks.write_text("")
    app = make_app(Settings(url, (SECRET,), hooks_file=hooks))
    asked = [app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs]
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
