"""The demo's proof fails for each missing step, and names it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from PIL import Image

from sandbox.demo import checks
from sandbox.demo.progress_deadline import StepError
from sandbox.demo.receiver_commands import DeliveryRow, ReceiverCommands, TaskRow
from sandbox.inboxes.mail import Mail, MailPart
from sandbox.inboxes.slack import SlackMessage
from sandbox.ledger import Ledger
from sandbox.outgoing_callbacks import OutgoingCallback

EXPECTED = {
    "DEMO-1": checks.Expected("kling", "succeeded"),
    "DEMO-2": checks.Expected("appypie", "failed"),
    "DEMO-3": checks.Expected("modellix", "failed", calls_back=False),
}
TOLD = {"t1": ["submitted", "processing", "succeed"], "t2": ["submitted", "processing", "failed"]}


def picture() -> bytes:
    output = io.BytesIO()
    Image.new("RGB", (4, 4)).save(output, "PNG")
    return output.getvalue()


def mail(number: int, *parts: MailPart, subject: str | None = None) -> Mail:
    outcome = "is ready" if number == 1 else "failed"
    headers = {"subject": subject or f"DEMO-{number} {outcome}"}
    return Mail(number, 0, "a@shop.example", ("b@shop.example",), headers, "t", None, parts, b"raw")


def message(number: int, text: str) -> SlackMessage:
    return SlackMessage(number, 0, "inbox", {"text": text}, 9)


@dataclass
class World:
    """A demo in which everything succeeded, until a test removes something."""

    pictures: Path
    ledger: Ledger = field(default_factory=Ledger)
    kept_mails: list[Mail] = field(default_factory=list)
    kept_messages: list[SlackMessage] = field(default_factory=list)
    record: ReceiverCommands = field(default_factory=ReceiverCommands)

    def mails(self) -> list[Mail]:
        return self.kept_mails

    def slack_messages(self) -> list[SlackMessage]:
        return self.kept_messages

    def acknowledge(self, task_id: str, status: str, http_status: int = 200) -> None:
        notice = OutgoingCallback(
            "kling", f"p-{task_id}", None, status, "http://x.example", {}, b""
        )
        self.ledger.closed(self.ledger.opened(notice, 1), http_status=http_status)

    def check(self) -> None:
        checks.check(self, self.record, EXPECTED, self.pictures)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "pictures")
    world.pictures.mkdir()
    (world.pictures / "0.png").write_bytes(picture())
    for task_id, statuses in TOLD.items():
        for status in statuses:
            world.acknowledge(task_id, status)
    shown = MailPart("image/png", "0.png", "pic", True, picture())
    world.kept_mails = [mail(1, shown), mail(2), mail(3)]
    world.kept_messages = [message(1, "http://x/_sandbox/results/1.png")]
    world.record = ReceiverCommands(
        (
            TaskRow("t1", "kling", "DEMO-1", "succeeded", "p-t1"),
            TaskRow("t2", "appypie", "DEMO-2", "failed", "p-t2"),
            TaskRow("t3", "modellix", "DEMO-3", "failed", "p-t3"),
        ),
        (DeliveryRow("1", "t1", "mail", "delivered", 1),),
    )
    return world


def wrong_status(world: World) -> None:
    world.record = replace(world.record, tasks=world.record.tasks[:1])


def unacknowledged(world: World) -> None:
    world.ledger = Ledger()
    for task_id, statuses in TOLD.items():
        for status in statuses:
            world.acknowledge(task_id, status, 503 if status == "failed" else 200)


def without_callbacks(world: World) -> None:
    world.acknowledge("t3", "failed")


def dead_delivery(world: World) -> None:
    dead = replace(world.record.deliveries[0], state="dead")
    world.record = replace(world.record, deliveries=(dead,))


def no_picture(world: World) -> None:
    (world.pictures / "0.png").unlink()


def broken_picture(world: World) -> None:
    (world.pictures / "0.png").write_bytes(picture()[:40])


def mail_twice(world: World) -> None:
    world.kept_mails.append(mail(4))


def no_inline_picture(world: World) -> None:
    world.kept_mails[0] = mail(1)


def template_not_rendered(world: World) -> None:
    world.kept_mails[1] = mail(2, subject="{{ task.reference }} failed")


def unfiltered_slack(world: World) -> None:
    world.kept_messages.append(message(2, "failed"))


def no_slack(world: World) -> None:
    world.kept_messages.pop()


def slack_without_picture(world: World) -> None:
    world.kept_messages[0] = message(1, "no picture")


def test_a_complete_demo_passes(world: World) -> None:
    world.check()


@pytest.mark.parametrize(
    ("take_away", "problem"),
    [
        (wrong_status, "statuses: expected"),
        (unacknowledged, "callbacks of DEMO-2: not acknowledged: failed"),
        (without_callbacks, "callbacks of DEMO-3: its provider has none"),
        (dead_delivery, "delivery 1 to the hook 'mail' is dead"),
        (no_picture, "pictures: expected 1"),
        (broken_picture, "does not open"),
        (mail_twice, "mail: expected 3"),
        (no_inline_picture, "mail: expected 3, 1 of them with an inline picture"),
        (template_not_rendered, "mail: expected the subjects"),
        (unfiltered_slack, "Slack: expected 1 messages, all with a picture; 2 arrived"),
        (no_slack, "Slack: expected 1 messages"),
        (slack_without_picture, "Slack: expected 1 messages, all with a picture; 1 arrived, 0"),
    ],
)
def test_each_missing_step_is_named(
    world: World, take_away: Callable[[World], None], problem: str
) -> None:
    take_away(world)
    with pytest.raises(StepError, match=problem):
        world.check()


def test_a_complete_record_has_nothing_missing(world: World) -> None:
    assert checks.missing(world.record, EXPECTED) == []


def test_each_missing_fact_is_named_with_the_process_that_records_it(
    world: World,
) -> None:
    first, second, _ = world.record.tasks
    (delivery,) = world.record.deliveries
    rows = (first, replace(second, status="processing"))
    pending = replace(delivery, state="pending", attempts=2)
    delivery_line, *others = checks.missing(ReceiverCommands(rows, (pending,)), EXPECTED)
    assert delivery_line == (
        "DEMO-1: its delivery to the hook 'mail' is pending after 2 attempt(s)"
        " (the worker makes it)"
    )
    assert others == [
        "DEMO-2: its status is processing (waiting for callbacks to the web process)",
        "DEMO-3: not created yet (`submitter submit` creates it)",
    ]
    third = replace(world.record.tasks[2], status="submitted")
    (line,) = checks.missing(ReceiverCommands((third,)), {"DEMO-3": EXPECTED["DEMO-3"]})
    assert line == "DEMO-3: its status is submitted (waiting for queries by the poller)"


def test_received_messages_are_saved_as_files(world: World, tmp_path: Path) -> None:
    checks.keep(world, tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "mail-1.eml").read_bytes() == b"raw"
    assert "results/1.png" in (tmp_path / "slack-1.json").read_text()
