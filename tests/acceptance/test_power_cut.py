"""A power cut takes what was not synced: nothing that was answered 200 is among it."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from disk import Disk, can_be_installed
from installation import Installation
from receiver.errors import NotFound
from receiver.signing import mint
from receiver.stores.sqlite import SqliteStore
from samples import SECRET, body

CALLBACKS = 160  # enough to fill the log, so that its checkpoint and its reuse are among them
AT_ONCE = 8

can_be_watched = pytest.mark.skipif(
    not can_be_installed(),
    reason="SQLite is built into this Python and cannot be watched; take one that links "
    "libsqlite3: apt-get install python3-venv, make clean, make test PYTHON=/usr/bin/python3",
)


@can_be_watched
@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_no_200_leaves_before_its_event_outlives_a_power_cut(
    installation: Installation, synchronous: str
) -> None:
    """And the same check finds what is lost where a commit does not wait for the disk."""
    Disk(installation.folder / "receiver.db").begin()
    if synchronous != "full":
        installation.environment["TEST_SYNCHRONOUS"] = synchronous
    config = "python:receiver.web.gunicorn"
    bind = ("--bind", f"127.0.0.1:{installation.port}")
    more = ("--pythonpath", "tests", "on_a_watched_disk:app")
    installation.start("web", "gunicorn", "--config", config, *bind, *more)
    installation.wait_until_ready()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda number: send(installation, f"task-{number}"), range(CALLBACKS))
    acknowledged = [f"task-{number}" for number, status in enumerate(answers) if status == 200]
    assert len(acknowledged) == CALLBACKS
    cuts = {task: installation.folder / "cuts" / task for task in acknowledged}
    checkpoints = {(cut / "receiver.db").stat().st_ino for cut in cuts.values()}
    assert len(checkpoints) > 1
    lost = [task for task, cut in cuts.items() if is_lost(cut, task)]
    shutil.rmtree(installation.folder / "cuts")
    if synchronous == "full":
        assert lost == []
    else:
        assert lost != []


def send(installation: Installation, task: str) -> int:
    url = f"{installation.url}/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"
    headers = {"Content-Type": "application/json"}
    raw = body(task_id=f"at-kling-{task}")
    return requests.post(url, data=raw, headers=headers, timeout=20).status_code


def is_lost(cut: Path, task: str) -> bool:
    """Is the event missing from what the power cut left, as the next start would find it?"""
    found = cut.with_name("found")
    shutil.copytree(cut, found)
    store = SqliteStore(found / "receiver.db")
    try:
        with store._read() as connection:
            assert connection.execute("pragma integrity_check").fetchone()[0] == "ok"
        history = store.history(task)
    except NotFound:
        return True
    finally:
        store.close()
        store._drop_reader()
        shutil.rmtree(found)
    bodies = [stored.callback.body for stored in history.callbacks]
    assert bodies == [body(task_id=f"at-kling-{task}")]
    assert [move.status for move in history.transitions] == ["succeeded"]
    assert len(history.deliveries) == 3  # in the same commit
    return False


def test_a_new_folder_outlives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite syncs the folder its files are in; its parents are ours to sync."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    store = SqliteStore(tmp_path / "var" / "data" / "receiver.db")
    store.migrate()
    store.close()
    assert {tmp_path.stat().st_ino, (tmp_path / "var").stat().st_ino} <= set(synced)
