"""The `receiver` command: its output and its errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver import providers
from receiver.cli import main
from receiver.deliveries import Attempt, State
from receiver.errors import NotTheProtocol
from receiver.ingest import Ingest
from receiver.signing.callback_urls import callback_url
from receiver.stores.releases import migrations
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status, Task
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body, callback, subscription

COMMANDS = sorted(main.commands)
HEADERS = {  # of their lists in a pipe
    "tasks": ["task", "provider", "reference", "status", "created", "reason"],
    "callbacks": ["id", "task", "source", "outcome", "repeats", "received", "problem"],
    "deliveries": ["id", "task", "status", "hook", "state", "attempts", "due", "ended"],
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.toml"))
    (tmp_path / "hooks.toml").touch()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert main.commands[command].help


@pytest.mark.parametrize("command", ["serve", "worker", "tasks", "callbacks", "deliveries"])
def test_an_unmigrated_database_is_one_clear_line(command: str) -> None:
    done = run(command)
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    assert "run: receiver migrate" in done.output


def test_all_invalid_settings_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://x")
    monkeypatch.setenv("PUBLIC_URL", "x")
    done = run("migrate")
    assert done.exit_code == 2
    assert [line.split(":")[1].strip() for line in done.output.splitlines()] == [
        "DATABASE_URL",
        "PUBLIC_URL",
    ]


def test_a_bad_hooks_file_stops_the_worker_with_every_mistake(
    store: SqliteStore, tmp_path: Path
) -> None:
    store.check_schema()
    (tmp_path / "hooks.toml").write_text(
        '[[hook]]\nname = "mail"\ntype = "email"\nfrom = "a@b.c"\nto = "d@e.f"\nport = "x"\n'
        '[[hook]]\nname = "chat"\ntype = "slack"\nurl = "${NO_SUCH_NAME}"\n'
    )
    done = run("worker")
    assert done.exit_code == 2
    assert 'hook "mail"' in done.output
    assert "NO_SUCH_NAME" in done.output
    assert "Traceback" not in done.output


def test_migrate_says_what_it_did() -> None:
    names = [name for name, _ in migrations("sqlite")]
    assert run("migrate").output == f"migrate: applied {names[0]} to {names[-1]}\n"
    assert run("migrate").output == "migrate: up to date\n"


def test_an_empty_record_says_so(store: SqliteStore) -> None:
    store.check_schema()
    for command in ("tasks", "callbacks", "deliveries"):
        done = run(command)
        assert (done.exit_code, done.stderr) == (0, f"No {command}.\n")
        assert done.stdout.rstrip("\n").split("\t") == HEADERS[command]
        assert json.loads(run(command, "--json").output) == []


@pytest.fixture
def filled(store: SqliteStore) -> SqliteStore:
    """A record with a succeeded and a failed task, a dead delivery, and a quarantined callback."""
    ingest = Ingest(store, [subscription("mail")])
    ingest.accept(callback(body("succeed"), "task-1"))
    ingest.accept(callback(body("failed", task_status_msg="no human [/b]\x1b[2J"), "task-2"))
    with pytest.raises(NotTheProtocol):
        ingest.accept(callback(body("completed"), "task-3"))
    (delivery,) = store.outbox.claim("w", 2_000_000_000_000, 2_000_000_000_001, 1)
    attempt = Attempt(1, 1_765_519_851_500, 1_765_519_851_900, "failed", "550 no such user")
    store.outbox.settle(delivery, attempt, State.DEAD, None)
    return store


@pytest.mark.usefixtures("filled")
def test_lists_and_their_filters() -> None:
    everything = json.loads(run("tasks", "--json").output)
    assert [task["id"] for task in everything] == ["task-3", "task-2", "task-1"]
    assert everything[1]["reason"] == "no human [/b]\x1b[2J"
    (failed,) = json.loads(run("tasks", "--status", "failed", "--json").output)
    assert failed["id"] == "task-2"
    shown = run("tasks").output
    assert "no human [/b]" in shown
    assert "\x1b" not in shown  # no text may control the terminal
    (dead,) = json.loads(run("deliveries", "--state", "dead", "--json").output)
    assert (dead["hook"], dead["attempts"], dead["due_at"]) == ("mail", 1, None)
    (kept,) = json.loads(run("callbacks", "--outcome", "quarantined", "--json").output)
    assert json.loads(kept["body"])["task_status"] == "completed"
    assert "task_status" in run("callbacks", "--outcome", "quarantined").output


@pytest.mark.usefixtures("filled")
def test_the_timeline_tells_everything() -> None:
    done = run("tasks", "show", "task-1")
    assert done.exit_code == 0
    for told in ("succeeded", "callback", "mail failed", "550 no such user", "+0.900 s"):
        assert told in done.output
    document = json.loads(run("tasks", "show", "task-1", "--json").output)
    assert document["deliveries"][0]["answers"][0]["answer"] == "550 no such user"


def test_the_timeline_names_the_model_if_it_is_known(store: SqliteStore) -> None:
    for name, model in (("task-1", "model-2"), ("task-2", None)):
        store.inbox.create_task(Task(name, "kling", Status.CREATED, 1, 1, model=model))
    assert "  model model-2\n" in run("tasks", "show", "task-1").output
    assert "model" not in run("tasks", "show", "task-2").output
    assert [task["model"] for task in json.loads(run("tasks", "--json").output)] == [
        None,
        "model-2",
    ]


def test_what_is_not_there_is_said(store: SqliteStore) -> None:
    store.check_schema()
    done = run("tasks", "show", "nobody")
    message = "receiver: no task has this id or reference: nobody\n"
    assert (done.exit_code, done.output) == (1, message)
    assert run("redeliver", "7").exit_code == 1
    assert run("replay", "7").exit_code == 1
    assert run("redeliver", "seven").exit_code == 2


def test_a_dead_letter_is_redelivered(filled: SqliteStore) -> None:
    (dead,) = filled.lists.deliveries(state=State.DEAD)
    assert run("redeliver", str(dead.id)).output == f"delivery {dead.id} is due again\n"
    assert filled.lists.deliveries(state=State.DEAD) == []


def test_replay_says_whether_it_is_understood_now(
    filled: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept,) = json.loads(run("callbacks", "--outcome", "quarantined", "--json").output)
    done = run("replay", str(kept["id"]))
    assert done.exit_code == 1
    assert "still not understood" in done.output
    # as after an update that knows the status
    parsed = providers.get("kling").parse(callback(body("succeed"), "task-3"))
    monkeypatch.setattr(type(providers.get("kling")), "parse", lambda *_: parsed)
    assert run("replay", str(kept["id"])).output == f"callback {kept['id']}: recorded\n"
    assert filled.queries.task("task-3").status == "succeeded"


def test_a_mismatch_is_shown_with_instructions_and_can_be_accepted(filled: SqliteStore) -> None:
    Ingest(filled).accept(callback(body("processing", "first"), "task-9"))
    assert Ingest(filled).accept(callback(body("succeed", "second"), "task-9")) == "mismatch"
    assert "processing (mismatch)" in run("tasks", "--limit", "1").output
    (stored,) = json.loads(run("callbacks", "--outcome", "mismatch", "--json").output)
    number = str(stored["id"])
    shown = run("tasks", "show", "task-9").output
    assert "mismatch: names provider task second; provider task first is on record" in shown
    assert f"If it is the right task: receiver replay --accept {number}" in shown
    assert run("replay", number).output == f"callback {number}: mismatch\n"
    assert run("replay", "--accept", number).output == f"callback {number}: recorded\n"
    assert filled.queries.task("task-9").status == "succeeded"
    again = run("replay", "--accept", number)
    assert again.exit_code == 1
    assert f"callback {number} is not a mismatch" in again.output
    assert run("replay", "--accept", "999").exit_code == 1


def test_a_message_that_is_not_understood_cannot_be_accepted(filled: SqliteStore) -> None:
    (kept,) = filled.lists.callbacks(outcome=Outcome.QUARANTINED)
    done = run("replay", "--accept", str(kept.id))
    assert done.exit_code == 1
    assert "still not understood" in done.output


def test_a_bare_gunicorn_tells_a_mistake_without_a_traceback(tmp_path: Path) -> None:
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/none.db"}
    program = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "wsgi:app"]
    done = subprocess.run(
        program, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode != 0
    assert "run: receiver migrate" in done.stderr
    assert "Traceback" not in done.stderr


# -- a callback URL for a task that is created elsewhere


def test_a_callback_url_comes_with_its_task(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLIC_URL", "https://shop.example")
    done = run("url", "--provider", "kling", "--reference", "ORDER-7", "--json")
    assert done.exit_code == 0
    document = json.loads(done.output)
    task = store.queries.task(document["task"]["id"])
    assert (task.reference, task.status, task.expects_callback) == ("ORDER-7", "created", True)
    made = callback_url("https://shop.example", SECRET, "kling", task.id)
    assert document["callback_url"] == made
    plain = run("url", "--provider", "kling").output.strip()
    assert plain.startswith("https://shop.example/callbacks/kling/")
    assert Ingest(store).accept(callback(body(), task.id)) is Outcome.RECORDED
    assert store.queries.task(task.id).reference == "ORDER-7"


@pytest.mark.parametrize("reference", ["", "  ", "two\nlines", "\x1b[2J", "a\u202eb", "x" * 1001])
def test_a_reference_that_cannot_be_shown_is_refused(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.setenv("PUBLIC_URL", "https://shop.example")
    done = run("url", "--provider", "kling", "--reference", reference)
    assert done.exit_code == 2
    assert "use 1 to 1000 printable characters" in done.stderr
    assert store.lists.tasks() == []


@pytest.mark.parametrize(
    ("provider", "says"), [("kling", "PUBLIC_URL: not set"), ("modellix", "has no callbacks")]
)
def test_a_callback_url_that_cannot_work_is_refused(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, provider: str, says: str
) -> None:
    if provider == "modellix":
        monkeypatch.setenv("PUBLIC_URL", "https://shop.example")
    done = run("url", "--provider", provider)
    assert done.exit_code == 2
    assert says in done.output
    assert store.lists.tasks() == []


@pytest.mark.parametrize(
    "command",
    ["serve", "worker", "tasks", "deliveries", "endpoints", "hooks list", "redeliver --task 1"],
)
def test_a_missing_hooks_file_is_an_error_of_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.tml"))
    done = CliRunner().invoke(main, command.split())
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"receiver: HOOKS_FILE: {tmp_path / 'hooks.tml'} does not exist;")


def test_waiting_deliveries_of_a_missing_hook_are_shown_and_dropped(filled: SqliteStore) -> None:
    Ingest(filled, [subscription("gone")]).accept(callback(body(), "task-8"))
    assert "waits: its hook is not in the hooks file" in " ".join(run("deliveries").stdout.split())
    (found,) = json.loads(run("deliveries", "--hook", "gone", "--json").stdout)
    assert found["waits_for_missing_hook"] is True
    said = "deliveries that wait, because the hook gone is not in the hooks file: 1; add it"
    assert said in run("endpoints").stderr
    assert said in run("redeliver", "--hook", "gone").stderr
    assert run("endpoints", "drop", "gone", "--dry-run").stdout.startswith(
        "1 delivery to gone would"
    )
    assert run("endpoints", "drop", "gone").stdout == "1 delivery to gone became a dead letter\n"
    assert "gone" in {one.hook for one in filled.lists.deliveries(state=State.DEAD)}
    assert "gone" not in run("endpoints").stderr
    assert run("endpoints", "drop", "never").exit_code == 2


def test_a_hooks_file_that_is_wrong_hides_no_deliveries(
    filled: SqliteStore, tmp_path: Path
) -> None:
    assert filled.lists.deliveries()
    (tmp_path / "hooks.toml").write_text("half a fi")
    done = run("deliveries", "--json")
    assert done.exit_code == 0
    assert {one["waits_for_missing_hook"] for one in json.loads(done.stdout)} == {None}
    assert "hooks.toml: is not TOML" in done.stderr


@pytest.mark.parametrize("address", ["host:port", "127.0.0.1:65536", "[::1:80", "127.0.0.1:-1"])
def test_a_wrong_address_is_a_mistake_of_usage(address: str) -> None:
    done = run("serve", "--bind", address)
    assert done.exit_code == 2
    assert "--bind" in done.stderr


# -- a task by a part of its id or its reference


@pytest.fixture
def two(store: SqliteStore) -> SqliteStore:
    ingest = Ingest(store, [subscription("mail")])
    for task, reference in (("01a2aa", "ORDER-1"), ("01a2bb", "ORDER-2")):
        store.inbox.create_task(Task(task, "kling", Status.CREATED, 1, 1, reference=reference))
        ingest.accept(callback(body(task_id=f"at-{task}"), task))
    return store


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("name", ["01a2b", "bb", "ORDER-2", "at-01a2bb"])
def test_a_part_of_an_id_or_a_reference_works_wherever_an_id_does(name: str) -> None:
    assert "task 01a2bb" in run("tasks", "show", name).output
    for command in ("callbacks", "deliveries"):
        (row,) = json.loads(run(command, "--task", name, "--json").output)
        assert row["task"] == "01a2bb"
    shown = run("redeliver", "--task", name, "--dry-run").output
    assert "0 deliveries would be due again" in shown


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    "command",
    [
        ("tasks", "show", "01a2"),
        ("callbacks", "--task", "01a2"),
        ("deliveries", "--task", "01a2"),
        ("tail", "--task", "01a2"),
        ("redeliver", "--task", "01a2"),
    ],
)
def test_an_ambiguous_part_is_refused_with_the_tasks(command: tuple[str, ...]) -> None:
    done = run(*command)
    assert done.exit_code == 1
    first, *lines = done.stderr.splitlines()
    assert first == "receiver: 01a2 names 2 tasks; give the id of one:"
    assert [line.split()[:2] for line in lines] == [["01a2bb", "ORDER-2"], ["01a2aa", "ORDER-1"]]


@pytest.mark.parametrize("name", ["", "01a2a", "aa", "ORDER-1"])
def test_only_a_complete_id_is_forgotten(two: SqliteStore, name: str) -> None:
    done = run("forget", "--task", name, "--yes")
    assert done.exit_code == 1
    assert "give the complete id, or --reference" in done.stderr
    assert run("forget", "--reference", "ORDER", "--yes").exit_code == 1
    assert two.queries.history("01a2aa").forgotten_at is None


@pytest.mark.parametrize(
    ("references", "question"),
    [
        (["ORDER-2"], "Erase 1 task (ORDER-2) with its pictures? It cannot be undone."),
        (["ORDER-2"] * 2, "Erase 2 tasks (ORDER-2) with their pictures? It cannot be undone."),
    ],
)
def test_forget_names_what_it_will_erase(
    store: SqliteStore, references: list[str], question: str
) -> None:
    for number, reference in enumerate(references):
        task = Task(f"task-{number}", "kling", Status.CREATED, 1, 1, reference=reference)
        store.inbox.create_task(task)
    done = CliRunner().invoke(main, ["forget", "--reference", "ORDER-2"], input="n\n")
    assert question in done.output
    assert store.queries.history("task-0").forgotten_at is None
