"""The commands that repair, pause and erase, and their errors."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver import providers
from receiver.cli import main, retention
from receiver.clock import now_ms
from receiver.console import output
from receiver.console import records as tables
from receiver.deliveries import Attempt, File, State
from receiver.delivery.worker_slots import WorkerSlots
from receiver.endpoints import AlertKind, Endpoint, Limits, Rate
from receiver.events import Callback, Event
from receiver.ingest import Ingest
from receiver.maintenance import repair
from receiver.providers.kling import Kling
from receiver.stores.sql.activity import Rejection
from receiver.stores.sql.transfer import Transfer
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from receiver.text.display import rfc3339
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body, callback, subscription

HOOKS = """
[[hook]]
name = "mail"
type = "email"
host = "127.0.0.1"
from = "a@shop.example"
to = "b@shop.example"

[[hook]]
name = "later"
type = "slack"
url = "https://hooks.example/x"
on = ["succeeded"]
"""
NOW = now_ms()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.toml"))
    (tmp_path / "hooks.toml").write_text(HOOKS)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def succeed(store: SqliteStore, *tasks: str, state: State = State.DEAD) -> None:
    """Record tasks, each with one ended delivery."""
    for task in tasks:
        Ingest(store, [subscription("mail")]).accept(callback(body(), task, received_at=NOW))
    for delivery in store.outbox.claim("w", NOW, NOW + 1000, 99):
        attempt = Attempt(delivery.attempts, NOW, NOW, "failed", "550 no")
        store.outbox.settle(delivery, attempt, state, None)


# -- redeliver


def test_a_dry_run_prints_how_many_and_changes_nothing(store: SqliteStore) -> None:
    succeed(store, "a", "b")
    done = run("redeliver", "--hook", "mail", "--dry-run")
    assert done.output == "2 deliveries would be due again, 0 would be created\n"
    assert store.lists.deliveries(state=State.PENDING) == []
    assert run("redeliver", "--hook", "mail").output.startswith("2 deliveries are due again")
    assert len(store.lists.deliveries(state=State.PENDING)) == 2


def test_a_hook_added_later_gets_the_events_it_missed(store: SqliteStore) -> None:
    succeed(store, "a", "b", state=State.DELIVERED)
    wanted = ("redeliver", "--hook", "later", "--since", "1h", "--json")
    assert json.loads(run(*wanted, "--dry-run").output)["created"] == 2
    assert store.lists.deliveries(hook="later") == []
    document = json.loads(run(*wanted).output)
    assert document == {"redelivered": 0, "created": 2, "dry_run": False}
    assert len(store.lists.deliveries(hook="later", state=State.PENDING)) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["7", "--hook", "mail"],
        ["--since", "yesterday"],
        ["--state", "pending"],
        ["--since", ""],
    ],
)
def test_an_ambiguous_request_is_refused(store: SqliteStore, arguments: list[str]) -> None:
    succeed(store, "a")
    done = run("redeliver", *arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert store.lists.deliveries(state=State.PENDING) == []


def test_several_are_redelivered_by_their_numbers(store: SqliteStore) -> None:
    succeed(store, "a", "b")
    assert "would be due again: its state is dead" in run("redeliver", "1", "--dry-run").output
    done = run("redeliver", "1", "2")
    assert done.output == "delivery 1 is due again\ndelivery 2 is due again\n"


# -- endpoints


# -- replay of the quarantine

WRONG = body("strange")
FOREIGN = b'{"id": "1", "status": "failed", "input": {}, "logs": ""}'


def quarantine(store: SqliteStore, *bodies: bytes, at: int = NOW) -> None:
    """Record callbacks of different tasks that an earlier release could not parse."""
    start = Transfer(store.database).count("callbacks")
    for number, raw in enumerate(bodies, start + 1):
        store.inbox.quarantine(
            callback(raw, f"task-{number}", received_at=at), "not understood then"
        )


def contents(store: SqliteStore) -> list[object]:
    tables = ("tasks", "callbacks", "transitions", "deliveries", "counters", "pauses")
    return [rows for table in tables for rows in Transfer(store.database).pages(table)]


def test_a_failing_callback_does_not_stop_the_replay_of_the_quarantine(store: SqliteStore) -> None:
    quarantine(store, body(), WRONG, body("failed"), FOREIGN, b"", b"\xff{")
    done = run("replay", "--quarantined")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "callback 1: recorded"
    assert lines[1].startswith("callback 2: still not understood: ")
    assert lines[2] == "callback 3: recorded"
    assert "Replicate" in lines[3]
    assert lines[4] == "callback 5: has no stored body to parse"
    assert lines[5].startswith("callback 6: still not understood: the body is not JSON")
    (summary,) = lines[6:]
    assert summary == (
        "6 callbacks parsed again: 1 has no stored body to parse, 2 recorded, "
        "3 still not understood"
    )
    assert store.queries.task("task-1").status is Status.SUCCEEDED
    assert [d.hook for d in store.lists.deliveries(task_id="task-1")] == ["later", "mail"]
    again = run("replay", "--quarantined")  # the parsed callbacks left the quarantine
    assert again.output.splitlines()[-1].startswith("4 callbacks parsed again: ")


def test_a_dry_run_of_a_replay_writes_nothing(store: SqliteStore) -> None:
    quarantine(store, body(), WRONG, body(task_result={"images": [None]}))
    before = contents(store)
    done = run("replay", "--quarantined", "--dry-run")
    assert done.exit_code == 0
    assert done.output.splitlines()[0] == "callback 1 would be: recorded"
    assert done.output.splitlines()[2] == "callback 3 would be: confirming"
    assert done.output.splitlines()[-1] == (
        "3 callbacks would be parsed again: 1 confirming, 1 recorded, 1 still not understood"
    )
    assert run("replay", "1", "--dry-run").output == "callback 1 would be: recorded\n"
    assert contents(store) == before


def test_a_replay_can_begin_at_a_time(store: SqliteStore) -> None:
    quarantine(store, body(), at=NOW - 3 * 86_400_000)
    quarantine(store, body())
    done = run("replay", "--quarantined", "--since", "2d")
    assert done.output == "callback 2: recorded\n1 callback parsed again: 1 recorded\n"
    since = run("replay", "--quarantined", "--since", "2020-01-01T00:00:00Z", "--dry-run")
    assert since.output.startswith("callback 1 would be: recorded\n")


def test_a_long_quarantine_is_read_in_pages(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "BATCH_SIZE", 2)
    quarantine(store, *[WRONG, body()] * 3, WRONG)
    done = run("replay", "--quarantined")
    assert [line.split()[1] for line in done.output.splitlines()[:7]] == [
        f"{number}:" for number in range(1, 8)
    ]


def test_an_empty_quarantine_is_not_an_error(store: SqliteStore) -> None:
    store.check_schema()
    done = run("replay", "--quarantined")
    assert (done.exit_code, done.output) == (0, "0 callbacks parsed again\n")


def test_an_exception_of_an_adapter_does_not_stop_the_replay(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kling = type(providers.get("kling"))
    parse = kling.parse

    def broken(self: Kling, callback: Callback) -> Event:
        if callback.task_id == "task-1":
            raise KeyError("oops")
        return parse(self, callback)

    monkeypatch.setattr(kling, "parse", broken)
    quarantine(store, body(), body())
    done = run("replay", "--quarantined")
    assert done.exit_code == 1
    assert "callback 1: the adapter failed: KeyError: 'oops'" in done.output
    assert "callback 2: recorded" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "arguments",
    [[], ["7", "--quarantined"], ["7", "--since", "2d"], ["--quarantined", "--since", "soon"]],
)
def test_an_ambiguous_replay_is_refused(store: SqliteStore, arguments: list[str]) -> None:
    quarantine(store, body())
    done = run("replay", *arguments)
    assert done.exit_code == 2
    assert store.lists.callbacks()[0].outcome == "quarantined"


def test_text_of_a_provider_cannot_control_the_terminal(store: SqliteStore) -> None:
    quarantine(store, b'{"task_id": "1", "task_status": "\\u001b[2J"}')
    assert "\x1b" not in run("replay", "--quarantined").output


@pytest.mark.parametrize(
    "arguments",
    [
        ["redeliver", "--hook", "nope"],
        ["deliveries", "--hook", "nope"],
        ["tail", "--hook", "nope"],
        ["endpoints", "pause", "nope"],
    ],
)
def test_an_unknown_hook_is_an_error_that_names_the_known_ones(
    store: SqliteStore, arguments: list[str]
) -> None:
    Ingest(store, [subscription("removed")]).accept(callback())
    done = run(*arguments)
    assert done.exit_code == 2
    assert "'nope' is not in the hooks file; known hooks are: later, mail, removed" in done.stderr
    assert run("deliveries", "--hook", "removed").exit_code == 0
    assert run("redeliver", "--hook", "removed", "--state", "dead").exit_code == 0


@pytest.mark.parametrize("option", ["--status", "--provider"])
def test_an_unknown_status_or_provider_is_an_error(store: SqliteStore, option: str) -> None:
    succeed(store, "a")
    done = run("redeliver", "--hook", "mail", option, "foo")
    assert done.exit_code == 2
    assert "'foo' is not one of" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["forget", "--reference", "NOPE"], "receiver: no task has the reference 'NOPE'\n"),
        (["redeliver", "abc"], "'abc' is not a valid whole number.\n"),
        (["tasks", "--limit", "abc"], "'abc' is not a valid whole number.\n"),
        (["replay", "abc"], "'abc' is not a valid whole number.\n"),
    ],
)
def test_an_error_is_worded_like_the_others(
    store: SqliteStore, arguments: list[str], line: str
) -> None:
    store.check_schema()
    assert run(*arguments).stderr.endswith(line)


def test_an_unfinished_delivery_is_not_redelivered_and_the_remedy_is_named(
    store: SqliteStore,
) -> None:
    Ingest(store, [subscription("mail")]).accept(callback())
    (delivery,) = store.outbox.claim("w", now_ms(), now_ms() + 60_000, 1)
    claimed = run("redeliver", str(delivery.id))
    assert (claimed.exit_code, claimed.stderr) == (
        1,
        f"receiver: delivery {delivery.id} is claimed: a worker is sending it\n",
    )
    due_at = now_ms() + 3_600_000
    store.outbox.settle(delivery, Attempt(1, 1, 2, "failed", "401"), State.PENDING, due_at)
    for options in ([], ["--dry-run"]):
        done = run("redeliver", str(delivery.id), *options)
        assert done.exit_code == 1
        assert done.stderr == (
            f"receiver: delivery {delivery.id} is pending, due {rfc3339(due_at)}; "
            "to send what is pending now: receiver endpoints resume mail\n"
        )
    assert run("endpoints", "resume", "mail").output == "deliveries that are due now: 1\n"


def test_an_endpoint_that_refuses_every_event_is_not_listed_as_healthy(store: SqliteStore) -> None:
    Ingest(store, [subscription("mail")]).accept(callback())
    (delivery,) = store.outbox.claim("w", now_ms(), now_ms() + 1000, 1)
    refusal = "https://shop.example answered 401 No"
    store.outbox.settle(delivery, Attempt(1, 1, 2, "failed", refusal), State.DEAD, None)
    done = run("endpoints", "--circuit", "closed")
    assert f"mail\tlast attempt failed\t1\t1970-01-01 00:00:00\t\t{refusal}" in done.stdout
    assert "mail: check that the endpoint uses the same secret as the hook" in done.stderr
    (healthy,) = json.loads(run("endpoints", "--json", "--circuit", "healthy").stdout)
    assert healthy["hook"] == "later"
    mail, _ = json.loads(run("endpoints", "--json").stdout)
    assert (mail["circuit"], mail["failures"], mail["failed_in_a_row"]) == ("closed", 0, 1)
    assert (mail["state"], mail["last_response"]) == ("last attempt failed", refusal)


def test_endpoints_are_listed_with_their_limits(store: SqliteStore, tmp_path: Path) -> None:
    assert "limits" not in run("endpoints").output
    (tmp_path / "hooks.toml").write_text(HOOKS + 'rate = "1/h"\nconcurrency = 2\n')
    for task in ("a", "b"):
        Ingest(store, [subscription("later")]).accept(callback(body(), task, received_at=NOW))

    def shown() -> list[str]:
        return [line.rpartition("\t")[2] for line in run("endpoints").output.splitlines()]

    assert shown() == ["limits", "", "1/h, 2 at a time"]
    slots, now = WorkerSlots(4, limits=lambda: {"later": Limits(Rate(1, "h"), 2)}), now_ms()
    store.outbox.claim("w", now, now + 60_000, 4, slots)
    next_at = rfc3339(now + 3_690_000)
    when = next_at[:19].replace("T", " ")
    assert shown()[2] == f"1/h, 2 at a time; held by rate limit 1/h, next at {when}"
    mail, later = json.loads(run("endpoints", "--json").stdout)
    keys = ("rate", "concurrency", "held_by", "next_at")
    assert [mail[key] for key in keys] == [None] * 4
    assert [later[key] for key in keys] == ["1/h", 2, "rate", next_at]


def test_endpoints_are_listed_paused_and_resumed(store: SqliteStore) -> None:
    succeed(store, "a")
    assert run("endpoints", "pause", "mail").exit_code == 0
    circuits = {
        row["hook"]: row["circuit"] for row in json.loads(run("endpoints", "--json").output)
    }
    assert circuits == {"mail": "paused", "later": "closed"}
    shown = [line.split("\t")[:2] for line in run("endpoints").output.splitlines()]
    assert shown == [["hook", "circuit"], ["mail", "paused"], ["later", "not used yet"]]
    assert run("endpoints", "resume", "mail").output == "mail receives deliveries again\n"
    assert run("endpoints", "resume", "mail").output == "mail was not paused\n"


def test_a_failing_endpoint_shows_its_response(store: SqliteStore) -> None:
    Ingest(store, [subscription("old")]).accept(callback())
    (delivery,) = store.outbox.claim("w", NOW, NOW + 1000, 1)
    endpoint = Endpoint("old", 7, NOW, 1, NOW + 60_000_000, said="refused \x1b[2J")
    attempt = Attempt(1, NOW, NOW, "failed", endpoint.said)
    store.outbox.settle(
        delivery, attempt, State.DEAD, None, change=lambda _: (endpoint, AlertKind.PAUSED)
    )
    shown = run("endpoints").output
    assert "open" in shown
    assert "refused" in shown
    assert "\x1b" not in shown
    assert run("endpoints", "resume", "old").exit_code == 0  # although it is not in the file


def test_the_next_attempt_of_a_half_open_endpoint_is_shown(store: SqliteStore) -> None:
    Ingest(store, [subscription("old")]).accept(callback())
    (delivery,) = store.outbox.claim("w", NOW, NOW + 1000, 1)
    endpoint = Endpoint("old", 7, NOW, 1, NOW - 1, said="refused")
    attempt = Attempt(1, NOW, NOW, "failed", endpoint.said)
    store.outbox.settle(
        delivery, attempt, State.DEAD, None, change=lambda _: (endpoint, AlertKind.PAUSED)
    )
    header, *_, row = run("endpoints").output.splitlines()
    shown = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert (shown["circuit"], shown["next attempt"]) == ("half-open", "as soon as one is due")


def test_deliveries_show_when_they_ended(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Ingest(store, [subscription("mail")]).accept(callback())
    (delivery,) = store.outbox.claim("w", NOW, NOW + 1000, 1)
    store.outbox.settle(delivery, Attempt(1, NOW, 0, "delivered", "250"), State.DELIVERED, None)
    header, row = run("deliveries").output.splitlines()
    shown = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert (shown["due"], shown["ended"]) == ("", "1970-01-01 00:00:00")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    tables.show_deliveries(store.lists.deliveries(), NOW)
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[-4:] == ["due", "or", "ended", "(UTC)"]
    assert second.endswith("1970-01-01 00:00:00")


def test_an_unknown_hook_is_reported(store: SqliteStore) -> None:
    store.check_schema()
    done = run("endpoints", "pause", "mial")
    assert done.exit_code == 2
    assert "known hooks are: later, mail" in done.output


# -- rejections


def test_rejected_requests_are_listed(store: SqliteStore) -> None:
    assert run("rejections").stderr == "No request was rejected.\n"
    path = "/callbacks/kling/…/…"
    store.activity.add_rejections([Rejection(NOW, "203.0.113.9", "wrong token", "POST", path, 3)])
    shown = run("rejections").output
    for told in ("203.0.113.9", "wrong token", path, "3"):
        assert told in shown
    (document,) = json.loads(run("rejections", "--json").output)
    assert (document["count"], document["reason"]) == (3, "wrong token")


# -- prune and forget


def test_prune_reports_what_it_erased(store: SqliteStore) -> None:
    old = NOW - 40 * 86_400_000
    Ingest(store).accept(callback(body(), "a", received_at=old))
    Ingest(store).accept(callback(body(), "b", received_at=NOW))
    assert run("prune", "--older-than", "30d").output == "prune: erased 1 message, 0.0 MB\n"
    assert [stored.callback.body for stored in store.lists.callbacks(task_id="a")] == [b""]
    assert store.lists.callbacks(task_id="b")[0].callback.body


def test_prune_requires_an_age(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.check_schema()
    done = run("prune")
    assert done.exit_code == 2
    assert "RETENTION" in done.output
    monkeypatch.setenv("RETENTION", "30d")
    assert run("prune").exit_code == 0
    monkeypatch.setenv("RETENTION", "a month")
    assert "RETENTION: 'a month' is not a duration" in run("prune").output


@pytest.fixture
def pictures(store: SqliteStore, tmp_path: Path) -> Callable[[], list[Path]]:
    """Record two tasks of one customer and one of another, each with a downloaded picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, reference in enumerate(["anna", "anna", "ben"]):
        task = f"task-{number}"
        store.inbox.create_task(Task(task, "kling", Status.CREATED, NOW, NOW, reference=reference))
        Ingest(store, [subscription("mail")]).accept(callback(body(), task, received_at=NOW))
        (delivery,) = store.outbox.claim("w", NOW, NOW + 1000, 1)
        path = folder / f"{task}.png"
        path.write_bytes(b"a picture")
        made = File("0", str(path), "ab" * 32, 9, "image/png", b"small")
        attempt = Attempt(1, NOW, NOW, "delivered", "ok")
        store.outbox.settle(delivery, attempt, State.DELIVERED, None, [made])
    return lambda: sorted(folder.iterdir())


def test_a_customer_is_forgotten_with_the_pictures(
    store: SqliteStore, pictures: Callable[[], list[Path]]
) -> None:
    done = run("forget", "--reference", "anna", "--yes")
    assert done.exit_code == 0
    assert done.output.count("removed 1 file") == 2
    assert [path.name for path in pictures()] == ["task-2.png"]
    assert store.lists.tasks(reference="anna") == []
    assert "forgotten at" in run("tasks", "show", "task-0").output
    assert json.loads(run("tasks", "show", "task-0", "--json").output)["forgotten_at"]
    assert store.queries.history("task-2").files  # the other customer's


def test_forget_asks_for_confirmation(pictures: Callable[[], list[Path]]) -> None:
    done = CliRunner().invoke(main, ["forget", "--task", "task-0"], input="n\n")
    assert done.exit_code == 1
    assert len(pictures()) == 3


def test_forgetting_twice_is_not_an_error(pictures: Callable[[], list[Path]]) -> None:
    for files in (1, 0):
        done = run("forget", "--task", "task-0", "--yes")
        assert done.output == f"forgot task task-0, removed {files} file{'s' * (files != 1)}\n"
    assert len(pictures()) == 2


def test_a_file_that_cannot_be_removed_is_reported_and_stays_on_record(
    store: SqliteStore, pictures: Callable[[], list[Path]]
) -> None:
    first = pictures()[0]
    first.unlink()
    (first / "in the way").mkdir(parents=True)
    done = run("forget", "--task", "task-0", "--yes")
    assert done.exit_code == 1
    assert "could not be removed" in done.output
    assert "Traceback" not in done.output
    assert store.queries.history("task-0").files  # so that the next run finds it
    (first / "in the way").rmdir()
    first.rmdir()
    assert run("forget", "--task", "task-0", "--yes").exit_code == 0
    assert not store.queries.history("task-0").files


def test_a_task_that_cannot_be_erased_costs_only_itself(
    store: SqliteStore, pictures: Callable[[], list[Path]]
) -> None:
    first = pictures()[0]
    first.unlink()
    (first / "in the way").mkdir(parents=True)
    done = run("forget", "--reference", "anna", "--yes")
    assert done.exit_code == 1
    assert "task-0.png could not be removed" in done.output
    assert "forgot task task-1, removed 1 file" in done.output
    assert [task.id for task in store.lists.tasks(reference="anna")] == ["task-0"]


@pytest.mark.parametrize(
    ("command", "verb"),
    [
        (("forget", "--task", "task-0", "--yes"), "erase_task"),
        (("prune", "--older-than", "30d"), "erase_old"),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_forget_exits_with_1_while_a_reader_keeps_erased_data(
    store: SqliteStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    verb: str,
) -> None:
    old = NOW - 40 * 86_400_000
    Ingest(store).accept(callback(body(), "old", received_at=old))
    patient = getattr(retention, verb)
    monkeypatch.setattr(retention, verb, partial(patient, readers_end_within=0))
    reader = sqlite3.connect(tmp_path / "receiver.db", isolation_level=None)
    reader.execute("begin")
    reader.execute("select * from tasks").fetchall()
    done = run(*command)
    assert done.exit_code == 1
    assert "is still in the database's files" in done.output
    assert "fuser -v" in done.output
    reader.close()
    assert run(*command).exit_code == 0
    assert store.erasures.unfinished() is None


def test_a_mistake_in_the_hooks_file_is_reported_before_anything_is_erased(
    store: SqliteStore, pictures: Callable[[], list[Path]], tmp_path: Path
) -> None:
    """Its download hooks say where unrecorded files can be."""
    (tmp_path / "hooks.toml").write_text('[[hook]]\nname = "a"\ntype = "download"\n')
    done = run("forget", "--task", "task-0", "--yes")
    assert done.exit_code == 2
    assert "to: " in done.output
    assert len(pictures()) == 3
    assert store.queries.task("task-0").reference == "anna"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "--task or --reference"),
        (["--task", "a", "--reference", "b"], 2, "--task or --reference"),
        (["--task", "nobody", "--yes"], 1, "no task has the id nobody"),
        (["--reference", "nobody", "--yes"], 1, "no task has the reference 'nobody'"),
    ],
)
def test_forget_requires_a_reference_or_a_task(
    store: SqliteStore, arguments: list[str], status: int, says: str
) -> None:
    store.check_schema()
    done = run("forget", *arguments)
    assert done.exit_code == status
    assert says in done.output


# -- unusual arguments and outputs


def program(
    *arguments: str | bytes, stdout: int, package: str = "receiver"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", package, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=dict(os.environ),
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("receiver", ["tasks", "--reference", b"caf\xe9"]),
        ("submitter", ["status", b"caf\xe9"]),
    ],
)
def test_an_argument_that_is_not_utf8_is_one_clear_line(
    store: SqliteStore, package: str, arguments: list[str | bytes]
) -> None:
    store.check_schema()
    done = program(*arguments, stdout=subprocess.PIPE, package=package)
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("package", "arguments"), [("receiver", ["tasks"]), ("submitter", ["status", "a", "--json"])]
)
def test_a_full_standard_output_is_one_clear_line(
    store: SqliteStore, package: str, arguments: list[str]
) -> None:
    succeed(store, "a")
    with Path("/dev/full").open("wb") as full:
        done = program(*arguments, stdout=full.fileno(), package=package)
    assert done.returncode == 1
    line = f"{package}: the output could not be written: No space left on device\n"
    assert done.stderr.decode() == line


def test_a_closed_pipe_is_not_reported(store: SqliteStore) -> None:
    succeed(store, "a")
    reader, writer = os.pipe()
    os.close(reader)
    done = program("tasks", stdout=writer)
    os.close(writer)
    assert done.stderr == b""


def test_json_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"reason": "caf\u00e9 \x1b[2J \x9b2J \u202egnp.exe \u2028 \x7f"}
    output.as_json(told)
    shown = capsys.readouterr().out
    assert json.loads(shown) == told
    assert "café" in shown
    assert not any(char in shown for char in "\x1b\x9b\u202e\u2028\x7f")


def test_a_long_reason_does_not_fill_a_table(store: SqliteStore) -> None:
    reason = "x" * 200_000
    Ingest(store).accept(callback(body("failed", task_status_msg=reason), "a"))
    assert len(run("tasks").output) < 2_000
    recorded = json.loads(run("tasks", "--json").output)[0]["reason"]
    assert len(recorded) <= providers.MAX_REASON
    assert reason in json.loads(run("callbacks", "--json").output)[0]["body"]
