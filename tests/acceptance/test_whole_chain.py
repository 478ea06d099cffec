"""From `submitter submit` to the e-mail, the Slack message and the picture, with real processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import requests
from PIL import Image

from receiver.deliveries import State
from sandbox.server import Sandbox
from tests.support.forked_children import words_of
from tests.support.installation import ROOT, Installation, both_stores
from tests.support.patience import PATIENCE

PERSON = str(ROOT / "sandbox/images/person.jpg")
GARMENT = str(ROOT / "sandbox/images/garment.png")
pytestmark = both_stores


def submit(installation: Installation, *more: str) -> dict[str, object]:
    done = installation.run(
        "submitter", "submit", "--human", PERSON, "--cloth", GARMENT, "--json", *more
    )
    assert done.stdout, done.stderr
    document: dict[str, object] = json.loads(done.stdout)["task"]
    return document


def test_a_task_is_submitted_recorded_and_delivered(
    installation: Installation, sandbox: Sandbox
) -> None:
    installation.environment |= {"TIMEZONE": "Asia/Kathmandu", "KEEP_INPUTS": "1"}
    installation.start("serve", "receiver", "serve", "--bind", f"127.0.0.1:{installation.port}")
    installation.wait_until_ready()
    document = submit(installation, "--reference", "ORDER-7", "--wait")
    assert document["status"] == "succeeded"
    task = str(document["id"])
    installation.settled(task)

    history = installation.store.queries.history(task)
    moves = [move.status for move in history.transitions]
    assert moves == ["created", "submitted", "processing", "succeeded"]
    states = {delivery.hook: delivery.state for delivery in history.deliveries}
    assert states == dict.fromkeys(("pictures", "mail", "slack"), State.DELIVERED)

    assert set(installation.store.queries.inputs(task)) == {"human", "cloth"}

    (files,) = history.files.values()
    picture = Path(files[0].url)
    assert hashlib.sha256(picture.read_bytes()).hexdigest() == files[0].sha256
    with Image.open(picture) as image:
        assert min(image.size) >= 300

    (mail,) = sandbox.mails()
    assert "ORDER-7" in mail.headers["subject"]
    assert " +0545" in (mail.text or "")
    (message,) = sandbox.slack_messages()
    assert "ORDER-7" in json.dumps(message.payload)
    assert " +0545" in json.dumps(message.payload)

    acknowledged = [entry for entry in sandbox.ledger.entries() if entry.acknowledged]
    assert [entry.status for entry in acknowledged] == ["submitted", "processing", "succeed"]
    assert installation.stop("serve") == 0


def test_a_failure_contains_the_reason(installation: Installation, sandbox: Sandbox) -> None:
    sandbox.next("kling", "failed")
    installation.start("serve", "receiver", "serve", "--bind", f"127.0.0.1:{installation.port}")
    installation.wait_until_ready()
    done = installation.run(
        "submitter", "submit", "--human", PERSON, "--cloth", GARMENT, "--wait", "--json"
    )
    assert done.returncode == 1
    document = json.loads(done.stdout)["task"]
    assert document["status"] == "failed"
    assert document["reason"]
    installation.settled(document["id"])
    (mail,) = sandbox.mails()
    assert document["reason"] in (mail.text or "")


def test_serve_replaces_a_process_that_ends_and_the_others_continue(
    installation: Installation,
) -> None:
    installation.start("serve", "receiver", "serve", "--bind", f"127.0.0.1:{installation.port}")
    installation.wait_until_ready()
    before = processes(installation)
    os.kill(before["worker"], signal.SIGKILL)
    installation.wait_until(lambda: before["worker"] not in processes(installation).values())
    installation.wait_until(lambda: "worker" in processes(installation))
    after = processes(installation)
    assert (after["web"], after["poller"]) == (before["web"], before["poller"])
    assert after["worker"] != before["worker"]
    assert requests.get(f"{installation.url}/readyz", timeout=PATIENCE).ok
    assert installation.stop("serve") == 0
    for pid in (*before.values(), *after.values()):
        assert not Path(f"/proc/{pid}").exists()


def processes(installation: Installation) -> dict[str, int]:
    """Return the process ids of `receiver serve`, by kind."""
    supervisor = installation.running["serve"].pid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    words = {"web": "web", "worker": "worker", "poller": "reconcile"}
    found: dict[str, int] = {}
    for pid in children:
        with suppress(FileNotFoundError):  # it has ended
            command = words_of(pid)
            found |= {
                kind: int(pid)
                for kind, word in words.items()
                if f"\0{word}\0" in command or f".{word}\0" in command  # or its module
            }
    return found
