"""Every body gets 200 or a refusal, never a 500; accepted data is returned as it was sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver.config.settings import Settings
from receiver.providers import MAX_REASON
from receiver.providers.outputs import LostOutputs, media_of
from receiver.serializers.records import history_json
from receiver.signing.callback_urls import mint
from receiver.stores.sql.queries import TaskHistory
from receiver.stores.sqlite import SqliteStore
from receiver.text.display import shortened
from receiver.web.callbacks import CallbackRequest
from receiver.web.server.callback_app import CallbackHandler
from tests.support.applications import applications
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET

DATA = Path(__file__).parents[1] / "data"
CASES: list[dict[str, Any]] = json.loads((DATA / "json_cases.json").read_text())
STRINGS: list[str] = json.loads((DATA / "naughty_strings.json").read_text())
API = "the-token-of-the-api"
ALLOWED = {"Authorization": f"Bearer {API}"}
WRAPS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zlib": zlib.compress}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bodies")


@pytest.fixture(scope="module")
def store(folder: Path, migrated: Callable[[Path], SqliteStore]) -> Iterator[SqliteStore]:
    """One record for all tests: each body is sent for a task of its own."""
    with closing(migrated(folder / "receiver.db")) as made:
        made.check_schema()
        yield made


@pytest.fixture(scope="module")
def app(store: SqliteStore, folder: Path) -> Iterator[Flask]:
    store.check_schema()
    with applications() as make:
        yield make(
            Settings(
                database_url=f"sqlite:///{folder / 'receiver.db'}",
                callback_secrets=(SECRET,),
                hooks_file=folder / "hooks.toml",
                api_token=API,
            )
        )


def raw(case: dict[str, Any]) -> bytes:
    """Return the body of a case: its parts, some of them repeated, in its encoding."""
    parts = [part if isinstance(part, str) else part[0] * part[1] for part in case["body"]]
    encoding = case.get("encoding", "utf-8")
    if "insert" in case:
        before, behind = (part.encode() for part in parts)
        return before + bytes.fromhex(case["insert"]) + behind
    text = "".join(parts)
    return WRAPS[encoding](text.encode()) if encoding in WRAPS else text.encode(encoding)


def post(client: FlaskClient, sent: bytes, task: str, provider: str = "kling", **more: str) -> int:
    where = f"/callbacks/{provider}/{task}/{mint(SECRET, provider, task)}"
    headers = {"Content-Type": "application/json", **more}
    answer = client.post(where, data=sent, headers=headers)
    assert answer.is_json
    assert len(answer.get_data()) < 10_000  # a response never repeats the request at length
    return answer.status_code


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_body_is_accepted_or_refused(
    client: FlaskClient, store: SqliteStore, case: dict[str, Any]
) -> None:
    sent, task = raw(case), f"case-{CASES.index(case)}"
    earlier = {one.id for one in store.lists.callbacks(limit=1)}
    assert post(client, sent, task, **case.get("headers", {})) == case["status"]
    stored = [one for one in store.lists.callbacks(limit=2) if one.id not in earlier]
    assert [one.callback.body for one in stored] == [sent]  # also in quarantine, byte for byte
    assert (stored[0].outcome == "quarantined") is (case["status"] != 200)
    if case["status"] == 200:  # an ignored field is named; nothing else is a problem
        assert stored[0].problem == case.get("problem")
    else:
        assert case.get("problem", "") in str(stored[0].problem)


@pytest.mark.parametrize("index", ["", "x" * 65, 10**80, True, None, 1.5, [0], {}])
def test_an_index_that_could_not_name_a_file_is_replaced_by_the_position(index: object) -> None:
    given = [
        ("image", ("url",), 3, "images[3]", {"index": index, "url": "https://a.example/3.png"})
        for index in (index, "x" * 64)
    ]
    media = media_of(given, ("duration",), 0, LostOutputs([]))
    assert [output.index for output in media] == ["3", "x" * 64]


LEGACY = {"task_id": "p", "task_status": "failed"}
NEW = {"id": "p", "status": "failed"}
IMAGE = {"index": 0, "url": "https://a.example/0.png"}
Made = Callable[[str], dict[str, Any]]
FIELDS: dict[str, Made] = {
    "task_id": lambda text: {**LEGACY, "task_id": text},
    "task_status": lambda text: {**LEGACY, "task_status": text},
    "external_task_id": lambda text: {**LEGACY, "task_info": {"external_task_id": text}},
    "task_status_msg": lambda text: {**LEGACY, "task_status_msg": text},
    "deduction": lambda text: {**LEGACY, "final_unit_deduction": text},
    "url": lambda text: {**LEGACY, "task_result": {"images": [{**IMAGE, "url": text}]}},
    "the rest of an image": lambda text: {
        **LEGACY,
        "task_result": {
            "images": [{**IMAGE, "index": text, "watermark_url": text, "duration": text}] * 2,
            "videos": [{"id": text, "url": "https://a.example/0.mp4", "duration": text}],
            text: text,
        },
    },
    "unknown": lambda text: {**LEGACY, f"x{text}": {text: [text]}},
    "id": lambda text: {**NEW, "id": text},
    "status": lambda text: {**NEW, "status": text},
    "message and external_id": lambda text: {**NEW, "message": text, "external_id": text},
    "outputs": lambda text: {
        **NEW,
        "outputs": [
            {"type": text, "url": "https://a.example/0"},
            {"type": "video", "id": text, "url": text or "x", "duration": text},
        ],
    },
    "billing": lambda text: {**NEW, "billing": [{"charge_type": text, "amount": text}]},
    "two charges": lambda text: {**NEW, "billing": [{"charge_type": "u", "amount": text}] * 2},
}
OF_APPYPIE = ("task_id", "external_task_id", "task_status_msg", "url")  # Kling's older dialect


@pytest.mark.parametrize(
    ("provider", "field"),
    [*(("kling", field) for field in FIELDS), *(("appypie", field) for field in OF_APPYPIE)],
)
def test_a_text_is_returned_as_it_was_sent(
    app: Flask, client: FlaskClient, store: SqliteStore, provider: str, field: str
) -> None:
    sent = {
        f"{provider}-{list(FIELDS).index(field)}-{number}": json.dumps(
            FIELDS[field](text), ensure_ascii=bool(number % 2)
        ).encode()
        for number, text in enumerate(STRINGS)
    }
    taken = recorded(app.extensions["callbacks"], provider, sent)
    for task in sent.keys() - taken:  # Flask gets them, as in the web process
        status = post(client, sent[task], task, provider)
        assert status in (200, 400, 422), (sent[task], status)
        if status == 200:
            taken.add(task)
    for task in taken:
        history = store.queries.history(task)
        shown = app.json.loads(app.json.dumps(history_json(history)))
        comes_back(history, shown, sent[task])
    for task in list(taken)[:3]:  # the API serializes the history in the same way
        shown = client.get(f"/api/tasks/{task}", headers=ALLOWED).get_json()
        comes_back(store.queries.history(task), shown, sent[task])
    assert len(taken) > len(STRINGS) / 2 or field in ("task_status", "status", "two charges")


def recorded(handler: CallbackHandler, provider: str, sent: dict[str, bytes]) -> set[str]:
    """Send the bodies concurrently, as the web process receives them. Return the tasks of those
    that did not have to be passed to Flask.
    """

    async def receive(task: str, body: bytes) -> bool:
        request = CallbackRequest(provider, task, mint(SECRET, provider, task), {})
        answer = await handler.receive(request, body)
        assert answer is None or (answer.status, len(answer.body) < 100) == (200, True)
        return answer is not None

    async def scenario() -> list[bool]:
        handler.serve_in(asyncio.get_running_loop())
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*(receive(*one) for one in sent.items()))

    return {
        task for task, is_recorded in zip(sent, asyncio.run(scenario()), strict=True) if is_recorded
    }


STORED_AS = {"provider_task_id": "id_at_provider"}  # stored separately for some providers


def comes_back(history: TaskHistory, shown: dict[str, Any], body: bytes) -> None:
    """Check that the record and the document of the API contain what was sent."""
    sent = json.loads(body)
    assert [stored.callback.body for stored in history.callbacks] == [body]
    assert shown["callbacks"][0]["body"].encode() == body
    wanted = {
        "provider_task_id": sent.get("task_id", sent.get("id")),
        "reason": shortened(sent.get("task_status_msg", sent.get("message")) or "", MAX_REASON)
        or None,
    }
    if "final_unit_deduction" in sent:
        wanted["cost"] = sent["final_unit_deduction"] or None
    for name, value in wanted.items():
        assert shown[name] == value
        assert getattr(history.task, STORED_AS.get(name, name)) == value
