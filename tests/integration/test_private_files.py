"""Files with personal data or secrets can be read by their owner alone, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from receiver.cli import main
from receiver.config.settings import load, own_secret
from receiver.ingest import Ingest
from receiver.maintenance.copy import copy
from receiver.stores.sqlite import SqliteStore
from receiver.stores.sqlite.writer import file_lock
from tests.support.samples import body, callback

UMASKS = (0o000, 0o002, 0o022, 0o077, 0o177, 0o777)


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """Set the umask of the process during the test."""
    tmp_path.chmod(0o755)
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CALLBACK_SECRETS", "DATABASE_URL", "HOOKS_FILE", "PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def modes(folder: Path) -> dict[str, int]:
    """Return the modes of all files and directories below the directory."""
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
    }


def assert_private(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def doctor_said(check: str) -> str:
    lines = CliRunner().invoke(main, ["doctor"]).output.splitlines()
    return "\n".join(line for line in lines if f" {check} " in line)


@pytest.mark.usefixtures("umask")
def test_migrate_creates_everything_for_its_owner_alone(folder: Path) -> None:
    assert CliRunner().invoke(main, ["migrate"]).exit_code == 0
    assert_private(folder / "data")
    assert {"receiver.db", "receiver.db-lock", "callback-secret"} <= set(modes(folder / "data"))


@pytest.mark.usefixtures("umask")
def test_files_beside_the_database_are_private_too(folder: Path) -> None:
    store = SqliteStore(folder / "shop" / "data" / "receiver.db")
    store.migrate()
    Ingest(store).accept(callback(body(), "a"))  # the log exists while the store is open
    store.lists.tasks()
    with store.database.alone(), file_lock(folder / "shop" / "data" / "receiver.db"):
        assert_private(folder / "shop")
        names = {path.name for path in (folder / "shop" / "data").iterdir()}
    assert names == {
        "receiver.db", "receiver.db-wal", "receiver.db-shm", "receiver.db-lock", "batch.lock",
    }  # fmt: skip
    store.close()


@pytest.mark.usefixtures("umask")
def test_the_secret_and_its_directory_are_private(folder: Path) -> None:
    own_secret(f"sqlite:///{folder}/shop/data/receiver.db")
    assert_private(folder / "shop")


@pytest.mark.usefixtures("umask")
def test_a_copy_is_private_too(folder: Path) -> None:
    source = SqliteStore(folder / "receiver.db")
    source.migrate()
    Ingest(source).accept(callback(body(), "a"))
    source.close()
    list(copy(f"sqlite:///{folder}/receiver.db", f"sqlite:///{folder}/copy/receiver.db"))
    assert_private(folder / "copy")


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o750])
def test_an_existing_directory_stays_as_it_is_and_doctor_warns(folder: Path, mode: int) -> None:
    data = folder / "data"
    data.mkdir()
    data.chmod(mode)
    assert CliRunner().invoke(main, ["migrate"]).exit_code == 0
    load()
    assert stat.S_IMODE(data.stat().st_mode) == mode
    assert set(modes(data).values()) == {0o600}
    said = doctor_said("permissions")
    if mode & 0o007:
        assert said.startswith("warning")
        assert f"can open the directory data (mode {mode:04o})" in said
        assert "chmod 700 data" in said
    else:
        assert said.startswith("ok")


@pytest.mark.parametrize("name", ["receiver.db", "receiver.db-lock", "callback-secret"])
def test_doctor_warns_about_a_file_that_others_may_read(folder: Path, name: str) -> None:
    CliRunner().invoke(main, ["migrate"])
    assert doctor_said("permissions").startswith("ok")
    (folder / "data" / name).chmod(0o644)
    said = doctor_said("permissions")
    assert said.startswith("warning")
    assert f"chmod 600 data/{name}" in said


def test_migrate_makes_a_database_of_an_older_release_private(folder: Path) -> None:
    CliRunner().invoke(main, ["migrate"])
    for file in (folder / "data").iterdir():
        file.chmod(0o644)
    assert CliRunner().invoke(main, ["migrate"]).exit_code == 0
    assert_private(folder / "data")


def test_access_granted_to_a_group_stays_and_doctor_reports_it(folder: Path) -> None:
    CliRunner().invoke(main, ["migrate"])
    file = folder / "data" / "receiver.db"
    file.chmod(0o640)
    assert CliRunner().invoke(main, ["migrate"]).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert "its group has access to data/receiver.db (mode 0640)" in doctor_said("permissions")
