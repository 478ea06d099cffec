"""Callbacks accepted without Flask follow the rules of the Flask view, which gets all others."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.errors import NotTheProtocol, StoreUnavailable
from receiver.ingest import Ingest
from receiver.observability import logs
from receiver.observability.metrics import MetricBuffer, MetricDefinition
from receiver.signing.callback_urls import mint
from receiver.signing.standard_webhooks import sign
from receiver.stores import group_commit
from receiver.stores.group_commit import Write
from receiver.stores.postgres.writer import BatchUndone
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Trust
from receiver.text.limits import MAX_PARSED_IN_LOOP
from receiver.web.callbacks import CallbackRequest
from receiver.web.debounce import Debouncer
from receiver.web.request_lifecycle import RequestReport
from receiver.web.server.callback_app import CallbackHandler, CallbackResponse
from tests.support.applications import MakeApp
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body

KEY, OTHER_KEY = "whsec_" + "a2V5" * 8, "whsec_" + "bm90" * 8
TOKEN = mint(SECRET, "kling", "task-1")
HEADERS = {"Host": "receiver", "Content-Type": "application/json"}
SENT = CallbackRequest("kling", "task-1", TOKEN, HEADERS)
PATH = f"/callbacks/kling/task-1/{TOKEN}"
Make = Callable[..., CallbackHandler]
Printed = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "hooks.toml").write_text("")
    url = f"sqlite:///{tmp_path / 'receiver.db'}"
    return Settings(url, (SECRET,), hooks_file=tmp_path / "hooks.toml")


@pytest.fixture
def make(settings: Settings, store: SqliteStore) -> Make:
    def made(**more: Any) -> CallbackHandler:
        chosen = replace(settings, **more)
        ingest = Ingest.into(store, chosen)
        return CallbackHandler(
            ingest, chosen, RequestReport(ingest.meter, Debouncer(lambda: None, 60))
        )

    return made


def take(
    callbacks: CallbackHandler, *requests: tuple[CallbackRequest, bytes]
) -> list[CallbackResponse | None]:
    """Submit them all at the same time."""

    async def scenario() -> list[CallbackResponse | None]:
        callbacks.serve_in(asyncio.get_running_loop())
        async with asyncio.timeout(PATIENCE):
            return list(await asyncio.gather(*(callbacks.receive(*one) for one in requests)))

    return asyncio.run(scenario())


def take_one(
    callbacks: CallbackHandler, sent: CallbackRequest = SENT, raw: bytes | None = None
) -> CallbackResponse | None:
    (answer,) = take(callbacks, (sent, body() if raw is None else raw))
    return answer


def taken(answer: CallbackResponse | None) -> CallbackResponse:
    assert answer is not None
    assert answer.status == 200
    return answer


def signed(raw: bytes | None = None, key: str = KEY) -> CallbackRequest:
    now = now_ms() // 1000
    headers = {**HEADERS, "Webhook-Id": "m", "Webhook-Timestamp": str(now)}
    headers["Webhook-Signature"] = sign(key, "m", now, body() if raw is None else raw)
    return replace(SENT, headers=headers)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Return the lines that were logged since the last call."""
    logs.configure(form="json")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    """Return the counts of all meters, without measured times."""
    found: list[tuple[str, tuple[str, ...]]] = []

    def count(_: MetricBuffer, measure: MetricDefinition, *labels: str, **__: float) -> None:
        found.append((measure.name, labels))

    def observe(_: MetricBuffer, measure: MetricDefinition, __: float, *labels: str) -> None:
        found.append((measure.name, labels))

    monkeypatch.setattr(MetricBuffer, "count", count)
    monkeypatch.setattr(MetricBuffer, "observe", observe)
    monkeypatch.setattr(MetricBuffer, "store_failed", lambda _: found.append(("store_failed", ())))
    return found


def test_what_it_takes_is_on_record_and_counted(settings: Settings, store: SqliteStore) -> None:
    handed_over, ingest = threading.Event(), Ingest.into(store, settings)
    report = RequestReport(ingest.meter, Debouncer(handed_over.set, 0.01))
    answer = taken(take_one(CallbackHandler(ingest, settings, report)))
    assert handed_over.wait(PATIENCE)
    assert ingest.meter.is_pending
    assert json.loads(answer.body) == {"outcome": Outcome.RECORDED}
    (kept,) = store.lists.callbacks()
    assert (kept.callback.body, kept.callback.trust) == (body(), Trust.TOKEN)


@pytest.mark.parametrize(
    ("raws", "outcome"),
    [
        ([body("succeed")], "recorded"),
        ([body("succeed"), body("succeed")], "duplicate"),
        ([body("succeed"), body("processing")], "stale"),
        ([body("succeed"), body("failed")], "conflict"),
    ],
)
def test_an_answer_is_that_of_the_view(
    make: Make, make_app: MakeApp, settings: Settings, raws: list[bytes], outcome: str
) -> None:
    callbacks = make()
    answers = [taken(take_one(callbacks, raw=raw)) for raw in raws]
    client = make_app(settings).test_client()
    other = PATH.replace("task-1", "task-2").replace(TOKEN, mint(SECRET, "kling", "task-2"))
    for answer, raw in zip(answers, raws, strict=True):
        by_view = client.post(other, data=raw, headers=HEADERS)
        assert (answer.status, answer.body) == (by_view.status_code, by_view.data)
        names = {name.lower() for name in by_view.headers.keys()}  # noqa: SIM118 - a multidict
        assert set(answer.headers) == names
        for name in names - {"x-request-id"}:
            assert answer.headers[name] == by_view.headers[name]
    assert json.loads(answers[-1].body) == {"outcome": outcome}


def test_what_is_counted_is_what_the_view_counts(
    make: Make, make_app: MakeApp, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_app(settings).test_client()
    measured = spied(monkeypatch)
    assert client.post(PATH, data=body("processing"), headers=HEADERS).status_code == 200
    by_view = measured.copy()
    measured.clear()
    other = replace(SENT, task_id="task-2", token=mint(SECRET, "kling", "task-2"))
    taken(take_one(make(), other, body("processing")))
    assert sorted(measured) == sorted(by_view)
    assert ("callbacks", ("kling", "processing", "recorded")) in measured
    assert ("callback_seconds", ("200",)) in measured


def test_many_at_once_are_one_transition(make: Make, store: SqliteStore) -> None:
    answers = [taken(answer) for answer in take(make(), *[(SENT, body())] * 50)]
    outcomes = sorted(json.loads(answer.body)["outcome"] for answer in answers)
    assert outcomes == ["duplicate"] * 49 + ["recorded"]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 50
    assert [stored.repeats for stored in store.queries.history("task-1").callbacks] == [49]


@pytest.mark.parametrize(
    ("sent", "raw"),
    [
        (replace(SENT, token=mint("another secret of ours", "kling", "task-1")), body()),
        (replace(SENT, task_id="task-2"), body()),
        (replace(SENT, provider="nobody"), body()),
        (replace(SENT, provider="appypie"), body()),  # the token is Kling's
        (replace(SENT, provider="modellix", token=mint(SECRET, "modellix", "task-1")), body()),
        (replace(SENT, token=TOKEN + " "), body()),  # the view normalizes paths
        (replace(SENT, headers={**HEADERS, "Content-Encoding": "gzip"}), gzip.compress(body())),
        (replace(SENT, headers={**HEADERS, "Content-Encoding": "identity"}), body()),
        (replace(SENT, headers={**HEADERS, "Content-Length": "5000"}), body()),
        (SENT, b"no JSON"),
        (SENT, b""),
        (SENT, b'{"not": "the protocol"}'),
        (
            SENT,
            body(padding="x" * MAX_PARSED_IN_LOOP),
        ),  # parsing it would block the event loop
    ],
)
def test_what_would_be_refused_is_left_alone(
    make: Make, store: SqliteStore, sent: CallbackRequest, raw: bytes
) -> None:
    assert take_one(make(), sent, raw) is None
    assert store.lists.callbacks() == []  # it is not quarantined here, because the view does that


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "multipart/form-data", "a,b;c"])
def test_the_content_type_decides_nothing(make: Make, content_type: str | None) -> None:
    headers = {"Host": "receiver"}
    if content_type is not None:
        headers["Content-Type"] = content_type
    taken(take_one(make(), replace(SENT, headers=headers)))


def test_a_long_callback_is_taken_up_to_its_limit(make: Make, store: SqliteStore) -> None:
    raw = body(padding="")
    raw = body(padding="x" * (MAX_PARSED_IN_LOOP - len(raw)))
    assert len(raw) == MAX_PARSED_IN_LOOP
    taken(take_one(make(), raw=raw))
    assert len(store.lists.callbacks()) == 1


def test_a_signature_counts_where_there_is_a_key(make: Make, store: SqliteStore) -> None:
    with_key = make(webhook_secrets={"kling": (KEY,)})
    taken(take_one(with_key, signed()))
    taken(take_one(with_key, SENT, body("failed")))  # accepted by its token
    assert [kept.callback.trust for kept in store.lists.callbacks()] == [Trust.TOKEN, Trust.SIGNED]
    assert take_one(with_key, signed(body("processing"))) is None
    assert take_one(with_key, signed(key=OTHER_KEY)) is None
    taken(take_one(make(), signed(key=OTHER_KEY)))  # without a secret, a signature is ignored


@pytest.mark.parametrize("error", [BatchUndone(), NotTheProtocol("x"), KeyError("x")])
def test_what_cannot_be_recorded_now_is_left_to_the_view(
    make: Make, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store.inbox, "submit", fails)
    assert take_one(make()) is None


def failing(store: SqliteStore, error: Exception) -> Callable[..., Write[Any, Any]]:
    """An `Ingest` whose batch fails."""

    def submit(*_: object, **__: object) -> Write[Any, Any]:
        def fails(_: object) -> None:
            raise error

        return store.database.writer.submit(fails, start=False)

    return submit


@pytest.mark.parametrize("is_prompt", [True, False], ids=["at once", "with its batch"])
def test_what_the_record_cannot_take_is_answered_as_by_the_view(
    settings: Settings,
    store: SqliteStore,
    make: Make,
    make_app: MakeApp,
    monkeypatch: pytest.MonkeyPatch,
    printed: Printed,
    is_prompt: bool,
) -> None:
    """It is not retried, because that would not help."""
    error = StoreUnavailable("the disk is full", 7)

    def fails(*_: object, **__: object) -> Any:
        raise error

    app = make_app(settings)
    measured = spied(monkeypatch)
    printed()
    monkeypatch.setattr(app.extensions["callbacks"]._ingest.store.inbox, "record", fails)  # noqa: SLF001
    by_view = app.test_client().post(PATH, data=body(), headers=HEADERS)
    by_view_lines, by_view_measured = printed(), measured.copy()
    measured.clear()

    monkeypatch.setattr(store.inbox, "submit", fails if is_prompt else failing(store, error))
    answer = take_one(make())
    assert answer is not None
    assert (answer.status, answer.body) == (by_view.status_code, by_view.data) == (503, answer.body)
    assert answer.headers["content-type"] == by_view.headers["Content-Type"]
    assert answer.headers["retry-after"] == by_view.headers["Retry-After"] == "7"
    assert answer.headers["content-length"] == str(len(answer.body))
    found = printed()
    assert [set(line) for line in found] == [set(line) for line in by_view_lines]
    for ours, theirs in zip(found, by_view_lines, strict=True):
        same = set(ours) - {"request_id", "ms", "timestamp", "logger"}
        assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert {line["request_id"] for line in found} == {answer.headers["x-request-id"]}
    assert sorted(measured) == sorted(by_view_measured)
    assert ("store_failed", ()) in measured
    assert store.lists.callbacks() == []


def test_a_commit_that_does_not_come_is_a_503(
    make: Make, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "PATIENCE", 0)
    monkeypatch.setattr(store.database.writer, "start_and_wait", lambda _: None)
    answer = take_one(make())
    assert answer is not None
    assert answer.status == 503
    assert re.fullmatch(r"[1-9]\d*", answer.headers["retry-after"])
    store.database.writer.start()
    assert store.lists.callbacks() == []  # it is not recorded later, because no client waits


@pytest.mark.parametrize(("proxies", "is_taken"), [(0, True), (1, False)])
def test_a_host_that_a_proxy_names_is_left_to_the_view(
    make: Make, proxies: int, is_taken: bool
) -> None:
    callbacks = make(trusted_proxies=proxies)
    named = {**HEADERS, "X-Forwarded-Host": "other.example"}
    answer = take_one(callbacks, replace(SENT, headers=named))
    assert (answer is not None) is is_taken
    same = {**HEADERS, "X-Forwarded-Host": "receiver", "X-Request-Id": "an-id-of-the-proxy"}
    answer = taken(take_one(callbacks, replace(SENT, headers=same)))
    assert (answer.headers["x-request-id"] == "an-id-of-the-proxy") is (proxies > 0)


@pytest.mark.parametrize("given", ["short", "x" * 65, "with space", "line\nbreak", "é" * 10])
def test_an_id_that_is_not_sane_is_replaced(make: Make, given: str) -> None:
    headers = {**HEADERS, "X-Request-Id": given}
    answer = taken(take_one(make(trusted_proxies=1), replace(SENT, headers=headers)))
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_each_is_one_line_in_the_log_without_its_token(make: Make, printed: Printed) -> None:
    callbacks = make()
    answers = take(callbacks, (SENT, body()), (SENT, body("failed")))
    found = printed()
    assert TOKEN not in str(found)
    assert [line["event"] for line in found] == ["request"] * 2
    ids = {taken(answer).headers["x-request-id"] for answer in answers}
    assert {line["request_id"] for line in found} == ids
    for line in found:
        assert (line["method"], line["status"], line["task"]) == ("POST", 200, "task-1")
        assert line["route"] == "/callbacks/<provider>/<task_id>/<token>"
