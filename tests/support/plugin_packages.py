"""Small packages with entry points, built as wheels and installed without an index."""

from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from receiver.config import plugins
from tests.support.bare_environment import run
from tests.support.patience import PATIENCE


def wheel(
    folder: Path, name: str, group: str, entry_points: Mapping[str, str], source: str
) -> Path:
    """Build a wheel of version 1.0 with one module, whose name is that of the package.

    `entry_points` maps names to objects such as `shop_hooks:Ntfy`.
    """
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    lines = [f"{key} = {value}" for key, value in entry_points.items()]
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n".join([f"[{group}]", *lines, ""]),
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    built = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(built, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return built


def build(source: Path, folder: Path) -> Path:
    """Build the wheel of a project in `folder`, with the setuptools of this environment.

    uv does the same as pip, in half the time.
    """
    uv = (sys.executable, "-m", "uv", "build", "--wheel", "--quiet", "--offline")
    options = ("--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder))
    run(*uv, *options, str(source), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def install(built: Path, folder: Path) -> None:
    """Install a wheel with pip into a folder that is to be on `sys.path`."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
            *("--disable-pip-version-check", "--target", str(folder), str(built)),
        ],
        timeout=PATIENCE,
        check=True,
    )


def unpack(built: Path, folder: Path) -> None:
    """Install a wheel without pip, which is faster and gives the same files."""
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder)


@contextmanager
def site_packages(folder: Path) -> Iterator[Path]:
    """Put a folder on `sys.path`, and remove it and its modules afterwards."""
    folder.mkdir()
    sys.path.insert(0, str(folder))
    plugins.find.cache_clear()
    importlib.invalidate_caches()
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        plugins.find.cache_clear()
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
