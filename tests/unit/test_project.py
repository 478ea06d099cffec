"""Rules for the project as a whole: locked requirements, versions, payloads and imports."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from receiver import stores
from receiver.hooks import apprise, brokers, object_storage
from tests.support import interpreters

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.txt", "requirements-dev.txt"]


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", line) for line in requirements)
    return {match[0].lower().replace("_", "-") for match in found if match}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_contains_no_index_and_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_version_and_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert pins
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+==\S+", pin), pin
        assert "--hash=sha256:" in pin, pin


def test_all_dependencies_of_the_project_are_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = {lock: names((ROOT / lock).read_text().splitlines()) for lock in LOCKS}
    required = names(project["project"]["dependencies"])
    assert required <= locked["requirements.txt"]
    assert required | names(project["dependency-groups"]["dev"]) <= locked["requirements-dev.txt"]


def test_both_lock_files_pin_the_same_versions() -> None:
    runtime, development = (
        set(re.findall(r"^([a-z0-9._-]+==\S+)", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in LOCKS
    )
    assert runtime <= development


@pytest.mark.parametrize(
    ("extra", "hint"),
    [
        ("postgres", stores.INSTALL),
        ("s3", object_storage.INSTALL),
        ("apprise", apprise.INSTALL),
        *brokers.INSTALL.items(),
    ],
)
def test_the_packages_in_install_hints_are_those_of_the_extra(extra: str, hint: str) -> None:
    """The hints name packages, because an index may contain another project under our name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = project["project"]["optional-dependencies"][extra]
    assert hint.partition("pip install ")[2] == " ".join(f"'{one}'" for one in required)


def test_the_python_versions_are_the_same_everywhere() -> None:
    """The classifiers list the versions that are tested; all other places have to agree."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    prefix = "Programming Language :: Python :: "
    listed = [one.removeprefix(prefix) for one in pyproject["project"]["classifiers"]]
    tested = [version for version in listed if re.fullmatch(r"3\.\d+", version)]
    assert tested
    first = int(tested[0].removeprefix("3."))
    assert tested == [f"3.{first + number}" for number in range(len(tested))]
    assert pyproject["project"]["requires-python"] == f">={tested[0]}"
    assert pyproject["tool"]["ruff"]["target-version"] == f"py3{first}"
    makefile = (ROOT / "Makefile").read_text()
    assert interpreters.supported() == tested
    assert re.findall(r"--python-version (\S+)", makefile) == [tested[0]]  # for the lock files
    for text in (makefile, (ROOT / "README.md").read_text()):
        assert set(re.findall(r"(3\.\d+) or newer", text)) == {tested[0]}
    images = re.findall(r"^FROM python:(3\.\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert images == [tested[-1]]


def interpreter(path: Path, prints: str, status: int = 0) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho {prints}\nexit {status}\n")
    path.chmod(0o755)


def test_an_interpreter_is_found_only_if_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in that pyenv puts on the PATH fails while another version is selected."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'shims'}:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    interpreter(tmp_path / "shims" / "python3.96", "not chosen", 127)
    assert interpreters.found("3.96") is None
    chosen = tmp_path / "pyenv" / "versions" / "3.96.1" / "bin" / "python3.96"
    interpreter(chosen, "3.96")
    assert interpreters.found("3.96") == chosen


def payloads() -> list[str]:
    folder = ROOT / "tests" / "payloads"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))


@pytest.mark.parametrize("name", payloads())
def test_every_payload_is_read_by_a_test(name: str) -> None:
    stem = Path(name).name.split(".")[0]
    modules = (ROOT / "tests").rglob("test_*.py")
    assert any(stem in module.read_text() for module in modules), f"no test reads {name}"


def test_the_import_contracts_are_kept() -> None:
    program = [str(Path(sys.executable).parent / "lint-imports"), "--config", "pyproject.toml"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
