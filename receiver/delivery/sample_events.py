"""A test event, marked as one, sent through a hook without touching the record."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, tzinfo
from pathlib import Path

from receiver.clock import now_ms
from receiver.deliveries import File, Notice, Transition
from receiver.events import Media
from receiver.hooks.base import Hook, NeedsTestPicture
from receiver.providers import PROVIDERS
from receiver.tasks import Status, Task, Trust, new_task_id

REFERENCE = "TEST"
REASON = "this is a test event; no task failed"
SIDE = 480  # pixels
# No link: whoever shows links or fetches pictures (Slack) leaves it out.
URL = "test:picture"


def send(hook: Hook, status: str, zone: tzinfo = UTC) -> str:
    """Send a test event of this status; what the other side said. Raises DeliveryFailure."""
    with notice(status, zone) as (told, picture):
        if isinstance(hook, NeedsTestPicture) and told.media:
            return hook.send_test(told, picture).answer
        return hook.send(told).answer


@contextmanager
def notice(status: str, zone: tzinfo = UTC) -> Iterator[tuple[Notice, Path]]:
    """A marked notice, and the picture in it, which is gone after the block."""
    now = now_ms()
    is_success = status == Status.SUCCEEDED
    with tempfile.TemporaryDirectory(prefix="callback-receiver-") as folder:
        picture = Path(folder) / "test.png"
        picture.write_bytes(_picture())
        task = Task(
            id=f"test-{new_task_id(now)}",
            provider=next(iter(PROVIDERS)),
            status=Status(status) if status in tuple(Status) else Status.PROCESSING,
            created_at=now - 20_000,
            updated_at=now,
            reference=REFERENCE,
            reason=None if is_success else REASON,
        )
        move = Transition(status, now, now, Trust.TOKEN)
        media = (Media("image", URL),) if is_success else ()
        files = (_file(picture),) if is_success else ()
        yield Notice(task, move, media, files, is_test=True, zone=zone), picture


def _picture() -> bytes:
    from PIL import Image, ImageDraw  # noqa: PLC0415 - a slow import, and a worker seldom needs it

    image = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(image).text((SIDE // 4, SIDE // 3), REFERENCE, "black", font_size=SIDE // 5)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _file(picture: Path) -> File:
    whole = picture.read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    return File("0", str(picture), digest, len(whole), "image/png")
