"""The block that `receiver serve` prints when it has started."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from receiver.cli import started
from receiver.doctor import reach
from receiver.doctor.findings import Finding, failed, ok, warning
from receiver.observability import logs
from receiver.processes import listening
from receiver.stores.sqlite import SqliteStore
from tests.support.hook_servers import Page, Site
from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from tests.support.samples import SECRET

HOOK = '[[hook]]\nname = "{}"\ntype = "slack"\nurl = "https://hooks.slack.com/services/secret"\n'


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, store: SqliteStore, tmp_path: Path) -> None:
    store.check_schema()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    for name in ("PUBLIC_URL", "API_TOKEN", "DASHBOARD_PASSWORD", "HOOKS_FILE", "PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(started, "wait_until_served", lambda _: None)


def block(capsys: pytest.CaptureFixture[str], bind: str = "") -> dict[str, str]:
    started.main([bind])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("Callback Receiver ")
    assert first.endswith(" has started.")
    return {line[2:14].strip(): line[14:] for line in lines}


def test_the_block_says_what_is_disabled_and_by_which_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert block(capsys) == {
        "address": "http://127.0.0.1:8000",
        "dashboard": "disabled; set DASHBOARD_PASSWORD to enable it",
        "API": "disabled; set API_TOKEN to enable it",
        "hooks": "none; add some to hooks.toml: docs/hooks.md",
        "reload": f"kill -HUP {os.getppid()} makes all processes read the hooks file again",
        "public URL": "none; set PUBLIC_URL",
        "callbacks": "cannot arrive without PUBLIC_URL; the poller fetches the results instead",
    }


def test_the_block_says_what_is_enabled_and_names_the_hooks_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "a-token-for-the-tests")
    monkeypatch.setenv("DASHBOARD_PASSWORD", "a password for the tests")
    monkeypatch.setenv("PUBLIC_URL", "https://shop.example")
    monkeypatch.setattr(reach, "check", lambda *_: ok("public URL", "pong after 5 ms"))
    Path("hooks.toml").write_text(HOOK.format("chat") + HOOK.format("night"))
    shown = block(capsys, "0.0.0.0:8123")
    assert shown == {
        "address": "http://0.0.0.0:8123, on every address of this machine",
        "dashboard": "http://127.0.0.1:8123/dashboard (DASHBOARD_PASSWORD is set)",
        "API": "http://127.0.0.1:8123/api (API_TOKEN is set)",
        "hooks": "chat, night (hooks.toml)",
        "reload": f"kill -HUP {os.getppid()} makes all processes read the hooks file again",
        "public URL": "https://shop.example",
        "callbacks": "can arrive: pong after 5 ms",
    }


@pytest.mark.parametrize(
    ("finding", "says"),
    [
        (warning("x", "it is not public", "use another"), "may not arrive: it is not public; use"),
        (failed("x", "broke at DNS", "add a record"), "cannot arrive: broke at DNS; add a record"),
    ],
)
def test_the_block_says_why_callbacks_may_not_arrive(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    finding: Finding,
    says: str,
) -> None:
    monkeypatch.setenv("PUBLIC_URL", "https://shop.example")
    monkeypatch.setattr(reach, "check", lambda *_: finding)
    assert block(capsys)["callbacks"].startswith(says)


def test_the_block_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PUBLIC_URL", "https://shop.example")
    problem = warning("x", "providers cannot reach it", "use " + "x " * 60)
    monkeypatch.setattr(reach, "check", lambda *_: problem)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    started.main([""])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith(" " * 14)


def test_it_is_one_line_among_lines_of_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "json")
    try:
        started.main([""])
    finally:
        logs.configure()
    shown = capsys.readouterr()
    assert shown.out == ""
    line = json.loads(shown.err)
    assert line["event"] == "receiver serve has started"
    assert line["dashboard"] == "disabled; set DASHBOARD_PASSWORD to enable it"
    assert {"address", "api", "hooks", "public_url", "callbacks", "timestamp"} <= line.keys()


@pytest.mark.parametrize(
    ("form", "same", "is_json"),
    [("auto", True, True), ("auto", False, False), ("console", True, False), ("json", False, True)],
)
def test_the_form_is_that_of_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str, same: bool, is_json: bool
) -> None:
    monkeypatch.setenv("LOG_FORMAT", form)
    with (tmp_path / "log").open("w") as log, (tmp_path / "other").open("w") as other:
        monkeypatch.setattr(sys, "stderr", log)
        monkeypatch.setattr(sys, "stdout", log if same else other)
        assert started.is_among_json_lines() is is_json


@pytest.mark.parametrize(
    ("settings", "bind"),
    [
        ({}, "127.0.0.1:8000"),
        ({"PORT": "8080"}, "0.0.0.0:8080"),
        ({"PORT": "8080", "GUNICORN_CMD_ARGS": "--threads 4"}, "0.0.0.0:8080"),
        ({"PORT": "8080", "GUNICORN_CMD_ARGS": "--bind unix:/run/web"}, "unix:/run/web"),
    ],
)
def test_the_address_is_that_of_gunicorn(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], bind: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert listening.configured_bind() == bind


def test_a_mistake_in_the_settings_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLIC_URL", "nowhere")
    started.main([""])
    assert capsys.readouterr().err.startswith("receiver: PUBLIC_URL: nowhere is not a URL")


def test_a_private_address_is_checked_through_the_public_url(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("PUBLIC_URL", f"http://127.0.0.1:{port}")
    assert block(capsys)["callbacks"].startswith("cannot arrive: broke at TCP: nothing answers")
    from_here = "can arrive from this machine (such as from the sandbox), and from no other"
    assert block(capsys, f"127.0.0.1:{port}")["callbacks"] == from_here


class Served:
    """The function under test, which the other tests replace."""

    wait = staticmethod(started.wait_until_served)


def test_it_waits_until_a_request_is_answered() -> None:
    with Site() as site:
        site.pages["/healthz"] = Page(b"{}")
        port = int(site.url.rpartition(":")[2])
        Served.wait(("127.0.0.1", port))
        assert [request.path for request in site.requests] == ["/healthz"]


def test_it_waits_for_a_socket_to_be_opened(tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    waiting = threading.Thread(target=Served.wait, args=(path,), daemon=True)
    waiting.start()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
