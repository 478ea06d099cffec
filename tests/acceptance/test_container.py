"""The commands of the Dockerfile, including the health check, work; no image is built here."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.installation import ROOT
from tests.support.patience import PATIENCE

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def copied() -> list[str]:
    """Return the paths that the Dockerfile copies from the checkout."""
    lines = re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE)
    return [name for line in lines for name in line.split()]


def app(folder: Path) -> Path:
    """The /app folder of the image, with the files that .dockerignore admits."""
    folder.mkdir()
    for name in copied():
        assert f"!{name}" in IGNORED
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)  # with the compiled modules, to save time
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path, app(tmp_path / "app"))
    yield host
    host.close()


def test_the_container_migrates_serves_is_healthy_and_drains(host: Host) -> None:
    found = re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    shell, option, line = json.loads(found[1])
    assert (shell, option) == ("sh", "-c")
    container = host.start(f"sh -c '{line}'")
    host.wait_until(host.is_ready)
    healthy = re.search(r"^HEALTHCHECK .* CMD (.*)$", DOCKERFILE, re.MULTILINE)
    assert healthy is not None
    host.run(healthy[1])  # status 0
    container.terminate()
    assert container.wait(PATIENCE) == 0, host.log()
    with pytest.raises(AssertionError, match="Connection refused"):
        host.run(healthy[1])


def test_only_named_files_are_in_the_image() -> None:
    """The .dockerignore first excludes everything, so that no .env or record gets into an image."""
    rules = [line for line in IGNORED if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())


def test_the_container_is_not_root_and_stores_its_record_in_the_volume() -> None:
    assert re.search(r"^USER 10001$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^VOLUME /data$", DOCKERFILE, re.MULTILINE)
    settings = dict(re.findall(r"([A-Z_]+)=(\S+)", DOCKERFILE))
    assert settings["DATABASE_URL"] == "sqlite:////data/receiver.db"
    assert settings["HOOKS_FILE"].startswith("/data/")
