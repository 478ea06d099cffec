"""A power cut loses data that was not synced, but nothing that was acknowledged with 200."""

from __future__ import annotations

import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from receiver.errors import NotFound
from receiver.stores.sqlite import SqliteStore
from tests.support.disk import WHY_NOT, Disk, can_be_installed
from tests.support.gunicorn_processes import database, launch_all, raw, send
from tests.support.installation import Installation

CALLBACKS = 160  # enough to fill the log, so that it is checkpointed and reused
AT_ONCE = 8

can_be_watched = pytest.mark.skipif(not can_be_installed(), reason=WHY_NOT)


@can_be_watched
@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_an_acknowledged_event_survives_a_power_cut(
    installation: Installation, synchronous: str
) -> None:
    """The same check finds lost events if a commit does not wait for the disk."""
    Disk(database(installation)).begin()
    if synchronous != "full":
        installation.environment["TEST_SYNCHRONOUS"] = synchronous
    launch_all(installation, "tests.support.apps.watched_disk:app")
    tasks = [f"task-{number}" for number in range(CALLBACKS)]
    # Every second callback has a form that only Flask handles; the event loop handles the rest.
    forms = ["application/json", 'application/json; charset="utf-8"'] * (CALLBACKS // 2)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sent = pool.map(lambda *of: send(installation, *of).status_code, tasks, forms)
        answers = list(sent)
    assert answers == [200] * CALLBACKS
    cuts = {task: installation.folder / "cuts" / task for task in tasks}
    checkpoints = {(cut / "receiver.db").stat().st_ino for cut in cuts.values()}
    assert len(checkpoints) > 1
    lost = [task for task, cut in cuts.items() if is_lost(cut, task)]
    shutil.rmtree(installation.folder / "cuts")
    if synchronous == "full":
        assert lost == []
    else:
        assert lost != []


def is_lost(cut: Path, task: str) -> bool:
    """Return whether the next start after the power cut would miss the event."""
    found = cut.with_name("found")
    shutil.copytree(cut, found)
    with closing(sqlite3.connect(found / "receiver.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    store = SqliteStore(found / "receiver.db")
    try:
        history = store.queries.history(task)
    except NotFound:
        return True
    finally:
        store.close()
        shutil.rmtree(found)
    bodies = [stored.callback.body for stored in history.callbacks]
    assert bodies == [raw(task)]
    assert [move.status for move in history.transitions] == ["succeeded"]
    assert len(history.deliveries) == 3  # in the same commit
    return False


def test_a_new_folder_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite syncs the folder that contains its files; we have to sync the parents."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    store = SqliteStore(tmp_path / "var" / "data" / "receiver.db")
    store.migrate()
    store.close()
    assert {tmp_path.stat().st_ino, (tmp_path / "var").stat().st_ino} <= set(synced)
