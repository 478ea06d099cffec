"""Each line of the Procfile works on a host that installs only requirements.txt."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.stores import open_store
from tests.support.clean_venv import clean_venv
from tests.support.host import Host
from tests.support.installation import ROOT
from tests.support.patience import PATIENCE

LINES = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()


@pytest.fixture
def migrated(host: Host) -> Host:
    assert host.start(LINES["release"]).wait(PATIENCE) == 0, host.log()
    return host


def test_the_procfile_has_the_names_that_hosts_expect() -> None:
    assert LINES.keys() == {"release", "web", "worker", "poller"}
    assert all(line.startswith("python -m ") for line in LINES.values())


def test_the_project_itself_is_not_installed_on_the_host(tmp_path: Path) -> None:
    python = clean_venv(tmp_path / "venv") / "python"
    command = [str(python), "-c", "import receiver"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=False)
    assert b"No module named 'receiver'" in done.stderr


def test_release_migrates(migrated: Host) -> None:
    store = open_store(migrated.database)
    store.check_schema()
    store.close()


def test_web_is_ready_on_the_port(migrated: Host) -> None:
    web = migrated.start(LINES["web"])

    migrated.wait_until(migrated.is_ready)
    web.terminate()
    assert web.wait(PATIENCE) == 0, migrated.log()


@pytest.mark.parametrize("name", ["worker", "poller"])
def test_worker_and_poller_run_and_end_on_sigterm(migrated: Host, name: str) -> None:
    process = migrated.start(LINES[name])
    store = open_store(migrated.database)
    try:
        migrated.wait_until(lambda: store.activity.last_seen(name) is not None)
    finally:
        store.close()
    process.terminate()
    assert process.wait(PATIENCE) == 0, migrated.log()


def test_gunicorn_alone_has_the_same_settings(migrated: Host) -> None:
    """`gunicorn wsgi:app`, which hosts run without a Procfile, reads gunicorn.conf.py."""

    def settings(line: str) -> list[str]:
        shown = migrated.run(line.replace("wsgi:app", "--print-config wsgi:app"))
        return [setting for setting in shown.splitlines() if not setting.startswith("config ")]

    found = settings("python -m gunicorn wsgi:app")
    assert found == settings(LINES["web"])
    assert any("receiver.web.server.worker.Worker" in setting for setting in found)
