"""`forget` and `prune` find the files that attempts left on the disk, recorded or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.clock import now_ms
from receiver.deliveries import State
from receiver.delivery.attempt import DeliveryWorker
from receiver.hooks.download import Download
from receiver.hooks.local_folder import STALE_AFTER
from receiver.ingest import Ingest
from receiver.maintenance.forget import forget
from receiver.maintenance.prune import prune
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from tests.support.attempts import current_notice, make_attempt
from tests.support.hook_servers import Page, Site, picture
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
ANNA = "Anna of Example Street"
DEFAULT = "{provider}/{task}/{index}.{extension}"
OF_CUSTOMERS = "{reference}/{provider}/{task}-files/{index}.{extension}"
PART = "0123456789abcdef" * 2


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


class Shop:
    """A record, and a download hook that stores files in a folder."""

    def __init__(self, store: SqliteStore, site: Site, folder: Path, path: str = DEFAULT) -> None:
        self.store, self.site, self.folder = store, site, folder
        options: dict[str, Any] = {"to": str(folder), "path": path, "allow_private": True}
        self.hook = Download("pictures", options)
        self.ingest = Ingest(store, [subscription("pictures")])
        self.deliver = DeliveryWorker(store, {"pictures": self.hook})

    def succeed(self, task: str, content: bytes, reference: str | None = ANNA) -> State:
        """Let the task succeed with this result, which is downloaded once."""
        self.store.inbox.create_task(
            Task(task, "kling", Status.CREATED, NOW, NOW, reference=reference)
        )
        self.site.pages[f"/{task}"] = Page(content)
        images = [{"index": 0, "url": f"{self.site.url}/{task}"}]
        raw = body(task_id=f"provider's {task}", task_result={"images": images})
        self.ingest.accept(callback(raw, task, received_at=NOW))
        return self.attempt()

    def attempt(self) -> State:
        now = now_ms()
        (delivery,) = self.store.outbox.claim("w", now, now + 60_000, 1)
        return make_attempt(self.deliver, delivery)

    def redeliver(self, task: str, content: bytes) -> State:
        self.site.pages[f"/{task}"] = Page(content)
        (delivery,) = self.store.lists.deliveries(task_id=task)
        self.store.outbox.redeliver(delivery.id, now_ms())
        return self.attempt()

    def forget(self, task: str) -> int:
        return forget(self.store, task, [self.hook])

    def contents(self) -> list[str]:
        """Return files and directories."""
        found = self.folder.rglob("*")
        return sorted(str(path.relative_to(self.folder)) for path in found)


@pytest.fixture
def shop(store: SqliteStore, site: Site, tmp_path: Path) -> Shop:
    return Shop(store, site, tmp_path / "pictures")


def test_the_directory_of_the_task_is_removed_with_its_file(shop: Shop) -> None:
    assert shop.succeed("task-1", picture()) is State.DELIVERED
    assert shop.succeed("task-2", picture()) is State.DELIVERED
    assert shop.forget("task-1") == 1
    assert shop.contents() == ["kling", "kling/task-2", "kling/task-2/0.png"]
    assert shop.forget("task-2") == 1
    assert shop.contents() == ["kling"]


@pytest.mark.parametrize("with_hook", [True, False])
def test_the_directory_of_the_customer_is_removed_as_well(
    store: SqliteStore, site: Site, tmp_path: Path, with_hook: bool
) -> None:
    shop = Shop(store, site, tmp_path / "pictures", "{reference}/{task}/{index}.{extension}")
    for task in ("task-1", "task-2"):
        shop.succeed(task, picture())
    forget(store, "task-1", [shop.hook] if with_hook else [])
    assert shop.contents() == [
        "Anna_of_Example_Street",
        "Anna_of_Example_Street/task-2",
        "Anna_of_Example_Street/task-2/0.png",
    ]
    forget(store, "task-2", [shop.hook] if with_hook else [])
    assert shop.contents() == []
    assert shop.folder.is_dir()  # the hook's own directory belongs to the operator


def test_directories_between_customer_and_task_are_removed_as_well(
    store: SqliteStore, site: Site, tmp_path: Path
) -> None:
    path = "{reference}/{provider}/{task}/{index}.{extension}"
    shop = Shop(store, site, tmp_path / "pictures", path)
    shop.succeed("task-1", picture())
    shop.forget("task-1")
    assert shop.contents() == []


def test_a_redelivery_of_another_type_leaves_no_unrecorded_file(shop: Shop) -> None:
    shop.succeed("task-1", picture("PNG"))
    assert shop.redeliver("task-1", picture("JPEG")) is State.DELIVERED
    assert shop.redeliver("task-1", picture("WEBP")) is State.DELIVERED
    shown = shop.store.queries.history("task-1").files
    urls = {file.url for files in shown.values() for file in files}
    assert {Path(url).name for url in urls} == {"0.png", "0.jpg", "0.webp"}
    (delivery,) = shop.store.lists.deliveries(task_id="task-1")
    notice = current_notice(shop.deliver, delivery)
    assert [Path(file.url).name for file in notice.files] == ["0.webp"]  # hooks get the newest file
    assert shop.store.queries.pictures(["task-1"])["task-1"][0].has_thumbnail
    forget(shop.store, "task-1")  # also without the hooks file
    assert shop.contents() == ["kling"]


def test_files_that_are_not_on_record_are_found(shop: Shop) -> None:
    """A worker was killed between storing a file and recording it, or an older release left it."""
    shop.succeed("task-1", picture("PNG"))
    folder = shop.folder / "kling" / "task-1"
    for name in ("0.jpg", "0-2.png", "1.png", "vid-1.mp4", f".0.{PART}.part", f".1.{PART}.part"):
        (folder / name).write_bytes(b"a picture of Anna")
    assert shop.forget("task-1") == 5
    assert shop.contents() == ["kling"]


def test_a_second_run_finds_files_that_appeared_meanwhile(shop: Shop) -> None:
    shop.succeed("task-1", picture())
    shop.forget("task-1")
    folder = shop.folder / "kling" / "task-1"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"a picture of Anna")
    assert shop.forget("task-1") == 1
    assert shop.contents() == ["kling"]


@pytest.mark.parametrize(
    ("path", "theirs"),
    [
        (DEFAULT, "kling/task-10/0.png"),
        (DEFAULT, "kling/task-1.old/0.png"),
        (DEFAULT, "kling/a-task-1/0.png"),
        (DEFAULT, "kling/task-1/notes about the shoot.txt"),
        (DEFAULT, "kling/task-1/raw/0.png"),
        ("{provider}/{task}.{extension}", "kling/task-1-2.png"),
        ("{provider}/{task}.{index}.{extension}", "kling/task-10.0.png"),
        ("{provider}/{task}.{index}.{extension}", "kling/task-1.0.b.png"),
        ("{provider}/{task}-{index}.{extension}", "kling/task-1-0-2.png"),
        ("{provider}/{index}{task}.{extension}", "kling/0task-1.jpg"),
        ("{reference}.{task}.{extension}", f"{ANNA.replace(' ', '_')}.task-1.b.png"),
    ],
)
def test_other_files_stay(
    store: SqliteStore, site: Site, tmp_path: Path, path: str, theirs: str
) -> None:
    shop = Shop(store, site, tmp_path / "pictures", path)
    shop.succeed("task-1", picture())
    other = shop.folder / theirs
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(b"a picture of Ben")
    assert shop.forget("task-1") == 1
    assert [name for name in shop.contents() if (shop.folder / name).is_file()] == [theirs]


def test_a_failed_download_leaves_no_directory_named_after_the_task(shop: Shop) -> None:
    assert shop.succeed("task-1", b"<!doctype html><title>Sorry</title>") is State.PENDING
    assert shop.contents() == []


def test_prune_removes_leftovers_and_keeps_the_pictures(shop: Shop) -> None:
    shop.succeed("task-1", picture())
    folder = shop.folder / "kling" / "task-1"
    stale, fresh = folder / f".0.{PART}.part", folder / f".1.{PART}.part"
    for left in (stale, fresh):
        left.write_bytes(b"half a picture")
    os.utime(stale, (NOW / 1000, NOW / 1000 - STALE_AFTER - 1))
    list(prune(shop.store, now_ms(), [shop.hook]))
    assert {path.name for path in folder.iterdir()} == {"0.png", fresh.name}


def test_prune_removes_an_empty_directory_named_after_the_task(shop: Shop) -> None:
    shop.succeed("task-1", picture())
    (shop.folder / "kling" / "task-1" / "0.png").unlink()  # created by its owner
    list(prune(shop.store, now_ms(), [shop.hook]))
    assert shop.contents() == ["kling"]


def test_a_missing_download_folder_is_not_an_error(store: SqliteStore, tmp_path: Path) -> None:
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW))
    for path in (DEFAULT, "{task}.{extension}"):
        hook = Download("pictures", {"to": str(tmp_path / "nowhere"), "path": path})
        assert forget(store, "task-1", [hook]) == 0
    bucket = Download("pictures", {"to": "memory://bucket"})
    assert forget(store, "task-1", [bucket]) == 0
