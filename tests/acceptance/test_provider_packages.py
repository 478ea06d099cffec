"""A provider of another package is built, installed, and used like a built-in one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.docs_pages import ROOT
from tests.support.migrated_record import create_record
from tests.support.patience import PATIENCE
from tests.support.plugin_packages import build, install

WEAVER = ROOT / "tests" / "support" / "packages" / "weaver"
SUITES = ("tests/contract/test_providers.py", "tests/contract/test_submitter_providers.py")
CONTRACT_CASES = 70  # minimum number of cases of both suites for one provider
SETTINGS = """
import os, sys
from receiver.config import settings
from receiver.errors import SettingsError
try:
    print(settings.load(creates_secret=False).webhook_secrets)
except SettingsError as error:
    print(*error.problems, sep="\\n")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed. It is built from a copy, without an index."""
    folder = tmp_path_factory.mktemp("weaver")
    shutil.copytree(WEAVER, folder / "source")
    install(build(folder / "source", folder), folder / "site")
    return folder / "site"


def run(folder: Path, *command: str, site: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **({"PYTHONPATH": str(site)} if site else {}), **environment},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_keeps_the_contracts(site: Path, tmp_path: Path) -> None:
    for name in ("receiver", "submitter", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name)  # with the compiled modules, which stay valid
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(WEAVER / "samples.py", tmp_path / "tests/support/providers/weaver.py")
    # A package does not know the database, and a server would take a third of the time.
    options = ("-q", "-p", "no:cacheprovider", "--without-postgres", "-k", "weaver or left_out")
    report = run(tmp_path, "-m", "pytest", *options, *SUITES, site=site)
    passed = re.search(r"(\d+) passed", report)
    assert passed, report
    assert int(passed[1]) >= CONTRACT_CASES, report


def test_the_settings_of_the_package_are_read_and_checked(site: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'receiver.db'}"

    def load(secrets: str) -> str:
        environment = {"DATABASE_URL": database, "WEAVER_SECRETS": secrets}
        return run(ROOT, "-c", SETTINGS, site=site, **environment)

    assert load("a-secret-of-weaver") == "{'weaver': ('a-secret-of-weaver',)}\n"
    assert load("short").startswith(
        "WEAVER_SECRETS: the value needs at least 16 visible ASCII characters"
    )


def test_the_provider_is_offered_and_described_like_the_others(site: Path, tmp_path: Path) -> None:
    help_text = run(ROOT, "-m", "submitter", "submit", "--help", site=site, COLUMNS="200")
    assert "[kling|modellix|appypie|weaver]" in help_text
    describe = (
        "from receiver.web import create_app\n"
        "document = create_app().test_client().get('/openapi.json').get_json()\n"
        "print(sorted(document['components']['schemas']))"
    )
    environment = {"DATABASE_URL": f"sqlite:///{tmp_path / 'receiver.db'}"}
    create_record(tmp_path / "receiver.db")
    schemas = run(ROOT, "-c", describe, site=site, **environment)
    assert "'WeaverCallback'" in schemas
    assert "'KlingCallback'" in schemas


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def", '"broken" of the package broken 1.0 cannot be loaded: SyntaxError'),
        ("class Adapter: name = 'broken'", '"broken" of the package broken 1.0 lacks clock, '),
    ],
)
def test_an_adapter_that_cannot_be_used_is_reported_before_anything_starts(
    tmp_path: Path, source: str, problem: str
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[callback_receiver.providers]\nbroken = broken:Adapter\n"
    )
    (tmp_path / "broken.py").write_text(source)
    report = run(ROOT, "-c", SETTINGS, site=tmp_path)
    assert report.startswith(f"callback_receiver.providers: {problem}")
    assert "--provider" in run(ROOT, "-m", "submitter", "submit", "--help", site=tmp_path)
