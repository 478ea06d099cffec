"""The sandbox's mail server and Slack refuse a message, and our hooks react."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image

from receiver.deliveries import File, Notice
from receiver.events import Media
from receiver.hooks.email import Email
from receiver.hooks.slack import Slack
from sandbox.engine import CreateRequest
from sandbox.server import Behaviour, Sandbox
from tests.support.hook_servers import notice
from tests.support.patience import PATIENCE

IMAGES = Path(__file__).parents[3] / "sandbox" / "images"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(behaviour=Behaviour(pace=60)) as made:
        yield made


def play(sandbox: Sandbox, scenario: str) -> None:
    person, garment = (IMAGES / name for name in ("person.jpg", "garment.png"))
    order = CreateRequest("kling", "model", person.read_bytes(), garment.read_bytes(), None, None)
    sandbox.play(order, scenario)


def send(sandbox: Sandbox, size: int) -> str | None:
    """Send a mail; return the SIZE that the server announced. Raises SMTPDataError."""
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port) as smtp:
        smtp.ehlo()
        announced = smtp.esmtp_features.get("size")
        letter = "Subject: x\r\n\r\n" + "x\r\n" * (size // 3)
        smtp.sendmail("a@shop.example", ["b@shop.example"], letter)
        return announced


def test_a_mail_server_may_announce_a_limit(sandbox: Sandbox) -> None:
    unlimited = send(sandbox, 100)
    play(sandbox, "mail-size-limit")
    with pytest.raises(smtplib.SMTPDataError) as caught:
        send(sandbox, 200_000)
    assert caught.value.smtp_code == 552
    assert send(sandbox, 100) == "150000"
    assert send(sandbox, 200_000) == unlimited
    assert len(sandbox.mails()) == 3


def test_a_mail_server_may_refuse_a_large_mail_without_announcing_a_limit(
    sandbox: Sandbox,
) -> None:
    unlimited = send(sandbox, 100)
    play(sandbox, "mail-too-large")
    with pytest.raises(smtplib.SMTPDataError):
        send(sandbox, 30_000)
    assert send(sandbox, 100) == unlimited
    assert send(sandbox, 30_000) == unlimited


def test_slack_may_refuse_the_blocks_of_a_message(sandbox: Sandbox) -> None:
    play(sandbox, "slack-refuses-blocks")
    blocks = [{"type": "divider"}]
    url = sandbox.env()["SANDBOX_SLACK_URL"]
    answers = [
        requests.post(url, json=payload, timeout=PATIENCE)
        for payload in ({"text": "x", "blocks": blocks}, {"text": "x"}, {"blocks": blocks})
    ]
    assert [answer.status_code for answer in answers] == [400, 200, 200]
    assert answers[0].text == "invalid_blocks"
    assert [message.payload for message in sandbox.slack_messages()] == [
        {"text": "x"},
        {"blocks": blocks},
    ]


@pytest.fixture
def told(tmp_path: Path) -> Notice:
    """Return a notice of a picture as large as the sandbox's own results."""
    path = tmp_path / "0.png"
    Image.effect_noise((300, 300), 100).convert("RGB").save(path)
    size = path.stat().st_size
    media = Media("image", "https://cdn.example/0.png")
    return notice(media=(media,)).with_files((File("0", str(path), "ab" * 32, size, "image/png"),))


@pytest.mark.parametrize(
    ("scenario", "parts"),
    [
        ("succeed", ["image/jpeg", "image/png"]),
        ("mail-size-limit", ["image/jpeg"]),
        ("mail-too-large", []),
    ],
)
def test_the_email_hook_sends_the_version_that_the_server_accepts(
    sandbox: Sandbox, told: Notice, scenario: str, parts: list[str]
) -> None:
    play(sandbox, scenario)
    options = {"host": "127.0.0.1", "port": sandbox.smtp_port, "from": "a@shop.example"}
    Email("mail", {**options, "to": "b@shop.example"}).send(told)
    (mail,) = sandbox.mails()
    assert [part.content_type for part in mail.parts] == parts


def test_the_slack_hook_sends_text_if_the_blocks_are_refused(
    sandbox: Sandbox, told: Notice
) -> None:
    play(sandbox, "slack-refuses-blocks")
    Slack("chat", {"url": sandbox.env()["SANDBOX_SLACK_URL"], "allow_private": True}).send(told)
    (message,) = sandbox.slack_messages()
    assert "<https://cdn.example/0.png|image>" in message.payload["text"]
