"""`receiver hooks explain`: why each hook receives an event of a task, or does not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver.cli import main
from receiver.config import settings
from receiver.deliveries import Attempt, State
from receiver.ingest import Ingest
from receiver.maintenance.prune import prune
from receiver.stores.base import Store
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from tests.support.docs_pages import ROOT, blocks
from tests.support.samples import SECRET, body, callback

NOW = 1_765_519_851_000
WEBHOOK_SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
TASK = Task("01a1fc0a", "kling", Status.CREATED, NOW - 2000, NOW - 2000, reference="ORDER-7")
EVERY = '["submitted", "processing", "succeeded", "failed", "given_up"]'
HOOKS = """
[[hook]]
name = "shop"
type = "command"
command = ["true"]
providers = ["kling"]
match = "ORDER-*"
where = { task.cost = { min = 5 } }

[[hook]]
name = "all"
type = "command"
command = ["true"]
on = ["*"]

[[hook]]
name = "video"
type = "command"
command = ["true"]
where = { media.kind = "image", media.index = "7" }
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.toml"))
    monkeypatch.setenv("WEBHOOK_SECRET", WEBHOOK_SECRET)
    (tmp_path / "hooks.toml").write_text(HOOKS)
    store = SqliteStore(tmp_path / "receiver.db")
    store.migrate()
    yield store
    store.close()


def fill(store: Store, task: Task = TASK, *statuses: str) -> None:
    store.inbox.create_task(task)
    ingest = Ingest.into(store, settings.load(creates_secret=False))
    for status in statuses or ("submitted", "succeed"):
        ingest.accept(callback(body(status, final_unit_deduction="1"), task.id))


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, ["hooks", "explain", *arguments])
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done


def test_every_condition_is_shown_with_the_value_of_the_event(store: Store) -> None:
    fill(store)
    done = run("ORDER-7")
    assert done.exit_code == 0
    assert (
        done.stdout
        == f"""\
task.succeeded of task 01a1fc0a  ORDER-7

shop does not fire
  yes  on = ["succeeded", "failed"]; the event has "succeeded"
  yes  providers = ["kling"]; the event has "kling"
  yes  match = "ORDER-*"; the event has "ORDER-7"
  no   where.task.cost = {{ min = 5 }}; the event has "1"

all fires; delivery 2 is pending
  yes  on = {EVERY}; the event has "succeeded"

video does not fire
  yes  on = ["succeeded", "failed"]; the event has "succeeded"
  yes  where.media.kind = "image"; the event has ["image"]
  no   where.media.index = "7"; the event has ["0"]
  no   where.media = one item that meets all conditions for media; the event has 1 item
"""
    )


def test_the_json_has_the_event_the_checks_and_the_delivery(store: Store) -> None:
    fill(store)
    document = json.loads(run("ORDER-7", "--json").stdout)
    assert document["event"]["type"] == "task.succeeded"
    assert document["event"]["media"][0]["kind"] == "image"
    shop, every, _ = document["hooks"]
    assert shop == {
        "hook": "shop",
        "type": "command",
        "fires": False,
        "checks": [
            {
                "key": "on",
                "condition": ["succeeded", "failed"],
                "value": "succeeded",
                "holds": True,
            },
            {"key": "providers", "condition": ["kling"], "value": "kling", "holds": True},
            {"key": "match", "condition": "ORDER-*", "value": "ORDER-7", "holds": True},
            {"key": "where.task.cost", "condition": {"min": 5}, "value": "1", "holds": False},
        ],
        "delivery": None,
    }
    assert (every["fires"], every["delivery"]) == (True, {"id": 2, "state": "pending"})


def test_the_event_of_another_status_can_be_explained(store: Store) -> None:
    fill(store)
    shown = run("ORDER-7", "--status", "submitted").stdout
    assert shown.startswith("task.submitted of task 01a1fc0a")
    assert '\n  no   on = ["succeeded", "failed"]; the event has "submitted"\n' in shown
    assert "all fires; delivery 1 is pending" in shown
    missing = run("ORDER-7", "--status", "failed")
    assert missing.exit_code == 2
    assert "has no event with the status failed; it has: submitted, succeeded" in missing.stderr


def test_given_up_can_be_explained(store: Store) -> None:
    fill(store, TASK, "submitted")
    Ingest.into(store, settings.load(creates_secret=False)).give_up(TASK.id, NOW)
    assert run("ORDER-7").stdout.startswith("task.given_up of task 01a1fc0a")


def test_a_task_without_an_event_is_an_error(store: Store) -> None:
    store.inbox.create_task(TASK)
    done = run("ORDER-7")
    assert done.exit_code == 2
    assert "task 01a1fc0a has no event yet: its status has not changed" in done.stderr


def test_a_changed_hooks_file_is_compared_with_the_record(store: Store, tmp_path: Path) -> None:
    fill(store)
    changed = HOOKS.replace('on = ["*"]', 'on = ["failed"]').replace("min = 5", "max = 5")
    (tmp_path / "hooks.toml").write_text(changed)
    shown = run("ORDER-7").stdout
    assert "shop fires, but has no delivery: its present form was not loaded at the time" in shown
    assert "all does not fire, but delivery 2 is pending" in shown
    (tmp_path / "hooks.toml").write_text("")
    assert run("ORDER-7").stdout == "task.succeeded of task 01a1fc0a  ORDER-7\nNo hooks.\n"


def test_erased_media_are_mentioned(store: Store) -> None:
    fill(store)
    assert "not on record" not in run("ORDER-7").stdout
    store.repair.drop("all", NOW)
    list(prune(store, NOW + 10**10, dead_too=True))
    assert "its media are not on record: `prune` has erased them" in run("ORDER-7").stdout


def test_secrets_and_control_characters_are_not_shown(store: Store, tmp_path: Path) -> None:
    task = replace(TASK, metadata={"note": f"{WEBHOOK_SECRET} \x1b[2J", "long": "x" * 3000})
    hook = '[[hook]]\nname = "a"\ntype = "webhook"\nurl = "https://a.example"\n'
    where = 'where = { task.metadata = { note = "*", long = "y" } }\n'
    secret = f'secrets = ["{WEBHOOK_SECRET}"]\n'
    (tmp_path / "hooks.toml").write_text(hook + secret + where)
    fill(store, task)
    for arguments in (["ORDER-7"], ["ORDER-7", "--json"]):
        shown = run(*arguments).stdout
        assert "where.task.metadata.note" in shown
        assert WEBHOOK_SECRET not in shown
        assert "\x1b" not in shown
    assert max(map(len, run("ORDER-7").stdout.splitlines())) < 300


@pytest.mark.usefixtures("store")
def test_a_filter_is_listed() -> None:
    listed = CliRunner().invoke(main, ["hooks", "list"]).stdout
    assert "kling ORDER-* task.cost = { min = 5 }" in listed
    (shop, every, _) = json.loads(CliRunner().invoke(main, ["hooks", "list", "--json"]).stdout)
    assert (shop["where"], every["where"]) == ({"task.cost": {"min": 5}}, {})


def test_the_example_of_the_docs_is_the_output(store: Store, tmp_path: Path) -> None:
    section = (ROOT / "docs" / "hooks.md").read_text().partition("\n## Filters\n")[2]
    page = blocks(ROOT / "docs" / "hooks.md")
    (example,) = (one for one in page if one.language == "toml" and "[hook.where]" in one.text)
    assert example.text in section
    ((command, shown),) = (
        pair
        for one in page
        if one.language == "console"
        for pair in one.commands()
        if "explain" in pair[0]
    )
    (tmp_path / "hooks.toml").write_text(example.text)
    fill(store)
    done = CliRunner().invoke(main, command.removeprefix("receiver ").split())
    printed = re.sub("01a1fc0a", "01a1fc…", done.stdout)
    assert [line for line in printed.splitlines() if line] == [line for line in shown if line]


CHAIN = """
[[hook]]
name = "check"
type = "command"
command = ["true"]

[[hook]]
name = "shop"
type = "command"
command = ["true"]
where = { outputs.check.score = { min = 0.9 } }
"""


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (None, "shop is skipped unless delivery 2 gets the output it waits for"),
        (0.5, "shop is skipped unless delivery 2 gets the output it waits for"),
        (0.97, "shop fires; delivery 2 is pending"),
    ],
)
def test_a_filter_for_the_output_of_a_hook_is_explained(
    store: Store, tmp_path: Path, score: float | None, verdict: str
) -> None:
    (tmp_path / "hooks.toml").write_text(CHAIN)
    fill(store, TASK, "succeed")
    if score is not None:
        (check,) = store.outbox.claim("w", NOW * 2, NOW * 2 + 9, 9)
        attempt = Attempt(1, NOW, NOW, "delivered", "ok")
        store.outbox.settle(check, attempt, State.DELIVERED, None, output={"score": score})
    assert verdict in run("ORDER-7").stdout
    shop = json.loads(run("ORDER-7", "--json").stdout)["hooks"][1]
    assert shop["fires"] is (score == 0.97)
    assert shop["checks"][-1]["value"] == score


def test_a_skipped_delivery_is_explained(store: Store, tmp_path: Path) -> None:
    (tmp_path / "hooks.toml").write_text(CHAIN)
    fill(store, TASK, "succeed")
    for _ in range(2):
        (delivery,) = store.outbox.claim("w", NOW * 2, NOW * 2 + 9, 9)
        attempt = Attempt(1, NOW, NOW, "delivered", "ok")
        store.outbox.settle(delivery, attempt, State.DELIVERED, None)
    assert "shop is skipped; delivery 2 ended without a call" in run("ORDER-7").stdout
