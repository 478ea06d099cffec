"""The wheel is complete: installed far from the checkout, the demo runs to its end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.bare_environment import run
from tests.support.clean_venv import ROOT, site_packages
from tests.support.demo_run import Played, check_success
from tests.support.migrated_record import create_record
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port

PACKAGES = ("receiver", "submitter", "sandbox")
INSTALLERS = {
    "uv": ("install",),
    "pipx": ("run", "pipx", "install", "--backend", "uv"),
}


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert {"receiver/web/gunicorn.py", "sandbox/images/person.jpg"} < set(files)
    assert {*files, "wsgi.py"} <= names


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    (info,) = {name for name in zipfile.Path(wheel).iterdir() if name.name.endswith(".dist-info")}
    top = {name.name for name in zipfile.Path(wheel).iterdir()}
    assert top == {*PACKAGES, "wsgi.py", info.name}


def test_packages_are_imported_from_the_environment(venv: Path, tmp_path: Path) -> None:
    tell = (
        "import sys, receiver, submitter, sandbox, receiver.web.gunicorn as settings\n"
        "from importlib.util import find_spec\n"
        "for module in (receiver, submitter, sandbox, settings): print(module.__file__)\n"
        "print(find_spec('wsgi').origin)\n"
        "print(*sys.path, sep='\\n', file=sys.stderr)"
    )
    paths = run(str(venv / "bin" / "python"), "-c", tell, cwd=tmp_path).splitlines()
    assert not [line for line in paths if line.startswith(str(ROOT))]
    installed = [line for line in paths if line.startswith(f"{site_packages(venv)}/")]
    assert len(installed) == 5


def test_the_demo_runs_from_the_wheel(demo: Played) -> None:
    check_success(demo)
    assert str(ROOT) not in demo.printed + demo.complained


@pytest.mark.parametrize("installer", INSTALLERS)
def test_it_installs_with_its_dependencies(wheel: Path, tmp_path: Path, installer: str) -> None:
    """As a user installs it: with what the package index has."""
    programs = tmp_path / "bin"
    done = subprocess.run(
        [sys.executable, "-m", "uv", "tool", *INSTALLERS[installer], str(wheel)],
        cwd=tmp_path,
        env=os.environ
        | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "UV_PYTHON": sys.executable}
        | {"UV_TOOL_DIR": str(tmp_path / "uv"), "UV_TOOL_BIN_DIR": str(programs)}
        | {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(programs)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    if re.search(r"failed to fetch|error sending request", done.stderr, re.IGNORECASE):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    for program in ("receiver", "submitter", "sandbox"):
        assert f"Usage: {program}" in run(str(programs / program), "--help", cwd=tmp_path)
    run(str(programs / "receiver"), "migrate", cwd=tmp_path)


@pytest.mark.parametrize("options", [(), ("--config", "python:receiver.web.gunicorn")])
def test_a_bare_gunicorn_names_our_settings_once(
    venv: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "data").mkdir()
    create_record(tmp_path / "data" / "receiver.db")
    gunicorn = (str(venv / "bin" / "python"), "-m", "gunicorn", *options, "--workers", "2")
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*gunicorn, "--bind", f"127.0.0.1:{free_port()}", "wsgi:app"],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: log.read_text().count("the dashboard is disabled") == 2, log.read_text)
        process.terminate()
        process.wait(PATIENCE)
    finally:
        process.kill()
    lines = [line for line in log.read_text().splitlines() if "receiver.web.gunicorn" in line]
    assert len(lines) == (0 if options else 1), log.read_text()
    assert all("start it with --config python:receiver.web.gunicorn" in line for line in lines)


@pytest.mark.parametrize("program", ["receiver", "submitter", "sandbox"])
def test_the_installed_commands_have_help(venv: Path, tmp_path: Path, program: str) -> None:
    assert f"Usage: {program}" in run(str(venv / "bin" / program), "--help", cwd=tmp_path)
