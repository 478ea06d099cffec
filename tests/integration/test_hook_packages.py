"""Hook types of other packages are installed, configured and used like built-in ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver import hooks
from receiver.cli import main
from receiver.config import plugins
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from tests.support.installation import ROOT
from tests.support.patience import PATIENCE, wait_until
from tests.support.plugin_packages import install, site_packages, unpack, wheel
from tests.support.samples import SECRET, callback, subscription

SHOP_HOOKS = """
from pathlib import Path

from marshmallow import fields

from receiver.hooks.base import Done
from receiver.hooks.options import Options, checked


class BoardOptions(Options):
    file = fields.String(required=True)
    token = fields.String(load_default="")


class Board:
    def __init__(self, name, options):
        self.name = name
        self._options = checked(BoardOptions(), options)
        if self._options["token"]:
            raise RuntimeError("no such token: " + self._options["token"])

    def send(self, notice):
        with Path(self._options["file"]).open("a") as file:
            print(notice.id, file=file)
        return Done("pinned to the board")

    def remove_files(self, task):
        return 0

    def tidy(self, task):
        pass
"""
Package = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Package]:
    """Return a function that installs a package with these hook types, for this process only."""
    with site_packages(tmp_path / "site") as site:

        def installed(name: str, types: Mapping[str, str], source: str = SHOP_HOOKS) -> None:
            unpack(wheel(tmp_path, name, plugins.HOOKS, types, source), site)

        yield installed


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.toml"))
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    write_hooks(tmp_path, "")


def write_hooks(folder: Path, more: str, type_: str = "board") -> None:
    (folder / "hooks.toml").write_text(
        f'[[hook]]\nname = "pins"\ntype = "{type_}"\nfile = "{folder}/board.txt"\n{more}'
    )


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, [*arguments])
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done


def test_a_worker_delivers_through_the_hook_of_an_installed_package(
    tmp_path: Path, store: SqliteStore
) -> None:
    site = tmp_path / "installed"
    types = {"board": "shop_hooks:Board"}
    install(wheel(tmp_path, "shop-hooks", plugins.HOOKS, types, SHOP_HOOKS), site)
    unpack(
        wheel(tmp_path, "broken-hooks", plugins.HOOKS, {"broken": "broken_hooks:X"}, "def"), site
    )
    Ingest(store, [subscription("pins")]).accept(callback())
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "receiver", "worker"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(site)},
            stdout=output,
            stderr=output,
        )
    board = tmp_path / "board.txt"
    try:
        wait_until(lambda: board.exists() and board.read_text().endswith("\n"), log.read_text)
    finally:
        worker.terminate()
        worker.wait(PATIENCE)
    assert board.read_text() == "task-1:succeeded\n"
    assert "of the package broken-hooks 1.0 cannot be loaded: SyntaxError" in log.read_text()


def test_a_test_event_can_be_sent_through_it(tmp_path: Path, package: Package) -> None:
    package("shop-hooks", {"board": "shop_hooks:Board"})
    done = run("hooks", "test", "pins")
    assert done.stdout == "pins accepted the test event (succeeded): pinned to the board\n"
    assert "succeeded" in (tmp_path / "board.txt").read_text()


def test_its_options_are_checked_like_those_of_built_in_types(
    tmp_path: Path, package: Package
) -> None:
    package("shop-hooks", {"board": "shop_hooks:Board"})
    write_hooks(tmp_path, "colour = 7\nalerts = true")
    done = run("hooks", "list")
    assert done.exit_code == 1
    assert "colour: is not an option of this type; use file or token" in done.stdout
    write_hooks(tmp_path, "alerts = true")
    assert "alerts: a hook of type board sends none" in run("hooks", "list").stdout


def test_an_exception_of_its_constructor_is_reported_without_secrets(
    tmp_path: Path, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOARD_TOKEN", "a-secret-token")
    package("shop-hooks", {"board": "shop_hooks:Board"})
    write_hooks(tmp_path, 'token = "${BOARD_TOKEN}"')
    done = run("hooks", "list")
    assert done.exit_code == 1
    assert "type: board cannot be used: RuntimeError: no such token: …" in done.stdout


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("shop_hooks:Path", "type: board cannot be used: TypeError"),
        ("shop_hooks:dict", "cannot be loaded: AttributeError"),
        ("shop_hooks:__name__", "is not a class, so it cannot be a hook type"),
    ],
)
def test_an_object_that_makes_no_hooks_is_reported(
    package: Package, value: str, problem: str
) -> None:
    package("shop-hooks", {"board": value})
    done = run("hooks", "list")
    assert done.exit_code == 1
    assert "board" in done.stdout
    assert problem in done.stdout


def test_a_broken_package_costs_only_itself(tmp_path: Path, package: Package) -> None:
    package("broken-hooks", {"broken": "broken_hooks:X"}, "import no_such_module")
    package("shop-hooks", {"board": "shop_hooks:Board"})
    assert run("hooks", "test", "pins").exit_code == 0
    said = (
        '"broken" of the package broken-hooks 1.0 cannot be loaded: '
        "ModuleNotFoundError: No module named 'no_such_module'"
    )
    (finding,) = doctor("hook types")
    assert (finding["verdict"], finding["said"]) == ("warning", said)
    write_hooks(tmp_path, "", "broken")
    (listed,) = json.loads(run("hooks", "list", "--json").stdout)
    assert f'hooks.toml: hook "pins": {said}' in listed["problems"]
    (finding,) = doctor("hook pins")
    assert (finding["verdict"], finding["said"]) == ("failed", f'hooks.toml: hook "pins": {said}')


def test_two_packages_with_the_same_type_are_an_error_that_names_both(package: Package) -> None:
    package("first-hooks", {"board": "first_hooks:Board"})
    package("second-hooks", {"board": "second_hooks:Board"})
    done = run("hooks", "list")
    assert done.exit_code == 2
    assert 'hooks.toml: hook "pins": type: "board" is defined by ' in done.stderr
    assert "first-hooks 1.0" in done.stderr
    assert "second-hooks 1.0" in done.stderr
    assert doctor("hook types")
    assert doctor("hooks")


def test_a_built_in_type_cannot_be_replaced(tmp_path: Path, package: Package) -> None:
    package("shop-hooks", {"command": "shop_hooks:Board"})
    (tmp_path / "hooks.toml").write_text(
        '[[hook]]\nname = "c"\ntype = "command"\ncommand = ["true"]\n'
    )
    assert (
        run("hooks", "test", "c").stdout == "c accepted the test event (succeeded): exit status 0\n"
    )
    (finding,) = doctor("hook types")
    assert finding["said"] == '"command" is built in, and cannot be replaced by shop-hooks 1.0'


def test_an_unknown_type_is_reported_with_all_known_types(tmp_path: Path, package: Package) -> None:
    package("shop-hooks", {"board": "shop_hooks:Board"})
    write_hooks(tmp_path, "", "bord")
    assert '"bord" is not a hook type; use apprise, ' in (said := run("hooks", "list").stderr)
    assert "webhook or board" in said


def test_its_hooks_may_store_files(package: Package) -> None:
    package("shop-hooks", {"board": "shop_hooks:Board"})
    assert hooks.stores_files("board")
    assert hooks.stores_files("download")
    assert not hooks.stores_files("command")


def test_built_in_types_do_not_load_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that uses only built-in types, or none, reads no package metadata."""

    def fail(*_: object) -> None:
        raise AssertionError("packages were searched")

    monkeypatch.setattr(plugins, "find", fail)
    (tmp_path / "hooks.toml").write_text(
        '[[hook]]\nname = "c"\ntype = "command"\ncommand = ["true"]\n'
    )
    assert run("hooks", "test", "c").exit_code == 0
    assert run("hooks", "list").exit_code == 0


def doctor(check: str) -> list[dict[str, str]]:
    findings = json.loads(run("doctor", "--json").stdout)
    return [one for one in findings if one["check"] == check]
