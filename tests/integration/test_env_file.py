"""The file of settings: which one is read, what takes precedence, and which files are rejected."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import receiver.web.server.gunicorn
import submitter.cli
from receiver import cli
from receiver.config import env_file, settings
from receiver.errors import SettingsError
from receiver.hooks.command import INHERITED
from tests.support.installation import ROOT
from tests.support.patience import PATIENCE


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An environment without a file of settings, and an empty working directory."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    monkeypatch.setattr(os, "environ", kept)
    folder = tmp_path / "project" / "folder"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return kept


def write(text: str, path: str = ".env", mode: int = 0o600) -> Path:
    file = Path(path)
    file.write_text(text)
    file.chmod(mode)
    return file


def problems(path: Path | None = None) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        env_file.load(path)
    return caught.value.problems


def test_variables_of_the_file_are_settings(environment: dict[str, str]) -> None:
    write(
        "# a comment\n\nexport RETENTION=30d\nAPI_TOKEN='a b # c'\nTIMEZONE=Europe/Berlin # here\n"
        'HOOK_URL=https://shop.example/${RETENTION}\nEMPTY=\nTWO_LINES="a\nb"\n'
    )
    env_file.load()
    assert environment["API_TOKEN"] == "a b # c"
    assert environment["TIMEZONE"] == "Europe/Berlin"
    assert environment["HOOK_URL"] == "https://shop.example/30d"
    assert (environment["EMPTY"], environment["TWO_LINES"]) == ("", "a\nb")
    assert environment["RETENTION"] == "30d"


def test_the_real_environment_takes_precedence(environment: dict[str, str]) -> None:
    environment |= {"RETENTION": "7d", "API_TOKEN": "", "DASHBOARD_PASSWORD": "of the environment"}
    write(
        "RETENTION=30d\nAPI_TOKEN=of-the-file-1234567\nDASHBOARD_PASSWORD_FILE=/secrets/password\n"
    )
    env_file.load()
    assert (environment["RETENTION"], environment["API_TOKEN"]) == ("7d", "")
    assert "DASHBOARD_PASSWORD_FILE" not in environment  # it would outrank DASHBOARD_PASSWORD


def test_no_parent_directory_is_searched(environment: dict[str, str]) -> None:
    write("RETENTION=30d\n", "../.env")
    write("RETENTION=31d\n", "../../.env")
    env_file.load()
    assert "RETENTION" not in environment


def test_a_missing_file_is_no_problem_unless_it_is_named(environment: dict[str, str]) -> None:
    env_file.load()
    environment.pop(env_file.VARIABLE)
    assert problems(Path("other.env")) == (
        "other.env: it cannot be read: No such file or directory",
    )


def test_another_file_replaces_the_default_one(environment: dict[str, str]) -> None:
    write("RETENTION=30d\nTIMEZONE=Asia/Kathmandu\n")
    write("RETENTION=7d\n", "other.env")
    env_file.load(Path("other.env"))
    assert (environment["RETENTION"], environment.get("TIMEZONE")) == ("7d", None)


def test_a_variable_can_name_the_file_or_switch_it_off(environment: dict[str, str]) -> None:
    write("RETENTION=30d\n")
    environment[env_file.VARIABLE] = os.devnull
    env_file.load()
    assert "RETENTION" not in environment
    environment[env_file.VARIABLE] = str(write("RETENTION=7d\n", "other.env"))
    env_file.load()
    assert environment["RETENTION"] == "7d"


def test_processes_that_a_program_starts_read_no_file_again(environment: dict[str, str]) -> None:
    write("RETENTION=30d\n")
    write("TIMEZONE=UTC\n", "other.env")
    env_file.load(Path("other.env"))
    env_file.load()  # as a child with this environment does
    assert "RETENTION" not in environment


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_file_that_others_can_write_to_is_rejected(
    mode: int, environment: dict[str, str]
) -> None:
    write("RETENTION=30d\n", mode=mode)
    (problem,) = problems()
    assert problem == (f".env: other users can write to it (mode {mode:04o}); run: chmod 600 .env")
    assert "RETENTION" not in environment


def test_a_file_of_another_user_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    write("RETENTION=30d\n")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    (problem,) = problems()
    assert problem.startswith(f".env: it belongs to another user (uid {owner})")
    assert problem.endswith(f"run: chown {owner + 1} .env")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_link_of_another_user_is_rejected() -> None:
    Path(".env").symlink_to(write("RETENTION=30d\n", "../target"))
    os.lchown(".env", 12_345, 12_345)
    assert "(uid 12345)" in " ".join(problems())


def test_only_a_regular_file_is_read() -> None:
    os.mkfifo(".env", 0o600)
    assert problems() == (".env: it is not a regular file",)


def test_a_line_that_cannot_be_read_is_named_without_its_text() -> None:
    write("RETENTION=30d\nAPI_TOKEN 'a-secret\n\nDASHBOARD_PASSWORD\nSECRET_KEY=a-secret\0\n")
    found = problems()
    assert [problem.split(": ")[1] for problem in found] == [
        "line 2 is not NAME=value",
        "line 4 is not NAME=value",
        "line 5 is not NAME=value",
    ]
    assert "secret" not in " ".join(found)


def test_a_file_that_is_not_utf8_is_one_line() -> None:
    Path(".env").write_bytes(b"RETENTION=30d\nAPI_TOKEN=\xff\xfe\n")
    Path(".env").chmod(0o600)
    (problem,) = problems()
    assert problem.startswith(".env: it is not UTF-8")


# -- the programs


def receiver_(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


def submitter_(*arguments: str) -> Result:
    return CliRunner().invoke(submitter.cli.main, arguments)


@pytest.mark.parametrize(("run", "command"), [(receiver_, "tasks"), (submitter_, "reconcile")])
def test_both_programs_read_the_file(run: Callable[..., Result], command: str) -> None:
    write("DATABASE_URL=mysql://x\n")
    write("DATABASE_URL=oracle://x\n", "other.env")
    done = run(command)
    assert (done.exit_code, "(mysql)" in done.output) == (2, True), done.output
    os.environ.pop("DATABASE_URL")
    os.environ.pop(env_file.VARIABLE)
    done = run("--env-file", "other.env", command)
    assert (done.exit_code, "(oracle)" in done.output) == (2, True), done.output


@pytest.mark.parametrize(("run", "command"), [(receiver_, "tasks"), (submitter_, "reconcile")])
def test_a_rejected_file_is_a_mistake_in_the_settings(
    run: Callable[..., Result], command: str
) -> None:
    write("RETENTION=30d\n", mode=0o666)
    done = run(command)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "other users can write to it" in done.stderr
    assert run(command, "--help").exit_code == 0


def test_gunicorn_reads_the_file_with_our_settings(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = receiver.web.server.gunicorn.__file__
    write("PORT=12345\nWEB_CONCURRENCY=3\nDATABASE_URL=sqlite:///here.db\n")
    names = runpy.run_path(config)
    assert (names["bind"], names["workers"]) == ("0.0.0.0:12345", 3)
    assert settings.load().database_url == "sqlite:///here.db"  # what the workers inherit
    environment.clear()
    monkeypatch.delitem(environment, "PORT", raising=False)
    write("PORT=12345\n", mode=0o666)
    with pytest.raises(SystemExit, match=r"receiver: \.env: other users can write to it"):
        runpy.run_path(config)["on_starting"](None)


def test_python_m_submitter_reads_the_file() -> None:
    write("DATABASE_URL=mysql://x\n")
    done = subprocess.run(
        [sys.executable, "-m", "submitter", "costs"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "submitter: DATABASE_URL: the value is not the URL" in done.stderr


@pytest.mark.parametrize("program", ["receiver", "submitter"])
def test_usage_lines_name_the_program(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout.startswith(f"Usage: {program} [OPTIONS] COMMAND")
