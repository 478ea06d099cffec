"""A batch of orders with a provider that fails in every realistic way."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter.batch.shared_backoff import SharedBackoff
from submitter.cli import main
from tests.support import processes
from tests.support.forked_children import PopenOfServer
from tests.support.patience import PATIENCE, wait_until
from tests.support.scripted_provider import TOKEN, Asked, Reply, Scripted

HEADER = "reference,human,cloth,cloth2,model,account,provider\n"
CREATED = {"status": "pending", "task_id": "task-1", "model_id": "m"}
Run = Callable[..., Result]


@pytest.fixture
def environment(server: Scripted, database: Path, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "hooks.toml").touch()
    return {
        "DATABASE_URL": f"sqlite:///{database}",
        "CALLBACK_SECRETS": "a-callback-secret",
        "HOOKS_FILE": str(tmp_path / "hooks.toml"),
        "KLING_API_KEY": TOKEN,
        "KLING_SHOP2_API_KEY": f"{TOKEN}-of-shop2",
        "KLING_BASE_URL": server.url,
        "MODELLIX_API_KEY": TOKEN,
        "MODELLIX_BASE_URL": server.url,
    }


@pytest.fixture
def orders(tmp_path: Path, picture: Path) -> Path:
    """A folder of orders with a picture; commands run in another directory."""
    folder = tmp_path / "orders"
    folder.mkdir()
    picture.rename(folder / "me.png")
    return folder / "orders.csv"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries, unless an account states its own."""
    monkeypatch.setattr(
        "submitter.batch.run.SharedBackoff", partial(SharedBackoff, delays=(0.02, 0.04))
    )


@pytest.fixture
def run(environment: dict[str, str], orders: Path, store: Store) -> Run:
    store.check_schema()  # already migrated

    def run(text: str | bytes, *words: str, **changed: str | None) -> Result:
        orders.write_bytes(text if isinstance(text, bytes) else text.encode())
        names = ["batch", str(orders), *words]
        result = CliRunner().invoke(main, names, env={**environment, **changed})
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert TOKEN not in result.output
        return result

    return run


def sheet(*rows: str) -> str:
    return HEADER + "\n".join(rows) + "\n"


def many(number: int) -> str:
    return sheet(*(f"ORDER-{n},me.png,me.png,,,," for n in range(number)))


def outcomes(result: Result) -> list[tuple[int, str]]:
    return [(row["line"], row["outcome"]) for row in json.loads(result.stdout)["rows"]]


def numbered(server: Scripted) -> Reply:
    """Respond to each create with a different id."""

    def document(asked: Asked) -> Any:
        own_id = asked.json["external_task_id"]
        data = {"task_id": f"8{own_id[:20]}", "task_status": "submitted"}
        known = {"task_info": {"external_task_id": own_id}}
        return {"code": 0, "message": "SUCCEED", "request_id": "r", "data": data | known}

    return server.say(document)


def references(store: Store, **wanted: Any) -> Counter[str | None]:
    return Counter(task.reference for task in store.lists.tasks(limit=1000, **wanted))


def test_every_row_is_submitted_once_and_a_second_run_costs_nothing(
    run: Run, server: Scripted, store: Store
) -> None:
    server.will(numbered(server))
    first = run(many(12), "--json", "--concurrency", "4")
    assert (first.exit_code, len(server.asked)) == (0, 12)
    assert references(store, status=Status.SUBMITTED) == {f"ORDER-{n}": 1 for n in range(12)}
    assert outcomes(first) == [(n + 2, "submitted") for n in range(12)]
    again = run(many(12), "--json")
    assert (again.exit_code, len(server.asked)) == (0, 12)
    assert {outcome for _, outcome in outcomes(again)} == {"already submitted"}
    assert json.loads(again.stdout)["summary"]["already submitted"] == 12


def test_an_export_of_a_spreadsheet_is_accepted_unchanged(
    run: Run, server: Scripted, store: Store, orders: Path
) -> None:
    server.will(numbered(server))
    (orders.parent / "me.png").rename(orders.parent / "größe.png")
    text = 'sep=;\r\nReference;Human;Cloth;\r\n="0042";größe.png;größe.png;\r\n;;;\r\n'
    done = run(text.encode("cp1252"), "--json")
    assert (done.exit_code, outcomes(done)) == (0, [(3, "submitted")])
    assert references(store) == {"0042": 1}
    assert "was read as Windows-1252" in done.stderr
    again = run(text.encode("utf-16"), "--json", "--encoding", "utf-16")
    assert outcomes(again) == [(3, "already submitted")]
    assert "was read as" not in again.stderr


def test_an_unknown_encoding_is_refused(run: Run, server: Scripted) -> None:
    done = run(many(1), "--encoding", "base64")
    assert (done.exit_code, server.asked) == (2, [])
    assert "is not a text encoding" in done.output


def test_paths_are_relative_to_the_file(run: Run, server: Scripted, orders: Path) -> None:
    server.will(numbered(server))
    assert run(sheet("A,me.png,https://x.example/a.png,,,,")).exit_code == 0
    sent = server.asked[0].json
    assert base64.b64decode(sent["human_image"]) == (orders.parent / "me.png").read_bytes()
    assert sent["cloth_image"] == "https://x.example/a.png"


def test_two_garments_of_a_row_are_merged(run: Run, server: Scripted) -> None:
    server.will(numbered(server))
    row = "A,me.png,upper:me.png;lower:me.png,,kolors-virtual-try-on-v1-5,,"
    assert run(sheet(row)).exit_code == 0
    sent = Image.open(io.BytesIO(base64.b64decode(server.asked[0].json["cloth_image"])))
    assert sent.size == (320, 640)
    assert server.asked[0].json["model_name"] == "kolors-virtual-try-on-v1-5"


def test_bad_rows_are_listed_with_their_lines_and_the_others_are_submitted(
    run: Run, server: Scripted, store: Store
) -> None:
    server.will(numbered(server))
    result = run(
        sheet(
            "A,me.png,me.png,,,,",
            ",me.png,me.png,,,,",
            "C,missing.png,me.png,,,,",
            "D,me.png,upper:me.png,upper:me.png,kolors-virtual-try-on-v1-5,,",
            "E,me.png,me.png,,,Shop!,",
            "F,me.png,me.png,,,unheard_of,",
            "G,me.png,me.png,,,,",
            "G,me.png,me.png,,,,",
        )
    )
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "2 submitted, 6 bad"
    assert [line.split(":")[0] for line in lines[1:]] == [
        "line 3", "line 4 C", "line 5 D", "line 6 E", "line 7 F", "line 9 G",
    ]  # fmt: skip
    for words in ("missing.png does not exist", "KLING_UNHEARD_OF_API_KEY: not set"):
        assert words in result.stdout
    assert references(store) == {"A": 1, "G": 1}


def test_progress_is_one_line_per_row_on_stderr(run: Run, server: Scripted) -> None:
    server.will(numbered(server))
    result = run(many(3))
    assert sorted(line.split(": task")[0] for line in result.stderr.splitlines()) == [
        f"line {n + 2} ORDER-{n}: submitted" for n in range(3)
    ]


def test_a_row_that_is_bad_is_listed_once(run: Run, server: Scripted) -> None:
    server.will(numbered(server))
    result = run(sheet("A,me.png,missing.png,,,,", "B,me.png,me.png,,,,", "C,,me.png,,,,"))
    lines = result.output.splitlines()  # standard output and standard error
    for reference in "ABC":
        assert len([line for line in lines if f" {reference}: " in line]) == 1, lines


def test_a_refused_row_is_reported_and_retried_by_a_second_run(
    run: Run, server: Scripted, store: Store
) -> None:
    server.will(server.payload("error-1201.json", 400), numbered(server))
    first = run(many(3), "--json", "--concurrency", "1")
    assert first.exit_code == 1
    assert [outcome for _, outcome in outcomes(first)] == ["refused", "submitted", "submitted"]
    again = run(many(3), "--json")
    assert again.exit_code == 0
    assert outcomes(again)[0] == (2, "submitted")
    assert references(store) == {"ORDER-0": 2, "ORDER-1": 1, "ORDER-2": 1}
    assert len(server.asked) == 4


def test_an_unknown_outcome_is_reported_and_never_sent_again(
    run: Run, server: Scripted, store: Store
) -> None:
    unknown = server.say({"code": 1203, "message": "none", "request_id": "r"}, 404)
    server.will(server.hang_up, unknown, numbered(server))
    first = run(many(2), "--json", "--concurrency", "1")
    assert first.exit_code == 1
    assert [outcome for _, outcome in outcomes(first)] == ["outcome unknown", "submitted"]
    again = run(many(2), "--json")
    assert [outcome for _, outcome in outcomes(again)] == ["outcome unknown", "already submitted"]
    assert "submitter status" in json.loads(again.stdout)["rows"][0]["problem"]
    assert len([asked for asked in server.asked if asked.method == "POST"]) == 2
    assert references(store) == {"ORDER-0": 1, "ORDER-1": 1}


def test_a_failed_task_that_was_paid_for_is_not_submitted_again(
    run: Run, server: Scripted, store: Store
) -> None:
    server.will(server.task("failed", task_status_msg="refused: no human in the picture"))
    run(many(1))
    assert store.lists.tasks()[0].status is Status.FAILED
    again = run(many(1), "--json")
    assert outcomes(again) == [(2, "already submitted")]
    assert len(server.asked) == 1


@pytest.mark.usefixtures("quick")
def test_a_batch_waits_for_a_full_account_and_no_row_fails(
    run: Run, server: Scripted, store: Store
) -> None:
    busy = server.payload("error-1303.json", 429)
    server.will(busy, busy, busy, numbered(server))
    result = run(many(6), "--json", "--concurrency", "3")
    assert result.exit_code == 0
    assert {outcome for _, outcome in outcomes(result)} == {"submitted"}
    assert references(store) == {f"ORDER-{n}": 1 for n in range(6)}
    assert store.lists.tasks(status=Status.FAILED) == []


@pytest.mark.usefixtures("quick")
def test_a_full_account_does_not_slow_down_another(
    run: Run, server: Scripted, store: Store
) -> None:
    served: list[str] = []  # the end of the key of each create that was accepted
    told_later = threading.Event()

    def reply(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        key = asked.headers["Authorization"][-5:]
        if key == "shop2":  # its requests succeed only while the other account is full
            assert told_later.wait(PATIENCE)
        if key == "shop2" or served.count("shop2") == 3:
            served.append(key)
            numbered(server)(handler, asked)
        else:
            busy = {"code": 1303, "message": "busy", "request_id": "r"}
            server.say(busy, 429)(handler, asked)
            told_later.set()

    server.will(reply)
    rows = [f"A{n},me.png,me.png,,,," for n in range(3)]
    rows += [f"B{n},me.png,me.png,,,shop2," for n in range(3)]
    assert run(sheet(*rows), "--concurrency", "2").exit_code == 0
    assert served == ["shop2"] * 3 + [TOKEN[-5:]] * 3
    assert Counter(task.account for task in store.lists.tasks()) == {"default": 3, "shop2": 3}


@pytest.mark.parametrize("code", [1000, 1102])
def test_an_account_that_is_refused_is_closed_and_no_more_rows_are_recorded(
    run: Run, server: Scripted, store: Store, code: int
) -> None:
    server.will(server.say({"code": code, "message": "no", "request_id": "r"}, 401))
    result = run(many(20), "--json", "--concurrency", "2")
    assert result.exit_code == 1
    counted = Counter(outcome for _, outcome in outcomes(result))
    assert counted["refused"] <= 2
    assert counted["not sent"] >= 18
    assert len(store.lists.tasks()) == len(server.asked) <= 2
    server.will(numbered(server))
    assert run(many(20)).exit_code == 0


def test_a_failing_provider_gets_three_creates_and_no_more(
    run: Run, server: Scripted, store: Store
) -> None:
    server.will(server.say({"code": 500, "message": "Internal: sorry"}, 500))
    result = run(many(20), "--provider", "modellix", "--json", "--concurrency", "1")
    counted = Counter(outcome for _, outcome in outcomes(result))
    assert counted == {"outcome unknown": 3, "not sent": 17}
    assert len(server.asked) == 3
    assert all(task.given_up_at for task in store.lists.tasks())


def test_modellix_creates_that_were_refused_temporarily_are_sent_again_in_a_batch(
    run: Run, server: Scripted
) -> None:
    document = {"code": 0, "message": "success", "data": CREATED}
    later = server.say({"code": 429, "message": "Too many"}, 429, Retry_After="1")
    server.will(later, server.say(document))
    result = run(many(1), "--provider", "modellix", "--json")
    assert outcomes(result) == [(2, "submitted")]
    assert len(server.asked) == 2


def test_two_concurrent_processes_pay_for_each_row_once(
    server: Scripted, store: Store, environment: dict[str, str], orders: Path
) -> None:
    """The runs are two processes with two files of the same rows."""
    server.will(numbered(server))
    copy = orders.with_name("copy.csv")
    for path in (orders, copy):
        path.write_text(many(30))

    def start(path: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "submitter", "batch", str(path)]
        return PopenOfServer(
            words,
            env=processes.forkable({**os.environ, **environment}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    with start(orders) as one, start(copy) as other:
        assert {one.wait(PATIENCE), other.wait(PATIENCE)} <= {
            0,
            1,
        }  # 1: it found a row that was in progress
    assert len(server.asked) == 30
    assert references(store) == {f"ORDER-{n}": 1 for n in range(30)}


def test_ctrl_c_waits_for_running_creates_and_reports_what_is_left(
    server: Scripted, store: Store, environment: dict[str, str], orders: Path
) -> None:
    release = threading.Event()

    def slowly(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        release.wait(PATIENCE)
        numbered(server)(handler, asked)

    server.will(slowly)
    orders.write_text(many(9))
    words = [sys.executable, "-m", "submitter", "batch", str(orders), "--concurrency", "2"]
    with PopenOfServer(
        words,
        env=processes.forkable({**os.environ, **environment}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: len(server.asked) == 2 or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("interrupted: waiting for the rows in progress")
        release.set()
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert out.splitlines()[0] == "2 submitted, 7 not sent"
    assert "interrupted" in out
    assert "Traceback" not in err
    assert references(store, status=Status.SUBMITTED).total() == len(store.lists.tasks()) == 2


def test_after_a_kill_rows_in_progress_are_reported_and_not_sent_again(
    run: Run, server: Scripted, store: Store
) -> None:
    """It is unknown whether a row that was on record when the process died was accepted."""
    store.inbox.create_task(Task("t-1", "kling", Status.CREATED, 1, 1, reference="ORDER-0"))
    server.will(numbered(server))
    result = run(many(2), "--json")
    assert result.exit_code == 1
    assert [outcome for _, outcome in outcomes(result)] == ["outcome unknown", "submitted"]
    assert len(server.asked) == 1


def test_settings_errors_are_reported_as_everywhere(
    run: Run, server: Scripted, store: Store
) -> None:
    result = run(many(2), KLING_API_KEY=None, KLING_ACCESS_KEY=None, KLING_SECRET_KEY=None)
    assert (result.exit_code, "KLING_API_KEY: not set" in result.stderr) == (2, True)
    assert run("reference,human\n").stderr.startswith("submitter: FILE: its first line must name")
    assert run(HEADER).stdout == "no rows\n"
    assert (server.asked, store.lists.tasks()) == ([], [])


CELL = st.one_of(
    st.text(max_size=5),
    st.sampled_from(
        ["me.png", "upper:me.png", "lower:me.png", "missing.png", "https://x.example/a.png", "ok"]
    ),
    st.sampled_from(
        ["kling", "modellix", "appypie", "default", "shop2", "kolors-virtual-try-on-v1-5"]
    ),
)
ROWS = st.lists(st.lists(CELL, min_size=2, max_size=8).map(",".join), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=ROWS)
def test_no_file_causes_a_traceback(run: Run, server: Scripted, rows: list[str]) -> None:
    server.will(server.payload("error-1201.json", 400))
    text = (HEADER + "\n".join(rows)).encode("utf-8", "replace").decode()
    assert run(text).exit_code in (0, 1, 2)
