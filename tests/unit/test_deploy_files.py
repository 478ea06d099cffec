"""The systemd units, the proxy configurations and the command of deploy/ match the programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from receiver.config import values
from receiver.processes import serve
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
BACKUP = DEPLOY / "backup"
BACKUP_UNITS = sorted(path for path in BACKUP.iterdir() if path.suffix in (".service", ".timer"))
PLACE = "/opt/callback-receiver"


def unit(path: Path, *, strict: bool = True) -> RawConfigParser:
    """Return the unit. If it is not strict, an option may be there several times."""
    parser = RawConfigParser(strict=strict)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def command(path: Path) -> str:
    return unit(path)["Service"]["ExecStart"].removeprefix(f"{PLACE}/.venv/bin/")


def test_each_unit_runs_a_line_of_the_procfile_or_everything() -> None:
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    assert {path.stem: command(path) for path in UNITS} == {
        "callback-receiver": "python -m receiver serve",
        **{f"callback-receiver-{name}": lines[name] for name in ("web", "worker", "poller")},
    }


def test_units_differ_only_in_their_commands() -> None:
    services = [dict(unit(path)["Service"]) for path in UNITS]
    for service in services:
        del service["ExecStart"]
    assert all(service == services[0] for service in services)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_restarted_may_drain_and_is_sandboxed(path: Path) -> None:
    service = unit(path)["Service"]
    assert int(service["TimeoutStopSec"]) > serve.DRAIN
    expected = {
        "Restart": "always",
        "ExecReload": "/bin/kill -HUP $MAINPID",
        "KillMode": "mixed",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ReadWritePaths": "/var/lib/callback-receiver",
        "User": "callback-receiver",
    }
    assert {name: service[name] for name in expected} == expected
    assert unit(path)["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """The units are verified in another folder, because the program has to exist there."""
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    script = tmp_path / "deploy/backup/backup"
    script.parent.mkdir(parents=True)
    shutil.copy(BACKUP / "backup", script)
    units = [tmp_path / path.name for path in (*UNITS, *BACKUP_UNITS)]
    for path in (*UNITS, *BACKUP_UNITS):
        (tmp_path / path.name).write_text(path.read_text().replace(PLACE, str(tmp_path)))
    done = subprocess.run(
        [str(shutil.which("systemd-analyze")), "verify", *map(str, units)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "callback-receiver" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_backup_is_as_restricted_as_the_service() -> None:
    backup = dict(unit(BACKUP / "callback-receiver-backup.service", strict=False)["Service"])
    service = dict(unit(DEPLOY / "systemd/callback-receiver.service")["Service"])
    same = {"User", "Group", *(name for name in service if name[:4] in ("Prot", "Rest", "Priv"))}
    same |= {"ReadWritePaths", "NoNewPrivileges", "SystemCallFilter"}
    same -= {"Restart", "RestartSec"}
    assert {name: backup[name] for name in same} == {name: service[name] for name in same}
    assert backup["ExecStart"] == f"{PLACE}/deploy/backup/backup"
    assert os.access(BACKUP / "backup", os.X_OK)
    timer = unit(BACKUP / "callback-receiver-backup.timer")
    assert timer["Timer"]["Persistent"] == "true"


def test_proxies_forward_to_our_address() -> None:
    bind = values.default_bind(None)  # without PORT
    assert f"reverse_proxy {{$RECEIVER:{bind}}} " in (DEPLOY / "Caddyfile").read_text()
    assert set(re.findall(r"proxy_pass (\S+);", (DEPLOY / "nginx.conf").read_text())) == {
        f"http://{bind}"  # without a path, because nginx would normalise the path of the request
    }


def test_no_proxy_writes_paths_to_a_log() -> None:
    servers = (DEPLOY / "nginx.conf").read_text().split("server {")[1:]
    assert all("access_log off;" in server for server in servers)
    options, site = (
        (DEPLOY / "Caddyfile").read_text().split("\n{$PUBLIC_URL:callbacks.example.com} {\n")
    )
    assert not re.search(r"^\s*log\b", site, re.MULTILINE)
    assert "\t\t\t\trequest delete\n" in options


@pytest.mark.parametrize("program", ["receiver", "submitter"])
def test_the_command_runs_like_the_service(tmp_path: Path, program: str) -> None:
    """The test's `sudo` prints the user that it gets; another program of this name must not run."""
    script = (DEPLOY / "command").read_text()
    script = script.replace("/etc/callback-receiver/env", str(tmp_path / "env"))
    script = script.replace(f"{PLACE}/.venv/bin/python", sys.executable)
    script = script.replace(PLACE, str(ROOT))
    (tmp_path / "env").write_text("PUBLIC_URL=wrong\nAPI_TOKEN='a $b #c'\n")
    (tmp_path / program).mkdir()
    (tmp_path / program / "__init__.py").touch()
    (tmp_path / program / "__main__.py").write_text("raise SystemExit('the wrong one')")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {
        program: script,
        "sudo": '#!/bin/sh\necho "$1 $2" >&2\nshift 2\nexec "$@"',
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    done = subprocess.run(
        [str(folder / program), *(["migrate"] if program == "receiver" else ["status", "a b"])],
        cwd=tmp_path,
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr.startswith("-u callback-receiver\n")
    assert "PUBLIC_URL: wrong is not a URL" in done.stderr
    assert "API_TOKEN: the value is too short; use at least" in done.stderr
    assert done.returncode == 2
