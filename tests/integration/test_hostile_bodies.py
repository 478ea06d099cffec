"""Every body gets 200 or a refusal, never a 500; accepted data is returned as it was sent."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver.config.settings import Settings
from receiver.providers import MAX_REASON
from receiver.providers.outputs import LostOutputs, media_of
from receiver.signing.callback_urls import mint
from receiver.stores.sqlite import SqliteStore
from receiver.text.display import shortened
from tests.support.applications import MakeApp
from tests.support.samples import SECRET

DATA = Path(__file__).parents[1] / "data"
CASES: list[dict[str, Any]] = json.loads((DATA / "json_cases.json").read_text())
STRINGS: list[str] = json.loads((DATA / "naughty_strings.json").read_text())
API = "the-token-of-the-api"
ALLOWED = {"Authorization": f"Bearer {API}"}
WRAPS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zlib": zlib.compress}


@pytest.fixture
def app(tmp_path: Path, store: SqliteStore, make_app: MakeApp) -> Flask:
    store.check_schema()
    return make_app(
        Settings(
            database_url=f"sqlite:///{tmp_path / 'receiver.db'}",
            callback_secrets=(SECRET,),
            hooks_file=tmp_path / "hooks.toml",
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


def post(
    client: FlaskClient, sent: bytes, task: str = "t", provider: str = "kling", **more: str
) -> int:
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
    sent = raw(case)
    assert post(client, sent, **case.get("headers", {})) == case["status"]
    stored = store.lists.callbacks()
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
    client: FlaskClient, store: SqliteStore, provider: str, field: str
) -> None:
    taken = 0
    for number, text in enumerate(STRINGS):
        sent = json.dumps(FIELDS[field](text), ensure_ascii=bool(number % 2)).encode()
        task = f"t{number}"
        status = post(client, sent, task, provider)
        assert status in (200, 400, 422), (text, status)
        if status == 200:
            taken += 1
            comes_back(client, store, task, json.loads(sent), sent)
    assert taken > len(STRINGS) / 2 or field in ("task_status", "status", "two charges")


STORED_AS = {"provider_task_id": "id_at_provider"}  # stored separately for some providers


def comes_back(
    client: FlaskClient, store: SqliteStore, task: str, sent: dict[str, Any], body: bytes
) -> None:
    """Check that the record and the API contain what was sent."""
    history = store.queries.history(task)
    assert [stored.callback.body for stored in history.callbacks] == [body]
    shown = client.get(f"/api/tasks/{task}", headers=ALLOWED).get_json()
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
