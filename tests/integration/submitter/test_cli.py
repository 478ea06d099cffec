"""The `submitter` command as people and scripts use it."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from receiver.clock import now_ms
from receiver.config import hooks_file
from receiver.deliveries import Attempt, File, State
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.providers import status_for
from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter.cli import main
from submitter.follow import wait_for_downloads
from tests.support import processes
from tests.support.forked_children import PopenOfServer
from tests.support.patience import PATIENCE, wait_until

TOKEN = "the-token-that-nobody-may-see"
IMAGES = {"task_result": {"images": [{"index": 0, "url": "https://cdn.example/a.png"}]}}
HOOKS = '[[hook]]\nname = "pictures"\ntype = "download"\non = ["succeeded"]\n'
SUCCEED = {"task_id": "867283741759111202", "task_status": "succeed", **IMAGES}


@pytest.fixture
def environment(
    server: Any, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    for name in ("PUBLIC_URL", "CALLBACK_SECRETS", "HOOKS_FILE", "KLING_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    return {
        "DATABASE_URL": f"sqlite:///{database}",
        "KLING_API_KEY": TOKEN,
        "KLING_BASE_URL": server.url,
    }


@pytest.fixture
def run(environment: dict[str, str], picture: Path) -> Callable[..., Result]:
    def run(*words: str, **changed: str | None) -> Result:
        if words[0] == "submit":
            words += ("--human", str(picture), "--cloth", "https://x.example/cloth.png")
        result = CliRunner().invoke(main, words, env={**environment, **changed})
        assert "Traceback" not in result.output
        assert TOKEN not in result.output
        return result

    return run


def test_submit_prints_the_task_and_its_ids(run: Any, server: Any, store: Store) -> None:
    server.will(server.task())
    result = run("submit", "--reference", "ORDER-7")
    (task,) = store.lists.tasks()
    assert result.exit_code == 0
    for fact in (task.id, "ORDER-7", "867283741759111202", "submitted"):
        assert fact in result.stdout


def test_json_is_one_document_on_stdout(run: Any, server: Any, store: Store) -> None:
    server.will(server.task())
    document = json.loads(run("submit", "--json").stdout)
    assert document["task"]["id"] == store.lists.tasks()[0].id
    assert document["task"]["status"] == "submitted"
    assert document["media"] == []


def test_progress_is_one_line_per_change_on_stderr(run: Any, server: Any, store: Store) -> None:
    server.will(server.task("succeed", **IMAGES))
    result = run("submit", "--wait", "--json")
    (media,) = json.loads(result.stdout)["media"]
    assert media["url"] == "https://cdn.example/a.png"
    (task,) = store.lists.tasks()
    changes = [line.split(" s  ")[1] for line in result.stderr.splitlines()]
    assert changes == [f"task {task.id}: created", f"task {task.id}: succeeded"]


def test_with_a_public_url_wait_follows_the_record_and_finds_the_file(
    run: Any, server: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread simulates the callback and the worker's download."""
    (tmp_path / "hooks.toml").write_text(HOOKS)
    file = File("0", "/pictures/a.png", "00" * 32, 7, "image/png")

    def play(handler: BaseHTTPRequestHandler, asked: Any) -> None:
        server.task()(handler, asked)
        threading.Thread(target=happen, args=(asked.json["external_task_id"],)).start()

    is_waited_for = threading.Event()

    def wait(store: Store, downloads: frozenset[str], task: Task) -> None:
        is_waited_for.set()
        wait_for_downloads(store, downloads, task, timeout=PATIENCE)

    def happen(task_id: str) -> None:
        wait_until(lambda: store.queries.task(task_id).status is Status.SUBMITTED)
        entries = hooks_file.load(tmp_path / "hooks.toml", status_for)
        Ingest(store, [entry.subscription for entry in entries]).accept(
            Callback("kling", task_id, json.dumps(SUCCEED).encode(), received_at=2)
        )
        assert is_waited_for.wait(PATIENCE)
        (delivery,) = store.outbox.claim("w", 3, 10**15, 5)
        store.outbox.settle(
            delivery, Attempt(1, 3, 4, "delivered", "saved"), State.DELIVERED, None, [file]
        )

    monkeypatch.setattr("submitter.cli.submit.wait_for_downloads", wait)
    server.will(play)
    result = run("submit", "--wait", PUBLIC_URL="https://callbacks.example.com")
    assert result.exit_code == 0
    assert "/pictures/a.png" in result.stdout
    assert "cdn.example" not in result.stdout
    assert [asked.method for asked in server.asked] == ["POST"]


@pytest.mark.usefixtures("store")
def test_a_failed_task_exits_with_1_and_the_providers_reason(run: Any, server: Any) -> None:
    said = "\x1b[2JFailure to pass the risk control system"
    server.will(server.task("failed", task_status_msg=said))
    result = run("submit", "--wait")
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert "Failure to pass the risk control system" in result.stdout


@pytest.mark.usefixtures("store")
def test_wait_ends_at_its_timeout_and_the_task_continues(run: Any, server: Any) -> None:
    server.will(server.task())
    result = run("submit", "--wait", "--timeout", "0.3")
    assert result.exit_code == 1
    assert "has not ended within 0.3 s" in result.stderr


@pytest.mark.usefixtures("store")
def test_a_refusal_exits_with_1_and_says_why(run: Any, server: Any) -> None:
    server.will(server.payload("error-1201.json", 400))
    result = run("submit", "--json")
    assert result.exit_code == 1
    assert "Kling 1201: mode value 'professional' is invalid" in result.stderr
    assert json.loads(result.stdout)["task"]["status"] == "failed"


def test_ctrl_c_exits_with_130_and_the_task_stays_on_record(
    server: Any, store: Store, environment: dict[str, str], picture: Path
) -> None:
    server.will(server.task())
    words = ["submit", "--human", str(picture), "--cloth", str(picture), "--wait"]
    with PopenOfServer(
        [sys.executable, "-m", "submitter", *words],
        env=processes.forkable({**os.environ, **environment}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "submitted" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        rest = process.stderr.read()
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert len(store.lists.tasks()) == 1


def test_status_queries_an_open_task_and_accepts_either_id(
    run: Any, server: Any, store: Store
) -> None:
    server.will(server.task(), server.task("processing"), server.task("succeed", **IMAGES))
    run("submit")
    assert "processing" in run("status", store.lists.tasks()[0].id).stdout
    result = run("status", "867283741759111202", "--json")
    assert json.loads(result.stdout)["task"]["status"] == "succeeded"
    asked = len(server.asked)
    assert "https://cdn.example/a.png" in run("status", "867283741759111202").stdout
    assert len(server.asked) == asked


def test_status_shows_the_record_even_if_the_provider_cannot_be_queried(
    run: Any, server: Any, store: Store
) -> None:
    server.will(server.task(), server.say({"code": 1000, "message": "no", "request_id": "r"}, 401))
    run("submit")
    result = run("status", store.lists.tasks()[0].id)
    assert (result.exit_code, "submitted" in result.stdout) == (1, True)
    assert "Kling 1000" in result.stderr
    unset = run("status", store.lists.tasks()[0].id, KLING_API_KEY=None)
    assert (unset.exit_code, "submitted" in unset.stdout) == (2, True)
    assert run("status", "nobody").exit_code == 1


def test_list_is_tab_separated_when_piped_and_json_on_request(
    run: Any, server: Any, database: Path
) -> None:
    data = [{"task_id": "9", "task_status": "succeed", "created_at": 1774805076166, **IMAGES}]
    server.will(server.say({"code": 0, "message": "SUCCEED", "data": data}))
    header, row = run("list").stdout.splitlines()
    assert header.split("\t") == ["its id", "our id", "status", "created", "result"]
    assert row.split("\t")[::4] == ["9", "https://cdn.example/a.png"]
    document = json.loads(run("list", "--json", "--page", "2", "--page-size", "500").stdout)
    assert (document["page"], document["tasks"][0]["status"]) == (2, "succeeded")
    assert not database.exists()  # it needs no database
    assert run("list", "--page-size", "501").exit_code == 2


def test_a_database_that_was_not_migrated_is_a_one_line_error(run: Any, server: Any) -> None:
    result = run("submit")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "run: receiver migrate" in result.stderr
    assert server.asked == []


def test_all_invalid_settings_are_reported_together(run: Any, server: Any, tmp_path: Path) -> None:
    (tmp_path / "hooks.toml").write_text("[[hook]]\ntype = 'pigeon'\n")
    result = run("submit", KLING_API_KEY=None, PUBLIC_URL="nowhere", KLING_BASE_URL="nowhere")
    assert result.exit_code == 2
    for name in ("KLING_BASE_URL", "PUBLIC_URL", "hooks.toml"):
        assert f"submitter: {name}: " in result.stderr
    assert server.asked == []


def test_an_unusable_picture_exits_with_2_before_anything_is_recorded(
    run: Any, server: Any, store: Store, picture: Path
) -> None:
    picture.write_bytes(b"no picture")
    result = run("submit")
    assert result.exit_code == 2
    assert (
        f"submitter: --human: {picture} is not a JPEG or PNG picture: it is text" in result.stderr
    )
    assert (store.lists.tasks(), server.asked) == ([], [])


# -- a reference that was submitted before


def test_a_reference_of_an_open_or_recent_task_is_warned_of(
    run: Any, server: Any, store: Store
) -> None:
    server.will(*(server.task() for _ in range(4)))
    assert run("submit", "--reference", "ORDER-7").stderr.count("warning") == 0
    (first,) = store.lists.tasks()
    done = run("submit", "--reference", "ORDER-7")
    assert done.exit_code == 0
    (warning,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert warning.startswith(f"submitter: warning: task {first.id} (submitted), created ")
    assert warning.endswith("with --once, this task would not be submitted")
    assert "warning" not in run("submit").stderr  # without a reference
    assert "warning" not in run("submit", "--reference", "ORDER-8").stderr


@pytest.mark.parametrize(
    ("status", "days", "is_warned_of"),
    [("submitted", 9, True), ("succeeded", 0.5, True), ("succeeded", 2, False)],
)
def test_an_old_task_that_has_ended_is_not_warned_of_but_counts_for_once(
    run: Any, server: Any, store: Store, status: str, days: float, is_warned_of: bool
) -> None:
    at = now_ms() - round(days * 86_400_000)
    earlier = Task("earlier", "kling", Status(status), at, at, reference="R", provider_task_id="1")
    store.inbox.create_task(earlier)
    refused = run("submit", "--reference", "R", "--once")
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1] == (
        f"submitter: task earlier ({status}) has the reference R already; nothing was sent"
    )
    assert server.asked == []
    server.will(server.task())
    assert ("warning" in run("submit", "--reference", "R").stderr) is is_warned_of


def test_once_submits_a_reference_that_is_new_or_was_not_accepted(
    run: Any, server: Any, store: Store
) -> None:
    at = now_ms()
    rejected = Task("a", "kling", Status.FAILED, at, at, reference="R", reason="never reached")
    store.inbox.create_task(rejected)
    server.will(server.task())
    done = run("submit", "--reference", "R", "--once")
    assert (done.exit_code, "warning" in done.stderr) == (0, False)
    assert len(store.lists.tasks(reference="R")) == 2


def test_once_needs_a_reference(run: Any, server: Any) -> None:
    done = run("submit", "--once")
    assert (done.exit_code, server.asked) == (2, [])
    assert done.stderr == "submitter: --once: needs a reference, of which it allows only one task\n"


@pytest.mark.parametrize("name", ["ORDER-7", "867283741759111202"])
def test_status_takes_a_reference_or_any_id(run: Any, server: Any, store: Store, name: str) -> None:
    server.will(server.task(), server.task("succeed"))
    run("submit", "--reference", "ORDER-7")
    (task,) = store.lists.tasks()
    done = run("status", name)
    assert (done.exit_code, task.id in done.stdout) == (0, True)
    assert run("status", task.id[:-1]).stdout == run("status", task.id[5:]).stdout


def test_status_lists_the_tasks_of_an_ambiguous_reference(
    run: Any, server: Any, store: Store
) -> None:
    server.will(server.task(), server.task())
    for _ in range(2):
        run("submit", "--reference", "ORDER-7")
    done = run("status", "ORDER-7")
    first, *lines = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (1, "")
    assert first == "submitter: ORDER-7 names 2 tasks; give the id of one:"
    assert [line.split()[0] for line in lines] == [task.id for task in store.lists.tasks()]
