"""Metadata passed with a task through every way in, and how invalid metadata are refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from receiver.stores import Store
from submitter import InputError, metadata, submit
from submitter.cli import main
from tests.support.scripted_provider import TOKEN, Scripted

pytestmark = pytest.mark.usefixtures("folder")
OWN = {"cart": 7, "lines": [{"sku": "ä", "n": 1.5}], "gift": None, "ok": True}


@pytest.fixture
def folder(
    server: Scripted, database: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    store.check_schema()  # migrated already
    monkeypatch.chdir(tmp_path)
    for name in ("PUBLIC_URL", "HOOKS_FILE", "KLING_ACCESS_KEY", "KLING_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.setenv("KLING_API_KEY", TOKEN)
    monkeypatch.setenv("KLING_BASE_URL", server.url)
    Image.new("RGB", (300, 400), "white").save(tmp_path / "p.png")
    server.will(server.task())
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def recorded(store: Store) -> dict[str, Any]:
    return {task.reference or "": task.metadata for task in store.lists.tasks()}


def test_python_passes_metadata(store: Store) -> None:
    task = submit("kling", "p.png", "p.png", reference="r", metadata=OWN)
    assert task.metadata == OWN
    assert recorded(store) == {"r": OWN}


def test_the_command_passes_metadata_and_shows_them(store: Store) -> None:
    words = ("--human", "p.png", "--cloth", "p.png", "--reference", "r")
    result = run("submit", *words, "--metadata", json.dumps(OWN))
    assert result.exit_code == 0, result.output
    assert 'metadata   {"cart": 7, "lines": [{"sku": "ä"' in result.output
    assert recorded(store) == {"r": OWN}
    (task,) = store.lists.tasks()
    shown = json.loads(run("status", task.id, "--json").stdout)
    assert shown["task"]["metadata"] == OWN


def test_secrets_in_metadata_are_not_printed() -> None:
    words = ("--human", "p.png", "--cloth", "p.png")
    result = run("submit", *words, "--metadata", '{"to": "https://a:secret-word@b.example/"}')
    assert "metadata" in result.output
    assert "secret-word" not in result.output


@pytest.mark.parametrize("text", ["{", "[1]", "7", "", '{"a": NaN}', '{"a": 1, "a": 2}'])
def test_the_command_refuses_what_is_no_object(store: Store, text: str) -> None:
    result = run("submit", "--human", "p.png", "--cloth", "p.png", "--metadata", text)
    assert (result.exit_code, store.lists.tasks()) == (2, [])
    assert "--metadata" in result.stderr
    assert '{"cart": 7}' in result.stderr


def test_a_batch_has_a_column_of_metadata(folder: Path, store: Store) -> None:
    csv = "reference,human,cloth,metadata\n"
    csv += 'a,p.png,p.png,"{""cart"": 7}"\nb,p.png,p.png,\nc,p.png,p.png,no\n'
    (folder / "orders.csv").write_text(csv)
    result = run("batch", "orders.csv")
    assert (result.exit_code, result.output.count("metadata: ")) == (1, 1)
    assert "line 4 c: bad: metadata: it is not JSON" in result.output
    assert recorded(store) == {"a": {"cart": 7}, "b": {}}


def test_jsonl_has_metadata_as_an_object_or_as_text(folder: Path, store: Store) -> None:
    rows = [
        {"reference": "a", "human": "p.png", "cloth": "p.png", "metadata": OWN},
        {"reference": "b", "human": "p.png", "cloth": "p.png", "metadata": '{"cart": 7}'},
        {"reference": "c", "human": "p.png", "cloth": "p.png", "metadata": None},
        {"reference": "d", "human": "p.png", "cloth": "p.png", "metadata": 7},
    ]
    (folder / "orders.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "metadata: is not an object" in run("batch", "orders.jsonl").output
    assert recorded(store) == {"a": OWN, "b": {"cart": 7}, "c": {}}


DEEP: dict[str, Any] = {}
for _ in range(40):
    DEEP = {"a": DEEP}
ENDLESS: dict[str, Any] = {}
ENDLESS["a"] = ENDLESS


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"a": "x" * 4_088}, None),  # 4,096 bytes as compact JSON
        ({"a": "x" * 4_089}, "has 4,097 bytes as compact JSON; use at most 4,096"),
        ({"a": "ä" * 2_045}, "has 4,098 bytes"),
        ({"a": float("nan")}, "cannot be written as JSON"),
        ({"a": float("inf")}, "cannot be written as JSON"),
        ({"at": datetime.now(UTC)}, "cannot be written as JSON"),
        ({"a": "\ud800"}, "cannot be written as JSON"),
        ({"a": b"bytes"}, "cannot be written as JSON"),
        ({"a": "\0"}, "NUL"),
        ({("a", "b"): 1}, "cannot be written as JSON"),
        ([1], "is not an object"),
        ("text", "is not an object"),
        (DEEP, "nested more than 32 levels"),
        (ENDLESS, "cannot be written as JSON"),
    ],
)
def test_metadata_are_plain_json_of_up_to_4_kb(given: Any, problem: str | None) -> None:
    if problem is None:
        assert metadata.check(given) == given
        return
    with pytest.raises(InputError, match=problem) as caught:
        metadata.check(given)
    assert caught.value.field == "metadata"


def test_no_metadata_are_an_empty_object() -> None:
    assert metadata.check(None) == metadata.check({}) == {}
