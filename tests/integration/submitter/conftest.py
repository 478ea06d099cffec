"""A scripted provider, and a record in a SQLite file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from receiver.config.settings import Settings
from receiver.deliveries import Subscription
from receiver.ingest import Ingest
from receiver.stores import Store
from submitter.client import Client, Patience
from submitter.pictures.inputs import TryOnInputs
from submitter.providers.kling import ApiKey, Kling, TokenSource
from submitter.task_creation import TaskCreator
from tests.support.scripted_provider import TOKEN, Scripted, serving


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serving() as scripted:
        yield scripted


@pytest.fixture
def make_adapter(server: Scripted) -> Callable[..., Kling]:
    def make(tokens: TokenSource | None = None, url: str | None = None, **limits: float) -> Kling:
        # Its clock is frozen, so that a busy machine does not reduce the number of tries.
        quick = Patience(delays=(0.01, 0.02), total=5, clock=lambda: 0.0)
        client = Client(url or server.url, patient=quick, brisk=quick, **limits)
        return Kling(client, tokens or ApiKey(TOKEN))

    return make


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "receiver.db"


@pytest.fixture
def store(database: Path, migrated: Callable[[Path], Store]) -> Iterator[Store]:
    store = migrated(database)
    yield store
    store.close()


@pytest.fixture
def ingest(store: Store) -> Ingest:
    return Ingest(store, [Subscription("mail", frozenset({"succeeded", "failed"}))])


@pytest.fixture
def make_creator(
    ingest: Ingest, database: Path, make_adapter: Callable[..., Kling]
) -> Callable[..., TaskCreator]:
    def make(public_url: str | None = None, **more: Any) -> TaskCreator:
        settings = Settings(f"sqlite:///{database}", ("a-callback-secret",), public_url)
        return TaskCreator(ingest, make_adapter(**more), settings, sleep=lambda _: None)

    return make


@pytest.fixture
def inputs() -> TryOnInputs:
    return TryOnInputs("https://x.example/human.jpg", "aGVsbG8=", reference="ORDER-7")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (320, 320), "white").save(path)
    return path
