"""`submitter costs`: its output for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver.clock import now_ms
from receiver.ingest import Ingest
from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter.cli import main
from tests.support.samples import body, callback

DAY = 86_400_000
NOW = now_ms()
HEADER = "{}\tprovider\tunit\ttasks\tcost\n"


@pytest.fixture(autouse=True)
def environment(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.delenv("HOOKS_FILE", raising=False)


def run(*words: str) -> Result:
    result = CliRunner().invoke(main, ["costs", *words])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


def end(store: Store, task: str, cost: str, account: str = "default", days: int = 0) -> None:
    at = NOW - days * DAY
    store.inbox.create_task(
        Task(task, "kling", Status.CREATED, at, at, account, reference="ORDER\x1b[2J")
    )
    came = callback(body(task_id=f"at-{task}", final_unit_deduction=cost), task, received_at=at)
    Ingest(store).accept(came)


def test_there_is_a_line_for_each_account(store: Store) -> None:
    end(store, "a", "0.1")
    end(store, "b", "0.2")
    end(store, "c", "1", "shop2")
    assert (
        run("--by", "account").stdout
        == HEADER.format("account") + "default\tkling\tunits\t2\t0.3\nshop2\tkling\tunits\t1\t1\n"
    )
    assert json.loads(run("--by", "account", "--account", "shop2", "--json").stdout) == {
        "by": "account",
        "costs": [
            {"account": "shop2", "provider": "kling", "unit": "units", "tasks": 1, "cost": "1"}
        ],
        "not_numbers": 0,
    }


def test_costs_can_be_limited_to_a_period(store: Store) -> None:
    end(store, "old", "5", days=40)
    end(store, "new", "1")

    def total(*words: str) -> list[str]:
        return [line["cost"] for line in json.loads(run("--json", *words).stdout)["costs"]]

    assert total() == ["5", "1"]
    assert total("--since", "30d") == ["1"]
    assert total("--until", "30d") == ["5"]


def test_a_cost_that_is_not_a_number_is_reported(store: Store) -> None:
    end(store, "a", "free of charge")
    result = run()
    assert (result.exit_code, result.stdout) == (0, HEADER.format("month"))
    assert "1 task(s) are omitted" in result.stderr
    assert json.loads(run("--json").stdout)["not_numbers"] == 1


def test_a_reference_cannot_control_the_terminal(store: Store) -> None:
    end(store, "a", "1")
    result = run("--by", "reference")
    assert "\x1b" not in result.stdout
    assert result.stdout.startswith(HEADER.format("reference") + "ORDER [2J\tkling")


@pytest.mark.parametrize("words", [("--by", "colour"), ("--since", "soon"), ("--provider", "x")])
def test_usage_errors(store: Store, words: tuple[str, str]) -> None:
    store.check_schema()
    result = run(*words)
    assert result.exit_code == 2
    assert words[0] in result.stderr


def test_a_missing_database_is_a_one_line_error(database: Path) -> None:
    result = run()
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "run: receiver migrate" in result.stderr
    assert not database.exists()
