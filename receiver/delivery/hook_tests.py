"""Sends test events through a hook, marked as such and without a delivery.

A test event is sent even while the circuit of its hook is open, and it does not affect the circuit.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path

import structlog

from receiver.clock import now_ms
from receiver.deliveries import File, Notice, Transition
from receiver.delivery.attempt import ANSWER_KEPT
from receiver.errors import DeliveryFailure
from receiver.events import Media
from receiver.hooks.base import Hook, NeedsTestPicture
from receiver.providers import PROVIDERS
from receiver.stores.base import Store
from receiver.stores.sql.endpoints import HookTest, HookTestOutcome
from receiver.tasks import Status, Task, Trust, new_task_id
from receiver.text.display import redacted, storable

LEASE = 10_000  # ms; the test events of a worker that died wait for this time
REFERENCE = "TEST"
REASON = "this is a test event; no task failed"
UNKNOWN_HOOK = (
    "nothing was sent: the worker does not know this hook; restart the worker, or send it SIGHUP, "
    "so that it reads the hooks file again"
)
PICTURE_SIDE = 480  # pixels
# Not a link, so that services that show links or fetch pictures, such as Slack, leave it out.
PICTURE_URL = "test:picture"

log = structlog.get_logger()


def send(hook: Hook, status: str, zone: tzinfo = UTC) -> str:
    """Send a test event with this status; return the hook's answer. Raises DeliveryFailure."""
    with sample_notice(status, zone) as (notice, picture):
        if isinstance(hook, NeedsTestPicture) and notice.media:
            return hook.send_test(notice, picture).answer
        return hook.send(notice).answer


@contextmanager
def sample_notice(status: str, zone: tzinfo = UTC) -> Iterator[tuple[Notice, Path]]:
    """Yield a notice that is marked as a test, and its picture; after the block it is removed."""
    now = now_ms()
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
            reason=None if status == Status.SUCCEEDED else REASON,
        )
        notice = Notice(task, Transition(status, now, now, Trust.TOKEN), is_test=True, zone=zone)
        if status == Status.SUCCEEDED:
            notice = replace(notice, media=(Media("image", PICTURE_URL),), files=(_file(picture),))
        yield notice, picture


def _picture() -> bytes:
    from PIL import Image, ImageDraw  # noqa: PLC0415 - a slow import that a worker rarely needs

    image = Image.new("RGB", (PICTURE_SIDE, PICTURE_SIDE), "white")
    place, size = (PICTURE_SIDE // 4, PICTURE_SIDE // 3), PICTURE_SIDE // 5
    ImageDraw.Draw(image).text(place, REFERENCE, "black", font_size=size)
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()


def _file(picture: Path) -> File:
    content = picture.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return File("0", str(picture), digest, len(content), "image/png")


@dataclass(slots=True)
class _Sending:
    """A test event that a thread sends; `outcome` is None until the thread has ended."""

    test: HookTest
    outcome: HookTestOutcome | None = None
    answer: str = ""


@dataclass(frozen=True, slots=True)
class HookTestSender:
    """Sends the test events that were requested on the dashboard, and records their outcomes.

    Each is sent on its own thread, so that a hook that hangs does not delay the others. The hook's
    own deadline limits how long it takes.
    """

    store: Store
    hooks: Mapping[str, Hook]
    hide: Callable[[str], str] = redacted  # removes secrets from the text of responses and errors
    clock: Callable[[], int] = now_ms
    _sending: dict[str, _Sending] = field(default_factory=dict)  # by hook

    def round(self) -> None:
        """Record ended test events, renew the leases of the others, and send requested ones.

        Call it every few seconds, from one thread. Raises StoreUnavailable.
        """
        now = self.clock()
        for sending in list(self._sending.values()):
            self._record(sending, now)
        for test in self.store.endpoints.claim_tests(now, now + LEASE):
            sending = self._sending[test.hook] = _Sending(test)
            threading.Thread(
                target=self._send, args=(sending,), name="test event", daemon=True
            ).start()

    def _record(self, sending: _Sending, now: int) -> None:
        test = sending.test
        if sending.outcome is None:
            self.store.endpoints.renew_test(test, now + LEASE)
            return
        if self.store.endpoints.end_test(test, sending.outcome, sending.answer, now):
            log.info("a test event was sent", hook=test.hook, outcome=sending.outcome.value)
        del self._sending[test.hook]

    def _send(self, sending: _Sending) -> None:
        """Send a test event. Any exception of the hook is a failure."""
        test, outcome, shown = sending.test, HookTestOutcome.FAILED, slice(ANSWER_KEPT)
        try:
            if (hook := self.hooks.get(test.hook)) is None:
                answer = UNKNOWN_HOOK
            else:
                answer, outcome = send(hook, test.status), HookTestOutcome.DELIVERED
        except DeliveryFailure as failure:
            answer = str(failure)
        except Exception as error:
            log.exception("a hook broke", hook=test.hook)
            answer = "".join(traceback.format_exception(error))
            shown = slice(-ANSWER_KEPT, None)  # its end names the error
        sending.answer = self.hide(storable(answer))[shown]
        sending.outcome = outcome  # last, because `_record` reads the answer after it
