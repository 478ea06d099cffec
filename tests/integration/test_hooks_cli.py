"""`receiver hooks`: the hooks in the hooks file, and whether one works."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from receiver.cli import main
from receiver.hooks.base import Done
from receiver.hooks.slack import Slack
from receiver.observability import logs
from tests.support.hook_servers import Page, Site
from tests.support.log_records import LogRecords

PATH = "/services/T000/B000/a-secret-of-the-path"
HOOKS = """
[[hook]]
name = "chat"
type = "slack"
url = "${SLACK_WEBHOOK_URL}"
allow_private = true

[[hook]]
name = "night"
type = "command"
command = ["/bin/sh", "-c", "cat; exit 1"]
on = ["failed", "given_up"]
providers = ["kling"]
match = "ORDER-*"
"""


@pytest.fixture
def slack() -> Iterator[Site]:
    with Site() as site:
        site.pages[PATH] = Page(b"ok")
        yield site


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slack: Site) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.toml"))
    monkeypatch.setenv("SLACK_WEBHOOK_URL", slack.url + PATH)
    (tmp_path / "hooks.toml").write_text(HOOKS)


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, ["hooks", *arguments])
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert "a-secret-of-the-path" not in done.output
    return done


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_log_lines_about_a_test_event_show_no_secret(
    monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    """This applies even to the path alone, which no rule recognises as a secret."""

    def send(*_: object) -> Done:
        structlog.get_logger().warning("the response is odd", path=PATH)
        return Done("ok")

    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    monkeypatch.setenv("LOG_FORMAT", log_format)
    monkeypatch.setattr(Slack, "send", send)
    try:
        assert "is odd" in run("test", "chat").output
        shown = CliRunner().invoke(main, ["doctor", "--send"]).output
    finally:
        logs.configure()
    assert "is odd" in shown
    assert PATH not in shown


def test_the_list_shows_the_subscriptions() -> None:
    done = run("list")
    assert done.exit_code == 0
    chat, night = done.stdout.splitlines()[1:]
    assert chat.split() == ["chat", "slack", "succeeded,", "failed"]
    assert night.split()[:6] == ["night", "command", "failed,", "given_up", "kling", "ORDER-*"]
    assert json.loads(run("list", "--json").stdout)[1] == {
        "hook": "night",
        "type": "command",
        "on": ["failed", "given_up"],
        "providers": ["kling"],
        "match": "ORDER-*",
        "where": {},
        "after": None,
        "alerts": False,
        "problems": [],
    }


def test_the_list_shows_retries_and_limits(tmp_path: Path) -> None:
    assert "limits" not in run("list").stdout
    (tmp_path / "hooks.toml").write_text(HOOKS + 'retry_for = "1h"\nrate = "10/s"\n')
    assert [line.rpartition("\t")[2] for line in run("list").stdout.splitlines()] == [
        "limits",
        "",
        "10/s",
    ]
    chat, night = json.loads(run("list", "--json").stdout)
    assert (night["retry_for"], night["rate"]) == (3_600.0, "10/s")
    assert not {"retry", "concurrency"} & night.keys()
    assert not {"retry_for", "rate"} & chat.keys()


def test_the_list_shows_how_long_a_notification_waits_for_files(tmp_path: Path) -> None:
    download = '[[hook]]\nname = "files"\ntype = "download"\nto = "data"\n'
    (tmp_path / "hooks.toml").write_text(HOOKS + download)
    assert "files (up to 120 s)" in run("list").stdout
    (chat, night, files) = json.loads(run("list", "--json").stdout)
    assert (chat["after"], chat["wait_for_files"]) == ("files", 120.0)
    assert "wait_for_files" not in night | files


def test_the_list_shows_unusable_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLACK_WEBHOOK_URL")
    done = run("list")
    assert done.exit_code == 1
    assert "SLACK_WEBHOOK_URL is not set" in done.stdout


def test_a_test_event_states_the_filters_that_it_ignores(tmp_path: Path) -> None:
    assert "filters" not in run("test", "chat").stderr
    text = HOOKS + 'where = { task.account = "shop-*" }\n'
    (tmp_path / "hooks.toml").write_text(text)
    for options in ([], ["--json"]):
        line = run("test", "night", *options).stderr.splitlines()[-1]
        assert line == (
            'Test events ignore the filters of the hook: kling ORDER-* task.account = "shop-*"'
        )


def test_an_empty_hooks_file_has_no_hooks(tmp_path: Path) -> None:
    (tmp_path / "hooks.toml").write_text("")
    assert (run("list").exit_code, run("list").stderr) == (0, "No hooks.\n")


def test_without_a_setting_a_missing_default_file_has_no_hooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hooks.toml").unlink()
    for value in (None, "", " "):
        if value is None:
            monkeypatch.delenv("HOOKS_FILE")
        else:
            monkeypatch.setenv("HOOKS_FILE", value)
        assert (run("list").exit_code, run("list").stderr) == (0, "No hooks.\n")


def test_a_test_event_is_sent_once_and_its_response_is_shown(slack: Site) -> None:
    done = run("test", "chat")
    assert done.exit_code == 0
    assert done.stdout == "chat accepted the test event (succeeded): Slack answered 200 ok\n"
    (sent,) = slack.requests
    message = json.loads(sent.body)
    assert message["text"] == "TEST succeeded (kling)"
    assert all(block["type"] != "image" for block in message["blocks"])  # Slack would fetch it


def test_a_test_event_shows_times_in_the_local_time_zone(
    slack: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMEZONE", "Asia/Kathmandu")
    assert run("test", "chat").exit_code == 0
    assert b"+0545" in slack.requests[0].body


def test_the_status_can_be_chosen(slack: Site) -> None:
    document = json.loads(run("test", "chat", "--status", "failed", "--json").stdout)
    assert document == {
        "hook": "chat",
        "status": "failed",
        "delivered": True,
        "answer": "Slack answered 200 ok",
    }
    assert json.loads(slack.requests[0].body)["text"] == "TEST failed (kling)"


def test_a_failing_hook_exits_with_1_and_shows_the_response(slack: Site) -> None:
    slack.pages[PATH] = Page(b"no_such_channel\x1b[2J", 404)
    done = run("test", "chat")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("receiver: chat failed: Slack answered 404 no_such_channel")
    assert "\x1b" not in done.stderr
    assert json.loads(run("test", "chat", "--json").stdout)["delivered"] is False


def test_after_a_401_the_secret_is_to_be_checked(slack: Site) -> None:
    slack.pages[PATH] = Page(b"wrong signature", 401)
    assert run("test", "chat").stderr.splitlines() == [
        "receiver: chat failed: Slack answered 401 wrong signature",
        "receiver: chat: check that the endpoint uses the same secret as the hook",
    ]


def test_a_refused_address_is_one_message(
    tmp_path: Path, log_records: LogRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library that checks addresses logs the same again."""
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    (tmp_path / "hooks.toml").write_text(HOOKS.replace("allow_private = true\n", ""))
    done = run("test", "chat")
    assert done.exit_code == 1
    assert "is not a public address" in done.stderr
    assert log_records.messages(logging.WARNING) == []


def test_without_a_status_one_of_its_subscription_is_sent() -> None:
    done = run("test", "night", "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["status"] == "failed"
    assert '"test": true' in document["answer"]


def test_an_unknown_hook_is_a_usage_error(slack: Site) -> None:
    done = run("test", "mail")
    assert done.exit_code == 2
    assert "'mail' is not in the hooks file; its hooks are: chat, night" in done.stderr
    assert run("test", "chat", "--status", "created").exit_code == 2
    assert slack.requests == []


def test_invalid_options_are_reported(monkeypatch: pytest.MonkeyPatch, slack: Site) -> None:
    monkeypatch.delenv("SLACK_WEBHOOK_URL")
    done = run("test", "chat")
    assert done.exit_code == 2
    assert "SLACK_WEBHOOK_URL is not set" in done.stderr
    assert slack.requests == []
