"""Checks that every step happened, and stores the mails and messages as files."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from sandbox.demo.progress_deadline import StepError

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.demo.receiver_commands import ReceiverCommands
    from sandbox.inboxes.mail import Mail
    from sandbox.server import Sandbox


@dataclass(frozen=True)
class Expected:
    """The expected end of a task. Without callbacks, the receiver queries the provider."""

    provider: str
    status: str
    calls_back: bool = True


SPOKEN = {"succeeded": "succeed", "failed": "failed"}


def check(
    sandbox: Sandbox, record: ReceiverCommands, expected: dict[str, Expected], pictures: Path
) -> None:
    """Raise StepError for the first step that cannot be seen; the keys of `expected` are
    references.
    """
    _check_statuses(record, {name: task.status for name, task in expected.items()})
    for reference, task in expected.items():
        changed = ("submitted", "processing", SPOKEN[task.status]) if task.calls_back else ()
        _check_acknowledged(sandbox, record, reference, changed)
    _check_deliveries(record)
    succeeded = sum(task.status == "succeeded" for task in expected.values())
    _check_pictures(pictures, succeeded)
    _check_mails(sandbox.mails(), len(expected), succeeded)
    _check_subjects(sandbox.mails(), expected)
    _check_slack(sandbox, succeeded)


def missing(record: ReceiverCommands, expected: dict[str, Expected]) -> list[str]:
    """Return a line for each step that the record does not show yet, with the process for it."""
    lines = []
    for reference, task in expected.items():
        row = next((row for row in record.tasks if row.reference == reference), None)
        if row is None:
            lines.append(f"{reference}: not created yet (`submitter submit` creates it)")
        elif row.status != task.status:
            source = "callbacks to the web process" if task.calls_back else "queries by the poller"
            lines.append(f"{reference}: its status is {row.status} (waiting for {source})")
        else:
            lines += [
                f"{reference}: its delivery to the hook {delivery.hook!r} is {delivery.state}"
                f" after {delivery.attempts} attempt(s) (the worker makes it)"
                for delivery in record.of(row)
                if delivery.state != "delivered"
            ]
    return lines


def find_pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def keep(sandbox: Sandbox, folder: Path) -> None:
    """Write mails and Slack messages into `folder`, because their pages end with the sandbox."""
    for mail in sandbox.mails():
        (folder / f"mail-{mail.number}.eml").write_bytes(mail.raw)
    for message in sandbox.slack_messages():
        text = json.dumps(message.payload, indent=2, ensure_ascii=False)
        (folder / f"slack-{message.number}.json").write_text(text + "\n", encoding="utf-8")


def _check_statuses(record: ReceiverCommands, expected: dict[str, str]) -> None:
    found = {task.reference: task.status for task in record.tasks}
    if found != expected:
        raise StepError(f"statuses: expected {expected}, the receiver says {found}")


def _check_acknowledged(
    sandbox: Sandbox, record: ReceiverCommands, reference: str, statuses: tuple[str, ...]
) -> None:
    ids = {task.provider_task_id for task in record.tasks if task.reference == reference}
    seen = {row.status for row in sandbox.ledger.acknowledged() if row.task_id in ids}
    missing = [status for status in statuses if status not in seen]
    if missing:
        raise StepError(f"callbacks of {reference}: not acknowledged: {', '.join(missing)}")
    if seen and not statuses:
        raise StepError(f"callbacks of {reference}: its provider has none, but some arrived")


def _check_deliveries(record: ReceiverCommands) -> None:
    for row in record.deliveries:
        if row.state != "delivered":
            raise StepError(f"delivery {row.id} to the hook {row.hook!r} is {row.state}")


def _check_pictures(folder: Path, number: int) -> None:
    found = find_pictures(folder)
    if len(found) != number:
        raise StepError(f"pictures: expected {number} in {folder}, found {len(found)}")
    for path in found:
        _check_opens(path.read_bytes(), str(path))


def _check_mails(mails: list[Mail], number: int, with_picture: int) -> None:
    inline = [
        part
        for mail in mails
        for part in mail.parts
        if part.content_id and part.content_type.startswith("image/")
    ]
    if (len(mails), len(inline)) != (number, with_picture):
        raise StepError(
            f"mail: expected {number}, {with_picture} of them with an inline picture;"
            f" {len(mails)} arrived, with {len(inline)}"
        )
    for part in inline:
        _check_opens(part.content, "the picture in a mail")


def _check_subjects(mails: list[Mail], expected: dict[str, Expected]) -> None:
    """Check that the template of the subject was rendered for each task."""
    outcomes = {"succeeded": "is ready", "failed": "failed"}
    subjects = [f"{name} {outcomes[task.status]}" for name, task in expected.items()]
    found = sorted(mail.headers.get("subject", "") for mail in mails)
    if found != sorted(subjects):
        raise StepError(f"mail: expected the subjects {subjects}, found {found}")


def _check_slack(sandbox: Sandbox, number: int) -> None:
    """Check that the filter of the hook `slack` let only messages with a picture pass."""
    messages = sandbox.slack_messages()
    showing = sum("/_sandbox/results/" in json.dumps(m.payload) for m in messages)
    if (len(messages), showing) != (number, number):
        raise StepError(
            f"Slack: expected {number} messages, all with a picture;"
            f" {len(messages)} arrived, {showing} with one"
        )


def _check_opens(content: bytes, what: str) -> None:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except OSError as fault:
        raise StepError(f"{what} does not open: {fault}") from None
