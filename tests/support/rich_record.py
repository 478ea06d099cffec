"""A record with everything that a page can show, including text that could break out of HTML."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from receiver.deliveries import Attempt, Delivery, File, State
from receiver.endpoints import AlertKind, Endpoint
from receiver.events import Callback
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.activity import Rejection
from receiver.stores.sql.endpoints import HookTestOutcome
from receiver.tasks import Status, Task
from tests.support.samples import body, callback, subscription

HOSTILE = "<script>alert('x')</script>\"'><img src=https://evil.example/x.png onerror=alert(1)>"
TOKEN = "Zk3vQ9" + "aB1" * 12 + "c"  # 43 characters, as a callback's token has
SIGNATURE = "q-signature-of-the-result-url"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
WORKS, DEAD = "pictures", "chat"


@dataclass(frozen=True)
class Rich:
    """The ids of the recorded objects."""

    succeeded: str = "task-succeeded"
    failed: str = "task-failed"
    processing: str = "task-processing"
    not_downloaded: str = "task-not-downloaded"
    hostile: str = "task-hostile"
    forgotten: str = "task-forgotten"
    given_up: str = "task-given-up"

    @property
    def tasks(self) -> tuple[str, ...]:
        return (
            self.succeeded,
            self.failed,
            self.processing,
            self.not_downloaded,
            self.hostile,
            self.forgotten,
            self.given_up,
        )


def picture(folder: Path, name: str = "0.png", colour: str = "#4a7bd0") -> File:
    """Write a real picture into this folder, as a download would."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    large, small = _encoded("PNG", 600, 800, colour), _encoded("JPEG", 240, 320, colour)
    path.write_bytes(large)
    return File("0", str(path), "ab" * 32, len(large), "image/png", small)


@cache
def _encoded(kind: str, width: int, height: int, colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, kind)
    return file.getvalue()


def settle(
    store: Store, delivery: Delivery, state: State, now: int, answer: str, *files: File
) -> None:
    outcome = "delivered" if state is State.DELIVERED else "failed"
    attempt = Attempt(delivery.attempts, now, now + 140, outcome, answer)
    due_at = now + HOUR if state is State.PENDING else None
    store.outbox.settle(delivery, attempt, state, due_at, files)


def tell(store: Store, task: str, status: str, at: int, **more: object) -> None:
    told = callback(
        body(status, f"at-provider-{task}", created_at=at - 2000, updated_at=at - 700, **more),
        task,
        received_at=at,
        headers={"user-agent": HOSTILE, "x-forwarded-uri": f"/callbacks/kling/{task}/{TOKEN}"},
    )
    Ingest(store, [subscription(WORKS), subscription(DEAD)]).accept(told)


def fill(store: Store, folder: Path, now: int) -> Rich:
    """Fill the record."""
    rich = Rich()
    for number, name in enumerate(rich.tasks):
        at = now - (len(rich.tasks) - number) * 10 * MINUTE
        reference = HOSTILE if name == rich.hostile else f"ORDER-{number}"
        task = Task(name, "kling", Status.CREATED, at, at, reference=reference)
        store.inbox.create_task(task)
        tell(store, name, "processing", at + 900)
    for name in (rich.succeeded, rich.not_downloaded, rich.forgotten):
        tell(store, name, "succeed", now - 5 * MINUTE, task_result=_images(now))
    tell(store, rich.failed, "failed", now - 4 * MINUTE, task_status_msg="The face is hidden.")
    tell(store, rich.hostile, "failed", now - 3 * MINUTE, task_status_msg=HOSTILE)
    store.inbox.give_up(rich.given_up, now, [])
    for delivery in store.outbox.claim("worker", now, now + HOUR, 99):
        _end(store, delivery, folder, now, rich)
    store.erasures.close_task(rich.forgotten, now)
    store.erasures.erase(rich.forgotten, now)
    odd = f'{{"odd": "{HOSTILE[:20]}", "callback_url": "https://x.example/callbacks/kling/t/{TOKEN}"}}'
    store.inbox.quarantine(_raw(odd.encode(), rich.processing, now), f"task_status: {HOSTILE}")
    store.inbox.quarantine(
        _raw(b"\xff\x00 not JSON", rich.hostile, now + 1), "the body is not JSON"
    )
    path, reason = "/callbacks/kling/…/…", f"wrong token: {HOSTILE}"
    store.activity.add_rejections([Rejection(now, "203.0.113.9", reason, "POST", path, 7)])
    store.endpoints.pause("mail", now)
    store.activity.heartbeat("here:1:worker", "worker", now)
    for hook in (DEAD, "mail", WORKS):
        store.endpoints.request_test(hook, "succeeded", now - MINUTE)
    chat, *_ = store.endpoints.claim_tests(now, now + HOUR)
    said = f"Slack answered 503 {HOSTILE} of https://x.example/callbacks/kling/t/{TOKEN}"
    store.endpoints.end_test(chat, HookTestOutcome.FAILED, said, now)
    return rich


def _images(now: int) -> dict[str, object]:
    expires = (now + 20 * HOUR) // 1000
    url = f"https://cdn.example/0.png?Expires={expires}&Signature={SIGNATURE}"
    return {"images": [{"index": 0, "url": url}], "videos": [], "audios": []}


def _raw(raw: bytes, task: str, at: int) -> Callback:
    return callback(raw, task, received_at=at)


def _end(store: Store, delivery: Delivery, folder: Path, now: int, rich: Rich) -> None:
    if delivery.hook == DEAD:
        endpoint = Endpoint(DEAD, 5, now - HOUR, 1, now + MINUTE, said=f"503 {HOSTILE}")
        attempt = Attempt(delivery.attempts, now, now + 30, "failed", f"Slack said 503 {HOSTILE}")
        change = (endpoint, AlertKind.PAUSED)
        store.outbox.settle(delivery, attempt, State.DEAD, None, change=lambda _: change)
    elif delivery.task_id == rich.not_downloaded:
        settle(store, delivery, State.PENDING, now, "the result URL answered 500")
    elif delivery.task_id in (rich.succeeded, rich.forgotten):
        file = picture(folder, f"{delivery.task_id}/0.png")
        settle(store, delivery, State.DELIVERED, now, "downloaded 1 file", file)
    else:
        settle(store, delivery, State.DELIVERED, now, "nothing to download")
