"""The e-mail hook against a real SMTP server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import PermanentFailure, TemporaryFailure, TimedOut
from receiver.events import Media
from receiver.hooks.download import Download
from receiver.hooks.email import Email
from tests.support.hook_servers import (
    CERT,
    Endless,
    Mailbox,
    Page,
    Site,
    dripping,
    notice,
    picture,
    smtp_server,
)


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERT))


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with smtp_server() as made:
        yield made


def mail(port: int, **options: Any) -> Email:
    options = {"host": "localhost", "to": ["one@shop.example", "two@shop.example"], **options}
    return Email("mail", {"port": port, "from": "Shop <shop@shop.example>", **options})


def test_a_message_arrives(box: Mailbox) -> None:
    done = mail(box.port).send(notice())
    assert done.answer == "250 2.0.0 OK: queued as 4711"
    ((envelope, letter),) = box.letters
    assert envelope.mail_from == "shop@shop.example"
    assert envelope.rcpt_tos == ["one@shop.example", "two@shop.example"]
    assert letter["Subject"] == "ORDER-7 succeeded"
    assert letter["To"] == "one@shop.example, two@shop.example"


def test_a_single_recipient_may_be_a_string(box: Mailbox) -> None:
    mail(box.port, to="one@shop.example", subject="[{provider}] {task}").send(notice())
    ((envelope, letter),) = box.letters
    assert envelope.rcpt_tos == ["one@shop.example"]
    assert letter["Subject"] == "[kling] 0199f1a2"


def test_every_attempt_has_the_same_message_id(box: Mailbox) -> None:
    hook = mail(box.port)
    hook.send(notice())
    hook.send(notice())
    assert len({letter["Message-ID"] for _, letter in box.letters}) == 1
    assert len(box.letters) == 2


def test_the_downloaded_picture_is_embedded(box: Mailbox, site: Site, tmp_path: Path) -> None:
    content = picture()
    site.pages["/0.png"] = Page(content)
    told = notice(media=(Media("image", f"{site.url}/0.png"),))
    done = Download("files", {"to": str(tmp_path), "allow_private": True}).send(told)
    mail(box.port).send(told.with_files(done.files))
    ((_, letter),) = box.letters
    (preview,) = [part for part in letter.walk() if part.get_content_type() == "image/jpeg"]
    assert preview["Content-ID"].strip("<>") in str(letter.get_body(("html",)))
    assert [part.get_content() for part in letter.iter_attachments()] == [content]


def test_starttls_is_used_when_offered() -> None:
    with smtp_server(starttls=True) as box:
        mail(box.port).send(notice())
        mail(box.port, starttls="never").send(notice())
        assert box.encrypted == [True, False]


def test_tls_can_be_used_from_the_first_byte() -> None:
    with smtp_server(tls=True) as box:
        mail(box.port, tls=True).send(notice())
        assert box.encrypted == [True]


def test_starttls_always_sends_nothing_without_tls(box: Mailbox) -> None:
    with pytest.raises(TemporaryFailure, match="offers no STARTTLS"):
        mail(box.port, starttls="always").send(notice())
    assert box.letters == []


def test_an_untrusted_certificate_prevents_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with smtp_server(starttls=True) as box:
        with pytest.raises(TemporaryFailure, match="the certificate is not trusted"):
            mail(box.port).send(notice())
        assert box.letters == []


def test_a_login_is_sent_over_tls() -> None:
    with smtp_server(starttls=True, login=True) as box:
        mail(box.port, username="shop", password="right").send(notice())
        assert (box.logins, box.encrypted) == ([("shop", "right")], [True])


def test_a_login_may_be_sent_unencrypted_on_loopback() -> None:
    with smtp_server(login=True) as box:
        mail(box.port, username="shop", password="right").send(notice())
        assert (box.logins, box.encrypted) == ([("shop", "right")], [False])


def test_a_login_is_never_sent_unencrypted_to_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("receiver.hooks.smtp.is_loopback", lambda _: False)
    with smtp_server(login=True) as box:
        with pytest.raises(TemporaryFailure, match="the password was not sent"):
            mail(box.port, username="shop", password="right").send(notice())
        assert box.logins == []


def test_a_wrong_password_is_a_temporary_failure() -> None:
    with smtp_server(starttls=True, login=True) as box:
        with pytest.raises(TemporaryFailure, match="refused the login: 535") as caught:
            mail(box.port, username="shop", password="wr0ng").send(notice())
        assert "wr0ng" not in str(caught.value)


def test_a_missing_login_is_a_temporary_failure() -> None:
    with (
        smtp_server(starttls=True, login=True) as box,
        pytest.raises(TemporaryFailure, match="530"),
    ):
        mail(box.port).send(notice())


def test_a_server_that_does_not_support_logins_is_reported(box: Mailbox) -> None:
    with pytest.raises(TemporaryFailure, match="offers no login"):
        mail(box.port, username="shop", password="right").send(notice())


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    ("answer", "family"),
    [
        ("451 4.3.0 try later", TemporaryFailure),
        ("550 5.7.1 not here", PermanentFailure),
        ("530 5.7.0 log in first", TemporaryFailure),
    ],
)
def test_the_status_code_of_the_server_decides(
    box: Mailbox, command: str, answer: str, family: type[Exception]
) -> None:
    box.refuse[command] = answer
    with pytest.raises(family, match=re.escape(answer)):
        mail(box.port).send(notice())
    assert box.letters == []


def test_if_one_recipient_is_refused_temporarily_the_message_is_retried(box: Mailbox) -> None:
    box.refuse = {"one@shop.example": "550 unknown", "two@shop.example": "450 mailbox busy"}
    with pytest.raises(TemporaryFailure, match=r"one@shop\.example \(550 unknown\); two@shop"):
        mail(box.port).send(notice())


def test_a_message_accepted_for_some_recipients_is_delivered_and_names_the_others(
    box: Mailbox,
) -> None:
    box.refuse = {"two@shop.example": "550 5.1.1 no such user"}
    done = mail(box.port).send(notice())
    assert done.answer == (
        "250 2.0.0 OK: queued as 4711; refused: two@shop.example (550 5.1.1 no such user)"
    )


def test_responses_after_the_message_was_accepted_change_nothing(box: Mailbox) -> None:
    box.refuse["QUIT"] = "421 4.4.2 too busy to say goodbye"
    assert mail(box.port).send(notice()).answer.startswith("250")
    assert len(box.letters) == 1


def test_a_non_ascii_address_needs_a_server_that_supports_it(box: Mailbox) -> None:
    mail(box.port, to="zoë@shop.example").send(notice(reference="Zoë"))
    ((envelope, letter),) = box.letters
    assert envelope.rcpt_tos == ["zoë@shop.example"]
    assert letter["Subject"] == "Zoë succeeded"


def test_a_server_that_refuses_the_connection_is_retried() -> None:
    with (
        dripping(b"554 5.3.2 go away\r\n", pause=0, greeting=True) as port,
        pytest.raises(TemporaryFailure, match=r"answered 554 5\.3\.2 go away"),
    ):
        mail(port).send(notice())


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({}, Endless(b"220-")),
        ({"tls": True}, Endless(b"\x16\x03\x03\x40\x00", b"\0")),
    ],
)
def test_a_slow_server_is_abandoned_at_the_deadline(
    options: dict[str, Any], answer: Endless
) -> None:
    with (
        dripping(answer, greeting=True) as port,
        pytest.raises(TimedOut, match=r"no complete answer within 0\.5 s"),
    ):
        mail(port, deadline=0.5, **options).send(notice())


def test_a_closed_port_is_explained() -> None:
    with pytest.raises(TemporaryFailure, match="localhost: Connection refused"):
        mail(1).send(notice())
