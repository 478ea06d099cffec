"""Each scenario over HTTP, as seen by a receiver, a client and a browser."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from sandbox.callback_sender import Persistence
from sandbox.scenarios.scenario import UnknownScenarioError
from sandbox.server import Behaviour, Sandbox
from tests.support.http_server import LoopbackServer
from tests.support.patience import PATIENCE
from tests.support.sandbox_client import Kling, Moves, wait_for

SECRET = "whsec_dGhlIGtleSBvZiB0aGUgc2FuZGJveC4u"
PATH = "/callbacks/kling/one/token"
MOVES = ["submitted", "processing", "succeed"]
PACE = 0.15  # seconds


@dataclass
class Heard:
    """The part of a request that was received."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def is_whole(self) -> bool:
        return len(self.body) == int(self.headers["Content-Length"])

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def is_signed(self) -> bool:
        text = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}."
        digest = hmac.digest(b"the key of the sandbox..", text.encode() + self.body, "sha256")
        return self.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


@dataclass
class Receiver:
    """A strict receiver: it responds with 200 only to a complete JSON body at its own path."""

    url: str
    heard: list[Heard] = field(default_factory=list)
    together: int = 0
    waits_for: int = 1  # responds only when this many requests are waiting
    lock: threading.Condition = field(default_factory=threading.Condition)

    @property
    def statuses(self) -> list[str]:
        return [one.document["task_status"] for one in self.heard]


class Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        mine = self.receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        one = Heard(self.path, dict(self.headers), body)
        with mine.lock:
            mine.heard.append(one)
            mine.together += 1
            mine.lock.notify_all()
            mine.lock.wait_for(lambda: mine.together % mine.waits_for == 0, PATIENCE)
        with suppress(OSError):
            self.send_response(200 if self._is_fine(one) else 400)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
        self.close_connection = True

    def _is_fine(self, one: Heard) -> bool:
        with suppress(ValueError):
            return one.path == PATH and one.is_whole and bool(one.document)
        return False

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Log nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = LoopbackServer(("127.0.0.1", 0), Handler)
    made = Receiver(f"http://127.0.0.1:{server.server_port}{PATH}")
    server.RequestHandlerClass = type("Mine", (Handler,), {"receiver": made})
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    persistence = Persistence(retries=3, retry_after=0.05, timeout=PATIENCE)
    behaviour = Behaviour(PACE, webhook_secret=SECRET, persistence=persistence)
    with Sandbox(behaviour=behaviour) as made:
        yield made


def play(sandbox: Sandbox, kling: Kling, receiver: Receiver, scenario: str) -> str:
    """Play one task to its last callback; return its id."""
    sandbox.next("kling", scenario)
    task_id = str(kling.created(callback_url=receiver.url)["task_id"])
    wait_for(lambda: sandbox.is_quiet(task_id))
    return task_id


def test_burst_sends_all_copies_at_once(sandbox: Sandbox, kling: Kling, receiver: Receiver) -> None:
    receiver.waits_for = 20  # all copies have to arrive before one gets a response
    task_id = play(sandbox, kling, receiver, "burst")
    assert {status: receiver.statuses.count(status) for status in MOVES} == dict.fromkeys(MOVES, 20)
    assert len(sandbox.ledger.acknowledged(task_id)) == 60


def test_reordered_sends_the_final_status_first(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    play(sandbox, kling, receiver, "reordered")
    assert receiver.statuses == ["succeed", "processing", "submitted"]


def test_processing_is_sent_after_the_final_status(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    play(sandbox, kling, receiver, "late-processing")
    assert receiver.statuses == [*MOVES, "processing"]


def test_the_final_callback_is_dropped(sandbox: Sandbox, kling: Kling, receiver: Receiver) -> None:
    task_id = play(sandbox, kling, receiver, "dropped")
    assert receiver.statuses == MOVES[:2]
    assert kling.query(task_id)["task_status"] == "succeed"


def test_the_final_callback_is_delayed(
    moves: Moves, sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    moves.release()
    play(sandbox, kling, receiver, "delayed")
    assert receiver.statuses == MOVES
    assert moves.waits == [PACE, PACE, 5 * PACE]  # two of the task, and one of its final callback


def test_a_truncated_body_is_followed_by_the_complete_one(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    task_id = play(sandbox, kling, receiver, "truncated")
    halves, wholes = receiver.heard[::2], receiver.heard[1::2]
    assert [one.document["task_status"] for one in wholes] == MOVES
    for half, whole in zip(halves, wholes, strict=True):
        assert half.is_whole  # by its Content-Length
        assert whole.body.startswith(half.body)
        assert half.body != whole.body
        assert half.is_signed
    entries = sandbox.ledger.entries(task_id)
    assert [entry.acknowledged for entry in entries] == [False, True] * 3


def test_the_connection_is_closed_within_the_body(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    task_id = play(sandbox, kling, receiver, "broken-off")
    assert sorted(one.is_whole for one in receiver.heard) == [False] * 3 + [True] * 3
    entries = sandbox.ledger.entries(task_id)
    assert [entry.acknowledged for entry in entries] == [False, True] * 3
    assert entries[0].error == "closed the connection in the middle of the body"


def test_an_impatient_provider_disconnects_and_retries(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    task_id = play(sandbox, kling, receiver, "impatient")
    assert sorted(receiver.statuses) == sorted(MOVES * 2)
    assert all(one.is_whole for one in receiver.heard)
    entries = sandbox.ledger.entries(task_id)
    # The receiver accepted it and responded with 200, but the provider never saw the response.
    assert [entry.acknowledged for entry in entries] == [False, True] * 3


def test_a_success_is_followed_by_a_failure(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    task_id = play(sandbox, kling, receiver, "succeed-then-failed")
    assert receiver.statuses == [*MOVES, "failed"]
    assert receiver.heard[-1].document["task_status_msg"]
    assert kling.query(task_id)["task_status"] == "succeed"


def test_a_success_without_media(sandbox: Sandbox, kling: Kling, receiver: Receiver) -> None:
    task_id = play(sandbox, kling, receiver, "no-media")
    assert receiver.statuses == MOVES
    assert receiver.heard[-1].document["task_result"]["images"] == []
    assert kling.query(task_id)["task_result"]["images"]


def test_a_success_with_a_lost_output(
    sandbox: Sandbox, kling: Kling, receiver: Receiver, session: requests.Session
) -> None:
    task_id = play(sandbox, kling, receiver, "lost-output")
    first, lost = receiver.heard[-1].document["task_result"]["images"]
    assert lost is None
    both = kling.query(task_id)["task_result"]["images"]
    assert [image["index"] for image in both] == [0, 1]
    assert both[0] == first
    assert len({image["url"] for image in both}) == 2
    for image in both:
        assert session.get(image["url"], timeout=PATIENCE).content.startswith(b"\x89PNG")


def test_a_message_of_another_provider_is_sent_before_the_final_status(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    play(sandbox, kling, receiver, "foreign-message")
    foreign = [one.document for one in receiver.heard if "task_status" not in one.document]
    assert [(one["status"], one["model"]) for one in foreign] == [("failed", "cuuupid/idm-vton")]
    whole = [one.document for one in receiver.heard if "task_status" in one.document]
    assert [one["task_status"] for one in whole] == MOVES


def test_fields_have_unexpected_types(sandbox: Sandbox, kling: Kling, receiver: Receiver) -> None:
    play(sandbox, kling, receiver, "odd-fields")
    assert receiver.statuses == MOVES
    assert [one.document["task_result"] for one in receiver.heard[:2]] == [[], []]
    end = receiver.heard[-1]
    assert end.document["task_result"]["images"][0]["url"].startswith("http://")
    assert end.document["task_result"]["videos"] == {}
    assert (end.document["updated_at"], end.document["final_unit_deduction"]) == (None, 1)
    assert rb"\ud83d cut off" in end.body
    assert b"Infinity" in end.body


def test_two_tasks_use_the_same_callback_url(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    task_id = play(sandbox, kling, receiver, "shared-callback-url")
    other = str(int(task_id) + 1)
    said = [(one.document["task_id"], one.document["task_status"]) for one in receiver.heard]
    assert said == [
        (task_id, "submitted"),
        (other, "submitted"),
        (task_id, "processing"),
        (other, "processing"),
        (other, "succeed"),
        (task_id, "succeed"),
    ]
    urls = [one.document["task_result"]["images"][0]["url"] for one in receiver.heard[-2:]]
    assert [f"/{name}.png" in url for name, url in zip((other, task_id), urls, strict=True)] == [
        True,
        True,
    ]
    assert all(requests.get(url, timeout=PATIENCE).status_code == 200 for url in urls)


def test_an_unknown_status_is_sent_before_the_final_one(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    play(sandbox, kling, receiver, "unknown-status")
    assert receiver.statuses == [*MOVES[:2], "upscaling", "succeed"]


def test_a_forged_token_is_sent_before_the_correct_one(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    task_id = play(sandbox, kling, receiver, "forged-token")
    paths = [one.path for one in receiver.heard]
    assert paths[1::2] == [PATH] * 3
    assert all(path != PATH and len(path) == len(PATH) for path in paths[::2])
    assert len(sandbox.ledger.acknowledged(task_id)) == 3


def test_a_wrong_signature_is_sent_before_the_correct_one(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    play(sandbox, kling, receiver, "wrong-signature")
    assert [one.is_signed for one in receiver.heard] == [False, True] * 3


def test_a_stale_signature_is_sent_before_a_fresh_one(
    sandbox: Sandbox, kling: Kling, receiver: Receiver
) -> None:
    play(sandbox, kling, receiver, "stale-timestamp")
    assert all(one.is_signed for one in receiver.heard)
    ages = [time.time() - int(one.headers["webhook-timestamp"]) for one in receiver.heard]
    assert [age > 3000 for age in ages] == [True, False] * 3


# -- results


def result_url(sandbox: Sandbox, kling: Kling, receiver: Receiver, scenario: str) -> str:
    play(sandbox, kling, receiver, scenario)
    url: str = receiver.heard[-1].document["task_result"]["images"][0]["url"]
    return url


def test_an_expired_result_gets_a_fresh_url_by_a_query(
    sandbox: Sandbox, kling: Kling, receiver: Receiver, session: requests.Session
) -> None:
    url = result_url(sandbox, kling, receiver, "expired-result")
    assert session.get(url, timeout=PATIENCE).status_code == 403
    task_id = receiver.heard[-1].document["task_id"]
    fresh = kling.query(task_id)["task_result"]["images"][0]["url"]
    answer = session.get(fresh, timeout=PATIENCE)
    assert (answer.status_code, answer.content[:4]) == (200, b"\x89PNG")


@pytest.mark.parametrize(
    ("scenario", "status"),
    [("expired-result-400", 400), ("expired-result-401", 401), ("gone-result", 410)],
)
def test_a_refused_result_gets_a_fresh_url_by_a_query(
    sandbox: Sandbox,
    kling: Kling,
    receiver: Receiver,
    session: requests.Session,
    scenario: str,
    status: int,
) -> None:
    url = result_url(sandbox, kling, receiver, scenario)
    refused = session.get(url, timeout=PATIENCE)
    assert (refused.status_code, refused.content[:5]) == (status, b"<?xml")
    task_id = receiver.heard[-1].document["task_id"]
    fresh = kling.query(task_id)["task_result"]["images"][0]["url"]
    assert session.get(fresh, timeout=PATIENCE).content.startswith(b"\x89PNG")


def test_a_result_behind_a_login_redirects_to_a_page(
    sandbox: Sandbox, kling: Kling, receiver: Receiver, session: requests.Session
) -> None:
    url = result_url(sandbox, kling, receiver, "sign-in-result")
    answer = session.get(url, timeout=PATIENCE)
    assert [one.status_code for one in answer.history] == [302]
    assert answer.content.startswith(b"<!doctype html>")


def test_the_second_of_two_outputs_is_missing_until_a_query(
    sandbox: Sandbox, kling: Kling, receiver: Receiver, session: requests.Session
) -> None:
    result_url(sandbox, kling, receiver, "second-missing")
    document = receiver.heard[-1].document
    asked = kling.query(document["task_id"])["task_result"]["images"]
    statuses = [
        [session.get(image["url"], timeout=PATIENCE).status_code for image in images]
        for images in (document["task_result"]["images"], asked)
    ]
    assert statuses == [[200, 403], [200, 200]]


def test_a_partial_result_says_so(
    sandbox: Sandbox, kling: Kling, receiver: Receiver, session: requests.Session
) -> None:
    whole = session.get(result_url(sandbox, kling, receiver, "range-result"), timeout=PATIENCE)
    half = session.get(result_url(sandbox, kling, receiver, "half-result"), timeout=PATIENCE)
    size = len(whole.content)
    assert (whole.status_code, half.status_code) == (206, 206)
    assert whole.headers["Content-Range"] == f"bytes 0-{size - 1}/{size}"
    assert half.headers["Content-Range"] == f"bytes 0-{size // 2 - 1}/{size}"
    assert half.content == whole.content[: size // 2]


def test_a_result_is_truncated(
    sandbox: Sandbox, kling: Kling, receiver: Receiver, session: requests.Session
) -> None:
    url = result_url(sandbox, kling, receiver, "cut-short-result")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        session.get(url, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("scenario", "status"), [("overloaded-result", 503), ("proxied-result", 203)]
)
def test_a_result_has_another_status(
    sandbox: Sandbox,
    kling: Kling,
    receiver: Receiver,
    session: requests.Session,
    scenario: str,
    status: int,
) -> None:
    answer = session.get(result_url(sandbox, kling, receiver, scenario), timeout=PATIENCE)
    assert answer.status_code == status
    assert (answer.headers.get("Retry-After"), answer.content[:4]) == (
        ("2", b"<?xm") if status == 503 else (None, b"\x89PNG")
    )


def test_a_result_redirects_to_a_url_in_raw_utf_8(
    sandbox: Sandbox, kling: Kling, receiver: Receiver, session: requests.Session
) -> None:
    url = result_url(sandbox, kling, receiver, "raw-redirect")
    moved = session.get(url, timeout=PATIENCE, allow_redirects=False)
    location = moved.headers["Location"].encode("latin-1").decode()
    assert location.endswith("  ")
    path = location.strip(" ")
    assert "試着の結果.png?Expires=" in path
    assert session.get(f"{sandbox.url}{path}", timeout=PATIENCE).content.startswith(b"\x89PNG")


def test_a_missing_result_is_404(
    sandbox: Sandbox, kling: Kling, receiver: Receiver, session: requests.Session
) -> None:
    url = result_url(sandbox, kling, receiver, "missing-result")
    assert session.get(url, timeout=PATIENCE).status_code == 404


def test_a_slow_result_is_sent_byte_by_byte(
    sandbox: Sandbox,
    kling: Kling,
    receiver: Receiver,
    session: requests.Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = result_url(sandbox, kling, receiver, "slow-result")
    pauses: list[float] = []
    monkeypatch.setattr("sandbox.web.result_files.time", SimpleNamespace(sleep=pauses.append))
    with session.get(url, timeout=PATIENCE, stream=True) as answer:
        pieces = answer.iter_content(1)
        assert [next(pieces) for _ in range(3)] == [b"\x89", b"P", b"N"]
    assert sum(pauses[:2]) > 0.9  # before the second and the third


def test_a_huge_result(
    sandbox: Sandbox, kling: Kling, receiver: Receiver, session: requests.Session
) -> None:
    url = result_url(sandbox, kling, receiver, "huge-result")
    size = 0
    with session.get(url, timeout=PATIENCE, stream=True) as answer:
        for piece in answer.iter_content(1 << 20):
            size += len(piece)
            if size > 50_000_000:
                break
    assert size > 50_000_000


def test_an_html_page_is_labelled_as_a_picture(
    sandbox: Sandbox, kling: Kling, receiver: Receiver, session: requests.Session
) -> None:
    answer = session.get(result_url(sandbox, kling, receiver, "not-a-picture"), timeout=PATIENCE)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.content.startswith(b"<!doctype html>")


@pytest.mark.parametrize(
    ("scenario", "start"),
    [
        ("avif-result", rb"....ftypavif"),
        ("bmp-result", rb"BM"),
        ("tiff-result", rb"II\*\0"),
        ("heic-result", rb"....ftypheic"),
        ("unknown-format", rb"\x00\x01\x02\x03"),
        ("camera-result", rb"\xff\xd8.{20,}MPF\0"),
        ("metadata-result", rb"\x89PNG.{29}....zTXt"),
        ("error-code", rb"error code: 1015\Z"),
        ("json-result", rb"\{"),
        ("svg-result", rb"<svg"),
        ("utf-16-result", rb"\xff\xfe<\0"),
        ("broken-result", rb"\x89PNG(?!.*IEND)"),
        ("short-result", rb".{3}\Z"),
    ],
)
def test_an_unusual_result_is_labelled_as_png(
    sandbox: Sandbox,
    kling: Kling,
    receiver: Receiver,
    session: requests.Session,
    scenario: str,
    start: bytes,
) -> None:
    answer = session.get(result_url(sandbox, kling, receiver, scenario), timeout=PATIENCE)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    assert re.match(start, answer.content, re.DOTALL)


# -- creates


def test_a_series_of_refusals_ends(sandbox: Sandbox, kling: Kling) -> None:
    sandbox.next("kling", "busy", 3)
    codes = [kling.create().json()["code"] for _ in range(4)]
    assert codes == [1303, 1303, 1303, 0]
    assert len(kling.call("GET", "/v1/images/kolors-virtual-try-on").json()["data"]) == 1


def test_an_error_after_accepting_hides_a_running_task(sandbox: Sandbox, kling: Kling) -> None:
    sandbox.next("kling", "error-after-accepting")
    answer = kling.create(external_task_id="ORDER-1")
    assert answer.status_code == 502
    assert kling.ended("ORDER-1")["task_status"] == "succeed"


def test_a_lost_response_hides_a_running_task(sandbox: Sandbox, kling: Kling) -> None:
    sandbox.next("kling", "answer-lost")
    with pytest.raises(requests.ConnectionError):
        kling.create(external_task_id="ORDER-1")
    assert kling.ended("ORDER-1")["task_status"] == "succeed"


# -- the scenarios of each provider


@pytest.mark.parametrize(
    ("provider", "scenario", "says"),
    [
        ("modellix", "duplicates", "modellix sends none"),
        ("appypie", "wrong-signature", "--webhook-secret"),
        ("kling", "plain-urls", "modellix only"),
        ("kling", "no-such", "the scenarios are"),
    ],
)
def test_an_impossible_scenario_is_refused(
    sandbox: Sandbox, provider: str, scenario: str, says: str
) -> None:
    with pytest.raises(UnknownScenarioError, match=says):
        sandbox.next(provider, scenario)


def test_signatures_need_a_secret() -> None:
    with Sandbox() as plain, pytest.raises(UnknownScenarioError, match="--webhook-secret"):
        plain.next("kling", "stale-timestamp")


def test_chaos_is_random_by_percentage_and_seed(session: requests.Session) -> None:
    def drawn(seed: int) -> list[str]:
        behaviour = Behaviour(5, chaos={"duplicates": 40, "busy": 30}, chaos_seed=seed)
        with Sandbox(behaviour=behaviour) as sandbox:
            kling = Kling(sandbox.url, session)
            codes = [kling.create().json()["code"] for _ in range(12)]
            played = [task["scenario"] for task in tasks(sandbox, session)]
            assert len(played) == codes.count(0)
            return [str(code) for code in codes] + played

    first = drawn(0)
    assert first == drawn(0)
    assert {"1303", "duplicates", "succeed"} <= set(first)


def tasks(sandbox: Sandbox, session: requests.Session) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = session.get(
        f"{sandbox.url}/_sandbox/tasks", timeout=PATIENCE
    ).json()
    return found


def test_the_ledger_contains_each_body(sandbox: Sandbox, kling: Kling, receiver: Receiver) -> None:
    task_id = play(sandbox, kling, receiver, "truncated")
    digests = [entry.body_sha256 for entry in sandbox.ledger.entries(task_id)]
    assert digests == [hashlib.sha256(one.body).hexdigest() for one in receiver.heard]
