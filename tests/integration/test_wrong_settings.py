"""Every program reports each invalid setting in one line before it starts, without secrets."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import receiver.web.gunicorn
from receiver import cli
from receiver.config.table import all_settings
from receiver.processes import serve
from submitter import cli as submitter_cli
from tests.support.samples import SECRET

CANARY = "canary-7"  # part of every invalid value that must not be shown
TOO_SHORT = "cana-7"
WRONG = [
    *(("PUBLIC_URL", value) for value in ("notaurl", "ftp://a.example", "https://", "https://a b")),
    *(("PUBLIC_URL", value) for value in ("https://a.example?x", "https://a.example:port")),
    ("PUBLIC_URL", "https://\u2764..example"),
    *(("DATABASE_URL", value) for value in ("notaurl", f"mysql://a:{CANARY}@b/c", "sqlite://x")),
    *(("DATABASE_URL", value) for value in ("sqlite:///", f"postgresql://a:{CANARY}@b:port/c")),
    *(("CALLBACK_SECRETS", value) for value in (CANARY, f"{SECRET},{CANARY}", ",")),
    *(("HOOKS_FILE", value) for value in ("missing.toml", ".")),
    *(("WORKER_CONCURRENCY", value) for value in ("0", "65", "four", "4.5", "-1")),
    *(("CONFIRM", value) for value in ("sometimes", "NEVER", "1")),
    *(("RECONCILE_AFTER", value) for value in ("0", "soon", "nan", "inf", "1e9")),
    *(("RETENTION", value) for value in ("30", "0d", "-1d", "1y", "9999999999d")),
    *(("KEEP_INPUTS", value) for value in ("perhaps", "2")),
    *(("TIMEZONE", value) for value in ("Europe", "Europe/Nowhere", "../../etc/passwd")),
    *(("CORS_ORIGINS", value) for value in ("*", "null", "https://shop.example/page")),
    *(("TRUSTED_PROXIES", value) for value in ("-1", "11", "all")),
    *(("API_TOKEN", value) for value in (CANARY, f"{SECRET} {CANARY}", f"{SECRET}\u2764{CANARY}")),
    *(("LOG_FORMAT", value) for value in ("xml", "JSON")),
    ("DASHBOARD_PASSWORD", TOO_SHORT),
    ("SECRET_KEY", CANARY),
    *(("WEB_CONCURRENCY", value) for value in ("zero", "0", "-2", "65", "1.5")),
    *(("PORT", value) for value in ("http", "0", "65536", "80/tcp")),
    *(("GUNICORN_CMD_ARGS", value) for value in ("--threads=many", "--nonsense", "--bind='")),
    *(("KLING_WEBHOOK_SECRETS", value) for value in ("whsec_AA", f"whsec_{CANARY}", ",")),
]
ACCOUNTS = [  # the name, the value, and the name that is reported
    ("KLING_BASE_URL", "notaurl", "KLING_BASE_URL"),
    ("KLING_ACCESS_KEY", CANARY, "KLING_SECRET_KEY"),
    ("KLING_SHOP2_SECRET_KEY", CANARY, "KLING_SHOP2_ACCESS_KEY"),
    ("KLING_API_KEY", f"{CANARY} {CANARY}", "KLING_API_KEY"),
    ("KLING_API_KEY_FILE", "/nowhere", "KLING_API_KEY_FILE"),
    ("MODELLIX_CREATE_PATH", "/without/the/model", "MODELLIX_CREATE_PATH"),
    ("APPYPIE_BASE_URL", f"https://user:{CANARY}@a.example", "APPYPIE_BASE_URL"),
]


def command(main: object, *arguments: str) -> Callable[[], tuple[int | str | None, str]]:
    def run() -> tuple[int | str | None, str]:
        done = CliRunner().invoke(main, arguments)  # type: ignore[arg-type]
        return done.exit_code, done.output

    return run


def gunicorn() -> tuple[int | str | None, str]:
    names = runpy.run_path(receiver.web.gunicorn.__file__)
    with pytest.raises(SystemExit) as caught:
        names["on_starting"](None)
    return 1, str(caught.value.code)


def wsgi() -> tuple[int | str | None, str]:
    """Run the application as any WSGI server would; the lines are on standard error."""
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(Path(__file__).parents[2] / "wsgi.py"))
    return caught.value.code, ""


SHORT = [
    command(cli.main, "migrate"),
    command(cli.main, "tasks"),
    command(submitter_cli.main, "reconcile"),
]
STARTS_ACCOUNTS = [command(cli.main, "serve"), gunicorn]
WORKER, DOCTOR = command(cli.main, "worker"), command(cli.main, "doctor")
PROGRAMS = [*SHORT, *STARTS_ACCOUNTS, WORKER, DOCTOR, wsgi]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("KLING_", "MODELLIX_", "APPYPIE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("KLING_BASE_URL", "http://127.0.0.1:9")  # `doctor` compares clocks with it
    monkeypatch.setattr(serve, "supervise", lambda *_: pytest.fail("it was started"))
    yield
    assert not list(tmp_path.glob("*data*")), "something was created despite the mistake"


def check(
    name: str,
    programs: list[Callable[[], tuple[int | str | None, str]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for program in programs:
        capsys.readouterr()
        status, output = program()
        output += "".join(capsys.readouterr())
        lines = [line for line in output.splitlines() if f"{name}: " in line]
        assert status, output
        assert len(lines) == 1, output
        assert any(mark in lines[0] for mark in ("; ", " needs it")), "it states no remedy"
        assert CANARY not in output
        assert TOO_SHORT not in output
        assert "Traceback" not in output


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_every_program_reports_an_invalid_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    check(name, PROGRAMS, capsys)


@pytest.mark.parametrize(
    "name", [f"{setting.name}_FILE" for setting in all_settings() if setting.may_be_file]
)
@pytest.mark.parametrize("value", ["/nowhere", ".", "bytes"])
def test_every_program_reports_an_unreadable_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    value: str,
) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    monkeypatch.setenv(name, value)
    check(name, PROGRAMS, capsys)


def test_every_setting_has_an_invalid_value_here() -> None:
    assert {name for name, _ in WRONG} == {setting.name for setting in all_settings()}


@pytest.mark.parametrize(("name", "value", "reported"), ACCOUNTS)
def test_programs_that_use_accounts_report_an_invalid_one(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    reported: str,
) -> None:
    monkeypatch.setenv(name, value)
    check(reported, STARTS_ACCOUNTS, capsys)


def test_all_problems_are_reported_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    values = dict(WRONG) | {"KLING_BASE_URL": "notaurl"}
    values["KLING_WEBHOOK_SECRETS_FILE"] = "/nowhere"
    hooks = tmp_path / "hooks.toml"
    hooks.write_text('[[hook]]\nname = "mail"\ntype = "post"\n')
    values["HOOKS_FILE"] = str(hooks)
    names = {name for name in values if f"{name}_FILE" not in values} - {"HOOKS_FILE"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for program in STARTS_ACCOUNTS:
        _, output = program()
        lines = (output + "".join(capsys.readouterr())).splitlines()
        assert {line.split(": ")[1] for line in lines} == names | {"hooks.toml"}
