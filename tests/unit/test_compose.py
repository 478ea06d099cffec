"""compose.yaml and the workflows fit their schemas, the Dockerfile, the Procfile and the docs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from receiver.config import table
from receiver.processes import serve
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: found for name, found in SERVICES.items() if found["image"] == "callback-receiver"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCHEMAS = [("compose-spec", ROOT / "compose.yaml")]
SCHEMAS += [("github-workflows", path) for path in WORKFLOWS]


def services(*profiles: str) -> set[str]:
    """Return the services that `docker compose up` starts with these profiles."""
    return {
        name
        for name, service in SERVICES.items()
        if not service.get("profiles") or set(service["profiles"]) & set(profiles)
    }


@pytest.mark.parametrize(("schema", "path"), SCHEMAS, ids=lambda value: getattr(value, "name", ""))
def test_a_file_is_valid(schema: str, path: Path) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run(
        [*check, str(path)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout


def test_one_container_or_two_web_processes_and_two_workers() -> None:
    assert services() == {"receiver", "caddy"}
    assert services("postgres") == {"receiver", "caddy", "web", "worker", "postgres"}
    assert set(OURS) == {"receiver", "web", "worker"}
    # `receiver` runs the command of the Dockerfile: a web process, a worker and the poller.
    assert "command" not in OURS["receiver"]
    assert "receiver serve" in DOCKERFILE
    assert set(serve.commands(None)) == {"web", "worker", "poller"}
    for name in ("web", "worker"):
        assert shlex.join(OURS[name]["command"]) == PROCFILE[name]


def test_all_containers_use_one_database() -> None:
    """Whatever the profile: otherwise a callback could be stored where nothing delivers it."""
    urls = {found["environment"]["DATABASE_URL_FILE"] for found in OURS.values()}
    assert urls == {"/run/secrets/database-url"}
    assert all(found["secrets"] == ["database-url"] for found in OURS.values())
    assert not any("DATABASE_URL" in found["environment"] for found in OURS.values())


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_in_the_file(name: str) -> None:
    environment: dict[str, str] = SERVICES[name].get("environment", {})
    for setting, value in environment.items():
        is_secret = re.search("KEY|PASSWORD|SECRET|TOKEN|DATABASE_URL", setting)
        assert not is_secret or value.startswith("/run/secrets/"), setting
    for secret in SERVICES[name].get("secrets", []):
        assert COMPOSE["secrets"][secret]["file"].startswith("./secrets/")


def test_secrets_and_settings_get_into_no_commit_and_no_image() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/.env", "/secrets/", "/config/"} <= set(ignored)
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


@pytest.mark.parametrize("name", OURS)
def test_a_container_fits_the_image(name: str) -> None:
    service = OURS[name]
    mounted = dict(reversed(volume.split(":")[:2]) for volume in service["volumes"])
    assert re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE) == ["/data"]
    assert mounted["/data"] in COMPOSE["volumes"]
    assert str(Path(service["environment"]["HOOKS_FILE"]).parent) in mounted
    assert int(service["stop_grace_period"].removesuffix("s")) > serve.DRAIN
    known = {one.name for one in vars(table).values() if hasattr(one, "name")}
    assert {setting.removesuffix("_FILE") for setting in service["environment"]} - known <= {
        "HOOKS"  # of HOOKS_FILE
    }


def test_caddy_reaches_every_web_process() -> None:
    host, port = SERVICES["caddy"]["environment"]["RECEIVER"].split(":")
    for name in ("receiver", "web"):
        assert OURS[name]["networks"]["default"]["aliases"] == [host]
        assert OURS[name]["environment"]["PORT"] == port
    assert "./deploy/Caddyfile:/etc/caddy/Caddyfile:ro" in SERVICES["caddy"]["volumes"]
    names = set(re.findall(r"\{\$(\w+):", (ROOT / "deploy/Caddyfile").read_text()))
    assert names == set(SERVICES["caddy"]["environment"])


def test_the_workflows_run_what_is_there() -> None:
    (workflow,) = (yaml.safe_load(path.read_text()) for path in WORKFLOWS)
    jobs = workflow["jobs"]
    assert set(jobs) == {"lint", "tests", "wheel", "image"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = [one.rpartition(" ")[2] for one in project["project"]["classifiers"]]
    tested = [version for version in listed if re.fullmatch(r"3\.\d+", version)]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == tested
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    makefile = (ROOT / "Makefile").read_text()
    targets = {command.split()[1] for command in commands if command.startswith("make ")}
    assert targets == {"lint", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    profiles = {one for service in SERVICES.values() for one in service.get("profiles", [])}
    assert profiles == set(re.findall(r"--profile (\w+)", "\n".join(commands)))


def test_scripts_of_the_workflows_are_shell() -> None:
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                subprocess.run(
                    ["/bin/sh", "-n"],
                    input=step.get("run", ""),
                    text=True,
                    timeout=PATIENCE,
                    check=True,
                )
