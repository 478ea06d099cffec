"""Finds the supported Pythons on this machine: `python -m tests.support.interpreters` lists them.

Each line has a version and the path of an interpreter that runs. The Python that runs this module
is left out. Interpreters are searched on the PATH, and among those of pyenv and uv, which are not
on the PATH unless they are selected.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = Path.home()
STARTS_WITHIN = 60.0  # seconds
VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


def supported() -> list[str]:
    """Return the versions that the package metadata lists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [name.rpartition(" ")[2] for name in project["classifiers"]]
    return [version for version in listed if version.startswith("3.")]


def found(version: str) -> Path | None:
    """Return an interpreter of this version, such as 3.12, that runs."""
    return next((path for path in _candidates(version) if _runs(path, version)), None)


def _candidates(version: str) -> Iterator[Path]:
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT", HOME / ".pyenv"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", HOME / ".local/share/uv/python"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    yield from sorted(uv.glob(f"cpython-{version}.*/bin/python{version}"), reverse=True)


def _runs(path: Path, version: str) -> bool:
    """Return whether it runs and has the modules that a virtual environment needs."""
    program = f"import venv, ensurepip; {VERSION}"
    try:
        done = subprocess.run(
            [path, "-c", program],
            capture_output=True,
            text=True,
            check=False,
            timeout=STARTS_WITHIN,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def main(versions: Sequence[str]) -> None:
    own = ".".join(map(str, sys.version_info[:2]))
    for version in versions:
        if version == own:
            continue
        if path := found(version):
            print(version, path)
        else:
            print(f"make: Python {version} was not found, so it is not tested", file=sys.stderr)


if __name__ == "__main__":
    main(supported())
