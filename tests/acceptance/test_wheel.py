"""The wheel is complete: installed far from the checkout, the demo runs to its end."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.clean_venv import ROOT, clean_venv, site_packages
from tests.support.patience import PATIENCE

PACKAGES = ("receiver", "submitter", "sandbox")
NOT_OURS = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "data")


def run(*command: str, cwd: Path) -> str:
    """Run a command without our environment, and return its output; expects status 0."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "TMPDIR": str(cwd)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3 * PATIENCE,  # some of them take long
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, because a build leaves folders in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=NOT_OURS)
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*build, "--no-index", "--wheel-dir", str(folder), str(copy), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the installed wheel, in which nothing refers to the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    python = clean_venv(folder) / "python"
    with pytest.raises(AssertionError, match="No module named 'receiver'"):
        run(str(python), "-c", "import receiver", cwd=folder)
    pip = (sys.executable, "-m", "pip", "--python", str(python))
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel), cwd=folder)
    run(*pip, "check", cwd=folder)
    return folder


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


def test_the_demo_runs_from_the_wheel(venv: Path, tmp_path: Path) -> None:
    output = run(str(venv / "bin" / "sandbox"), "demo", cwd=tmp_path)
    assert output.splitlines()[-1].startswith("demo: 3 tasks, 2 succeeded, 1 failed, 8 deliveries")
    assert str(ROOT) not in output


@pytest.mark.parametrize("program", ["receiver", "submitter", "sandbox"])
def test_the_installed_commands_have_help(venv: Path, tmp_path: Path, program: str) -> None:
    assert f"Usage: {program}" in run(str(venv / "bin" / program), "--help", cwd=tmp_path)
