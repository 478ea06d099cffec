"""A virtual environment with the packages of requirements.txt, and without this project."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]


def clean_venv(folder: Path) -> Path:
    """Create a virtual environment in the folder and return its `bin`.

    Nothing is downloaded: its packages are links to those of the running environment, which also
    has others, such as an editable install of this project.
    """
    made = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(made, check=True, timeout=PATIENCE)
    # A package may be locked in two versions, for an older and a newer Python.
    locked = re.findall(r"^([a-z0-9._-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    for name in sorted(set(locked)):
        try:
            _link(distribution(name), site_packages(folder))
        except PackageNotFoundError:
            continue  # for another platform or Python; `pip check` reports missing packages
    return folder / "bin"


def site_packages(folder: Path) -> Path:
    """Return the folder with the packages of the environment."""
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))


def _link(package: Distribution, target: Path) -> None:
    for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
        (target / name).symlink_to(str(package.locate_file(name)))
