"""`receiver hooks render`: the message for a task or for the test event; nothing is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver.cli import main
from receiver.stores.sqlite import SqliteStore
from tests.support.rich_record import SIGNATURE, Rich, fill

NOW = 1_765_519_851_000
PATH = "a-secret-of-the-path"
HOOKS = """
[[hook]]
name = "erp"
type = "webhook"
url = "https://erp.example/${ERP_PATH}"
secrets = ["${WEBHOOK_SECRET}"]
headers = { Authorization = "Bearer ${ERP_TOKEN}", X-Order = "{{ task.reference }}" }
body = '''{"order": "{{ task.reference }}", "note": {{ task.reason }}, "token": "${ERP_TOKEN}",
  "urls": [{% for one in media %}"{{ one.url }}"{{ "," if not loop.last }}{% endfor %}]}'''

[[hook]]
name = "mail"
type = "email"
host = "smtp.example.com"
from = "shop@shop.example"
to = ["a@shop.example", "b@shop.example"]
subject = "{{ task.reference | one_line }}"

[[hook]]
name = "team"
type = "slack"
url = "https://hooks.slack.com/services/T0/B0/${ERP_PATH}"
text = "{{ task.reference }} {{ task.metadata.color }}"

[[hook]]
name = "script"
type = "command"
command = ["/bin/true", "a b"]
on = ["given_up"]

[[hook]]
name = "pictures"
type = "download"
to = "data"
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.toml"))
    monkeypatch.setenv("ERP_PATH", PATH)
    monkeypatch.setenv("ERP_TOKEN", "the-token-of-the-erp")
    monkeypatch.setenv("WEBHOOK_SECRET", "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=")
    (tmp_path / "hooks.toml").write_text(HOOKS)


@pytest.fixture
def rich(store: SqliteStore, tmp_path: Path) -> Rich:
    return fill(store, tmp_path / "files", NOW)


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, ["hooks", "render", *arguments])
    assert isinstance(done.exception, SystemExit | None), done.exception
    for secret in (PATH, "the-token-of-the-erp", "whsec_dGVz", SIGNATURE):
        assert secret not in done.output
    return done


def test_without_a_task_the_test_event_is_shown_and_no_database_is_needed(tmp_path: Path) -> None:
    done = run("erp")
    assert done.exit_code == 0
    destination, *headers = done.stdout.split("\n\n")[0].splitlines()
    assert destination == "POST https://erp.example/…"  # the path is hidden, visibly
    assert "Authorization: …" in headers
    assert "X-Order: TEST" in headers
    assert any(line.startswith("webhook-signature: v1,") for line in headers)
    assert '{"order": "TEST", "note": null, "token": "…"' in done.stdout
    assert not (tmp_path / "receiver.db").exists()


def test_the_event_of_a_task_is_shown(rich: Rich) -> None:
    done = run("erp", "--task", rich.succeeded, "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert (document["hook"], document["status"]) == ("erp", "succeeded")
    assert document["headers"]["X-Order"] == "ORDER-0"
    assert document["headers"]["webhook-id"] == "task-succeeded:succeeded"
    body = json.loads(document["body"])
    assert body["order"] == "ORDER-0"
    assert body["urls"] == ["https://cdn.example/0.png?…"]
    assert json.loads(run("erp", "--task", "ORDER-1", "--json").stdout)["status"] == "failed"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://erp.example:8443/", "https://erp.example:8443"),
        ("https://erp.example/in", "https://erp.example/…"),
        ("https://erp.example/?key=1", "https://erp.example/…"),
        ("https://me:a-password@erp.example", "https://erp.example/…"),
    ],
)
def test_a_url_is_shown_without_its_path_and_says_so(tmp_path: Path, url: str, shown: str) -> None:
    text = HOOKS.replace("https://erp.example/${ERP_PATH}", url)
    (tmp_path / "hooks.toml").write_text(text)
    assert run("erp").stdout.splitlines()[0] == f"POST {shown}"
    assert json.loads(run("erp", "--json").stdout)["destination"] == f"POST {shown}"


def test_an_email_is_shown_with_its_parts(rich: Rich) -> None:
    lines = run("mail", "--task", rich.succeeded).stdout.splitlines()
    assert lines[0] == "SMTP to smtp.example.com, for a@shop.example, b@shop.example"
    assert "Subject: ORDER-0" in lines
    start = lines.index("multipart/mixed")
    kinds = [line.split(",")[0] for line in lines[start : start + 6]]
    assert kinds == [
        "multipart/mixed",
        "  multipart/alternative",
        "    text/plain",
        "    multipart/related",
        "      text/html",
        "      image/jpeg",
    ]
    assert "--- text/plain ---" in lines
    assert "--- text/html ---" in lines


def test_hostile_text_controls_no_terminal(rich: Rich) -> None:
    done = run("erp", "--task", rich.hostile)
    assert done.exit_code == 0
    assert all(line.isprintable() for line in done.stdout.splitlines())


def test_another_status_of_the_task_can_be_shown(rich: Rich) -> None:
    done = run("erp", "--task", rich.succeeded, "--status", "processing", "--json")
    assert json.loads(done.stdout)["headers"]["webhook-id"] == "task-succeeded:processing"
    done = run("erp", "--task", rich.succeeded, "--status", "failed")
    assert done.exit_code == 1
    assert "the task never had the status failed; it had: created" in done.stderr
    done = run("script", "--task", rich.succeeded)
    assert done.exit_code == 1
    assert "the task has no status of the hook's events; it had: created" in done.stderr
    done = run("script", "--task", rich.given_up)
    assert done.stdout.splitlines()[:2] == [
        "/bin/true 'a b'",
        "CALLBACK_EVENT_ID: task-given-up:given_up",
    ]


def test_what_cannot_be_rendered_is_reported(rich: Rich) -> None:
    done = run("team", "--task", rich.succeeded)
    assert done.exit_code == 1
    assert done.stdout == ""
    problem = 'hook "team": text: line 1: task.metadata.color is not in this event'
    assert problem in " ".join(done.stderr.split())


def test_nothing_is_shown_about_a_forgotten_or_pruned_task(rich: Rich) -> None:
    done = run("erp", "--task", rich.forgotten)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "the task was forgotten" in done.stderr
    CliRunner().invoke(main, ["prune", "--older-than", "1d", "--dead-letters"])
    done = run("erp", "--task", rich.succeeded)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "the provider's message was pruned" in done.stderr


def test_a_hook_that_sends_no_message_is_reported() -> None:
    done = run("pictures")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "a hook of type download sends no message" in done.stderr
    assert "'nothing' is not in the hooks file" in run("nothing").stderr
