"""A record of one day of a shop, with real pictures."""

from __future__ import annotations

import io
import math
import random
from functools import partial
from pathlib import Path

from PIL import Image

from receiver.deliveries import Attempt, File, State
from receiver.endpoints import Endpoint
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.endpoints import HookTestOutcome
from receiver.tasks import Status, Task
from receiver.text.display import counted
from tests.support.samples import body, callback, subscription

ROOT = Path(__file__).parents[2]
HOUR, MINUTE = 3_600_000, 60_000
HOOKS = (subscription("pictures"), subscription("mail", after="pictures"), subscription("chat"))


def fill(store: Store, folder: Path, now: int) -> str:
    """Fill the record; return the id of the newest task that succeeded."""
    chance = random.Random(5)  # noqa: S311 - the same day each time
    files = _pictures(folder)
    newest = ""
    ages = sorted((chance.random() ** 1.3 * 23 * HOUR for _ in range(160)), reverse=True)
    starts = [now - round(age) - 3 * MINUTE for age in ages]
    for number, start in enumerate(starts):
        task = f"01a1fc0a{number:024x}"
        reference = f"ORDER-{1180 + number}"
        store.inbox.create_task(
            Task(task, "kling", Status.CREATED, start, start, reference=reference)
        )
        at = start + 2_000
        _tell(store, task, "submitted", at, chance)
        _tell(store, task, "processing", at + 9_000, chance)
        if number > 156:
            continue
        ended = at + 20_000 + round(chance.random() * 60_000)
        newest = task if chance.random() < 0.93 else newest
        if newest == task:
            _tell(store, task, "succeed", ended, chance)
        else:
            reason = "The person's face is hidden."
            _tell(store, task, "failed", ended, chance, task_status_msg=reason)
        _deliver(store, files[number % len(files)], ended + 400, number, chance)
    store.activity.heartbeat("here:1:worker", "worker", now)
    for number, hook in enumerate(("mail", "chat", "pictures")):
        store.endpoints.request_test(hook, "succeeded", now - MINUTE + number)
    mail, chat, _ = store.endpoints.claim_tests(now, now + HOUR)
    store.endpoints.end_test(mail, HookTestOutcome.DELIVERED, "250 OK: queued as 9A3F1", now)
    store.endpoints.end_test(chat, HookTestOutcome.FAILED, "Slack answered 403 invalid_token", now)
    return newest


def _tell(
    store: Store, task: str, status: str, at: int, chance: random.Random, **more: object
) -> None:
    lag = round(120 * math.exp(chance.gauss(0.8, 1.1)))
    known = {"created_at": at - 900, "updated_at": at - lag, **more}
    raw = body(status, f"8{int(task[-6:], 16):017d}", **known)
    headers = {"content-type": "application/json", "user-agent": "Go-http-client/2.0"}
    Ingest(store, HOOKS).accept(callback(raw, task, received_at=at, headers=headers))


def _changed(endpoint: Endpoint, _: Endpoint) -> tuple[Endpoint, None]:
    return endpoint, None


def _deliver(store: Store, file: File, at: int, number: int, chance: random.Random) -> None:
    for _ in range(2):
        for delivery in store.outbox.claim("w", at, at + HOUR, 9):
            took = round(80 + chance.random() * 400)
            if delivery.hook == "chat" and number in (60, 61, 62, 151):
                answer = "Slack answered 403 invalid_token: the webhook was revoked"
                attempt = Attempt(1, at, at + took, "failed", answer)
                endpoint = Endpoint("chat", 4, at, 1, at + HOUR, said=answer)
                change = partial(_changed, endpoint)
                store.outbox.settle(delivery, attempt, State.DEAD, None, change=change)
                continue
            files = [file] if delivery.hook == "pictures" and delivery.status == "succeeded" else []
            answer = {
                "pictures": f"downloaded {counted(len(files), 'file')}, {file.size} bytes",
                "mail": "250 OK: queued as 4F1C2A",
                "chat": "Slack answered 200 ok",
            }[delivery.hook]
            attempt = Attempt(1, at, at + took, "delivered", answer)
            store.outbox.settle(delivery, attempt, State.DELIVERED, None, files)
        at += 700


def _pictures(folder: Path) -> list[File]:
    """Return the sandbox's person wearing garments of several colours."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(ROOT / "sandbox" / "images" / "person.jpg") as person:
        base = person.convert("RGB")
    base.thumbnail((768, 1024))
    made = []
    for number, colour in enumerate(("#b5483a", "#3a6fb5", "#3f8f5a", "#8a5fb0", "#c69a2e")):
        layer = Image.new("RGB", base.size, colour)
        image = Image.blend(base, layer, 0.28)
        path = folder / f"{number}.png"
        image.save(path)
        small = image.copy()
        small.thumbnail((320, 320))
        jpeg = io.BytesIO()
        small.save(jpeg, "JPEG", quality=80)
        digest = f"{number}7b2c9e41d05a83f6"
        made.append(
            File("0", str(path), digest * 4, path.stat().st_size, "image/png", jpeg.getvalue())
        )
    return made
