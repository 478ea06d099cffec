"""RECONCILE_AFTER limits the delay of the first query of every task, however it became known."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.config.settings import Settings
from receiver.errors import RequestRefused
from receiver.ingest import Ingest, announce
from receiver.providers import parse
from receiver.stores.base import Store
from receiver.tasks import Trust
from tests.support.samples import SECRET, body, callback

PROCESSING = callback(body("processing"))


def chosen(folder: Path, reconcile_after: float | None) -> Settings:
    (folder / "hooks.toml").touch()
    return Settings(
        "sqlite:///unused.db",
        (SECRET,),
        public_url="https://shop.example",
        hooks_file=folder / "hooks.toml",
        reconcile_after=reconcile_after,
    )


def adopted(ingest: Ingest, _: Settings) -> None:
    ingest.accept(PROCESSING)


def adopted_in_the_event_loop(ingest: Ingest, _: Settings) -> None:
    write = ingest.submit(PROCESSING, parse(PROCESSING))
    ingest.store.database.writer.start()
    write.result()


def adopted_by_its_signature(ingest: Ingest, _: Settings) -> None:
    ingest.accept(replace(PROCESSING, task_id=None, trust=Trust.SIGNED))


def adopted_without_being_understood(ingest: Ingest, _: Settings) -> None:
    with suppress(RequestRefused):
        ingest.accept(callback(b'{"odd": 1}'))


def adopted_by_replay(ingest: Ingest, _: Settings) -> None:
    unknown = replace(PROCESSING, task_id=None, trust=Trust.SIGNED)
    ingest.store.inbox.quarantine(unknown, "it could not be parsed")
    ingest.replay(ingest.store.lists.callbacks()[0].id)


def announced(ingest: Ingest, settings: Settings) -> None:
    announce(ingest.store, settings, "kling", None, "default")


Way = Callable[[Ingest, Settings], None]
WAYS: dict[Way, int] = {
    adopted: 90,
    adopted_in_the_event_loop: 90,
    adopted_by_its_signature: 90,
    adopted_without_being_understood: 90,
    adopted_by_replay: 90,
    announced: 600,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reconcile_after", [None, 0.5, 30.0, 86_400.0])
def test_the_first_query_is_due_within_reconcile_after(
    store: Store,
    tmp_path: Path,
    way: Way,
    reconcile_after: float | None,
) -> None:
    settings = chosen(tmp_path, reconcile_after)
    way(Ingest.into(store, settings), settings)
    (task,) = store.lists.tasks()
    assert task.deadline_at is not None
    wait = (task.deadline_at - task.created_at) / 1000
    assert wait == min(WAYS[way], reconcile_after or WAYS[way])
