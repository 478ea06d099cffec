"""Debian packages are unpacked once and without root, and a failure is reported once.

The packages come from a repository in a folder, so the tests need apt-get, but no network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clean_venv import ROOT
from tests.support.debian_packages import environment, unpacked
from tests.support.fetch_cache import UnavailableError
from tests.support.patience import PATIENCE

PACKAGES = {"tests-tool": "tests-library", "tests-library": "", "tests-broken": "tests-missing"}
CHILD = """
import sys
from pathlib import Path
from tests.support.debian_packages import unpacked
print(unpacked("tests-tool", cache=Path(sys.argv[1]), options=sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a repository with our own packages; return its list of sources."""
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            pytest.skip(f"no {program}")
    folder = tmp_path_factory.mktemp("repository")
    index = ""
    for name, needs in PACKAGES.items():
        content = folder / name
        (content / "usr/lib").mkdir(parents=True)
        (content / "usr/bin").mkdir()
        (content / f"usr/lib/lib{name}.so.1").write_text(name)
        (content / f"usr/bin/{name}").write_text(f"#!/bin/sh\necho {name}\n")
        (content / f"usr/bin/{name}").chmod(0o4755)
        control = (
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Tests <a@shop.example>\n"
            f"Description: made by a test\n" + (f"Depends: {needs}\n" if needs else "")
        )
        (content / "DEBIAN").mkdir()
        (content / "DEBIAN/control").write_text(control)
        archive = folder / f"{name}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", str(content), str(archive)],  # noqa: S607
            check=True,
            capture_output=True,
        )
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        size = archive.stat().st_size
        index += f"{control}Filename: ./{archive.name}\nSize: {size}\nSHA256: {digest}\n\n"
    (folder / "Packages").write_text(index)
    sources = folder / "sources.list"
    sources.write_text(f"deb [trusted=yes] file:{folder} ./\n")
    return sources


@pytest.fixture
def options(repository: Path) -> list[str]:
    return [f"Dir::Etc::sourcelist={repository}", "Dir::Etc::sourceparts=/dev/null"]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an apt-get first on the PATH that records each call in this file."""
    folder, notes = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    (folder / "apt-get").write_text(
        f'#!/bin/sh\necho "$*" >>{notes}\nexec {shutil.which("apt-get")} "$@"\n'
    )
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return notes


def test_a_package_is_unpacked_with_its_dependencies(tmp_path: Path, options: list[str]) -> None:
    folder = unpacked("tests-tool", cache=tmp_path / "cache", options=options)
    program = folder / "usr/bin/tests-tool"
    assert subprocess.check_output([program], text=True) == "tests-tool\n"
    assert not program.stat().st_mode & stat.S_ISUID
    variables = environment(folder)
    assert shutil.which("tests-library", path=variables["PATH"]) == str(
        folder / "usr/bin/tests-library"
    )
    assert variables["LD_LIBRARY_PATH"] == str(folder / "usr/lib")


def test_concurrent_processes_fetch_a_package_once(
    tmp_path: Path, options: list[str], calls: Path
) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "cache"), *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    answers = [child.communicate(timeout=PATIENCE)[0] for child in children]
    assert answers == [f"{tmp_path}/cache/tests-tool\n"] * 4
    assert [line.split()[-1] for line in calls.read_text().splitlines()].count("update") == 1
    assert calls.read_text().count(" download ") == 1
    assert list((tmp_path / "cache").glob(".new-*")) == []


@pytest.mark.parametrize("package", ["tests-none", "tests-broken"])
def test_a_failure_is_remembered_until_the_next_test_run(
    tmp_path: Path,
    options: list[str],
    calls: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
) -> None:
    for test_run, tries in (("first", 1), ("first", 1), ("second", 2)):
        monkeypatch.setenv("TEST_RUN", test_run)
        with pytest.raises(UnavailableError, match="Unable to"):
            unpacked(package, cache=tmp_path / "cache", options=options)
        assert calls.read_text().count(" --simulate ") == tries
    assert not (tmp_path / "cache" / package).exists()


def test_an_unreachable_mirror_is_tried_once(
    tmp_path: Path, options: list[str], calls: Path, repository: Path
) -> None:
    gone = repository.with_name("gone.list")
    gone.write_text("deb [trusted=yes] file:/nowhere ./\n")
    options = [f"Dir::Etc::sourcelist={gone}", options[1]]
    for package in ("tests-tool", "tests-library"):
        with pytest.raises(UnavailableError, match=r"Unable to .* \(apt-get update: .*nowhere"):
            unpacked(package, cache=tmp_path / "cache", options=options)
    assert [line.split()[-1] for line in calls.read_text().splitlines()].count("update") == 1


def test_a_mirror_that_never_responds_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UnavailableError, match="apt-get took too long"):
        unpacked("tests-tool", cache=tmp_path / "cache", within=0.1)
