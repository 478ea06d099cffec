"""A message that is too large for the server is sent with less content in the same attempt."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from receiver.deliveries import File, Notice
from receiver.errors import PermanentFailure, TemporaryFailure
from receiver.events import Media
from receiver.hooks.email import Email
from tests.support.hook_servers import notice, smtp_server
from tests.support.patience import PATIENCE

ONE, TWO = "one@shop.example", "two@shop.example"
STAGES = ["MAIL", "RCPT", "DATA"]
WHOLE: list[str] = ["image/jpeg", "image/png"]
PREVIEW: list[str] = ["image/jpeg"]
TEXT: list[str] = []


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Notice:
    """Return a notice of a noise picture, which neither PNG nor JPEG can make small."""
    path = tmp_path_factory.mktemp("pictures") / "0.png"
    Image.effect_noise((160, 160), 100).convert("RGB").save(path)
    media = Media("image", "https://cdn.example/0.png")
    size = path.stat().st_size
    return notice(media=(media,)).with_files((File("0", str(path), "ab" * 32, size, "image/png"),))


def mail(port: int, **options: Any) -> Email:
    given = {"host": "127.0.0.1", "port": port, "from": "shop@shop.example", "to": [ONE, TWO]}
    return Email("mail", {**given, "deadline": PATIENCE, **options})


def shown(letter: EmailMessage) -> list[str]:
    """Return the pictures in a message, embedded or attached."""
    parts = [part.get_content_type() for part in letter.walk()]
    return [part for part in parts if part.startswith("image/")]


@pytest.fixture(scope="module")
def sizes(told: Notice) -> list[int]:
    """Return the sizes of the three versions, as offered to a server that refuses all."""
    with smtp_server() as box:
        box.largest["DATA"] = 1
        with pytest.raises(PermanentFailure):
            mail(box.port).send(told)
        return box.offered


def test_the_versions_are_offered_from_the_largest_to_the_smallest(sizes: list[int]) -> None:
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(("smaller", "expected"), [(1, PREVIEW), (2, TEXT)])
def test_a_message_above_the_announced_limit_is_not_sent(
    told: Notice, sizes: list[int], smaller: int, expected: list[str]
) -> None:
    with smtp_server(announced_size=sizes[smaller]) as box:
        done = mail(box.port).send(told)
        ((_, letter),) = box.letters
        assert shown(letter) == expected
        assert (box.offered, box.sessions) == ([sizes[smaller]], 1)
        assert done.answer.endswith("; the server refuses more pictures as too large")


@pytest.mark.parametrize("announced_size", [None, 0])
def test_a_server_without_a_limit_gets_the_largest_version(
    told: Notice, announced_size: int | None
) -> None:
    with smtp_server(announced_size=announced_size) as box:
        assert mail(box.port).send(told).answer == "250 2.0.0 OK: queued as 4711"
        ((_, letter),) = box.letters
        assert shown(letter) == WHOLE


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("smaller", "expected"), [(1, PREVIEW), (2, TEXT)])
def test_a_message_refused_as_too_large_is_sent_in_a_smaller_version(
    told: Notice, sizes: list[int], stage: str, smaller: int, expected: list[str]
) -> None:
    with smtp_server() as box:
        box.largest[stage] = sizes[smaller]
        mail(box.port).send(told)
        ((_, letter),) = box.letters
        assert shown(letter) == expected
        assert box.offered == sizes[: smaller + 1]
        assert "https://cdn.example/0.png" in str(letter.get_body(("plain",)))


@pytest.mark.parametrize(
    "answer",
    [
        "552 5.3.4 Message size exceeds fixed limit",  # Postfix
        "552 Message size exceeds maximum permitted",  # Exim
        "552 5.2.3 Your message exceeded Google's message size limits",
        "552-5.2.3 Your message exceeded\r\n552 5.2.3 our limits",
        "552 5.7.0 This attachment is blocked",
        "552 Error: Too much mail data",  # aiosmtpd
        "523 5.3.4 too long",
        "554 5.3.4 Message too big for system",
        "554 Message too large",
        "550 5.2.3 RESOLVER.RST.RecipSizeLimit",  # Exchange
        "550 5.3.4 ROUTING.SizeLimit",
        "550 Message too big!",  # Haraka
        "550 Error reading data, max message size exceeded",
        "550 5.7.1 Message length exceeds administrative limit",
        "501 5.3.4 Declared message size exceeds limit",
        "452 4.3.4 Message size exceeds fixed limit",
    ],
)
def test_servers_report_a_message_as_too_large_in_many_ways(
    told: Notice, sizes: list[int], answer: str
) -> None:
    with smtp_server() as box:
        box.too_large, box.largest["DATA"] = answer, sizes[1]
        mail(box.port).send(told)
        assert [shown(letter) for _, letter in box.letters] == [PREVIEW]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("answer", "family"),
    [
        ("550 5.7.1 this is spam", PermanentFailure),
        ("554 5.7.1 rejected by policy", PermanentFailure),
        ("451 4.7.1 greylisted", TemporaryFailure),
        ("452 4.5.3 Too many recipients", TemporaryFailure),
        ("452 4.3.1 Insufficient system storage", TemporaryFailure),
        ("421 4.3.2 shutting down", TemporaryFailure),
    ],
)
def test_a_message_refused_for_another_reason_is_offered_once(
    told: Notice, stage: str, answer: str, family: type[Exception]
) -> None:
    with smtp_server() as box:
        box.too_large, box.largest[stage] = answer, 1
        with pytest.raises(family):
            mail(box.port).send(told)
        assert len(box.offered) == 1


@pytest.mark.parametrize("stage", STAGES)
def test_if_the_smallest_version_is_too_large_the_status_code_decides(
    told: Notice, stage: str
) -> None:
    for answer, family in (
        ("552 5.3.4 too large", PermanentFailure),
        ("452 4.3.4 too large", TemporaryFailure),
    ):
        with smtp_server() as box:
            box.too_large, box.largest[stage] = answer, 1
            with pytest.raises(family, match="too large"):
                mail(box.port).send(told)
            assert len(box.offered) == 3


def test_only_the_recipient_with_the_lower_limit_gets_a_smaller_version(
    told: Notice, sizes: list[int]
) -> None:
    with smtp_server() as box:
        box.largest[TWO] = sizes[1]
        done = mail(box.port).send(told)
        assert [(envelope.rcpt_tos, shown(letter)) for envelope, letter in box.letters] == [
            ([ONE], WHOLE),
            ([TWO], PREVIEW),
        ]
        assert len({letter["Message-ID"] for _, letter in box.letters}) == 1
        assert "refused:" not in done.answer


def test_a_recipient_that_refuses_every_version_does_not_affect_the_others(told: Notice) -> None:
    with smtp_server() as box:
        box.largest[TWO] = 1
        done = mail(box.port).send(told)
        assert [envelope.rcpt_tos for envelope, _ in box.letters] == [[ONE]]
        assert f"not sent to {TWO}" in done.answer
        assert box.too_large in done.answer


def test_a_smaller_version_is_also_sent_encrypted_and_with_a_login(
    told: Notice, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(Path(__file__).parents[2] / "data/tls/cert.pem"))
    with smtp_server(starttls=True, login=True) as box:
        box.largest["DATA"] = sizes[2]
        mail(box.port, host="localhost", username="shop", password="right").send(told)
        assert [shown(letter) for _, letter in box.letters] == [TEXT]
        assert box.encrypted == [True]


@contextmanager
def hasty_server(answer: bytes, most: int) -> Iterator[tuple[int, list[bytes]]]:
    """A server that responds in the middle of DATA once a message is too large, and disconnects.

    Yields its port, and the messages that it has accepted.
    """
    accepted: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        reading = connection.makefile("rb", buffering=256)
        connection.sendall(b"220 ready\r\n")
        while line := reading.readline():
            if line.upper().startswith(b"DATA"):
                connection.sendall(b"354 go on\r\n")
                letter = b""
                while not letter.endswith(b"\r\n.\r\n"):
                    letter += reading.readline()
                    if len(letter) > most:
                        connection.sendall(answer)
                        return
                accepted.append(letter)
            connection.sendall(b"250 OK\r\n")

    def serve() -> None:
        with suppress(OSError):  # the listener is shut down
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        # The client is still sending when the response arrives.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], accepted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


def test_a_server_that_closes_the_connection_during_a_large_message_is_understood(
    tmp_path: Path,
) -> None:
    """The message has about 4 MB, more than any buffer holds."""
    Image.new("RGB", (980, 980)).save(tmp_path / "0.bmp")
    size = (tmp_path / "0.bmp").stat().st_size
    file = File("0", str(tmp_path / "0.bmp"), "ab" * 32, size, "image/bmp")
    told = notice(media=(Media("image", "https://cdn.example/0"),)).with_files((file,))
    with hasty_server(b"552 5.3.4 too large\r\n", 100_000) as (port, accepted):
        mail(port).send(told)
        (letter,) = accepted
        assert b"image/jpeg" in letter
        assert b"image/bmp" not in letter


def test_a_server_that_closes_the_connection_without_a_response_is_retried(told: Notice) -> None:
    with (
        hasty_server(b"", 1_000) as (port, _),
        pytest.raises(TemporaryFailure, match="closed"),
    ):
        mail(port).send(told)


HTML = '{% for one in pictures %}<img src="cid:{{ one.cid }}" alt="{{ one.index }}">{% endfor %}end'


def test_a_template_for_html_shows_the_previews_of_the_version_that_is_sent(
    told: Notice, sizes: list[int]
) -> None:
    for smaller, expected in enumerate([WHOLE, PREVIEW, TEXT]):
        with smtp_server() as box:
            if smaller:
                box.largest["DATA"] = sizes[smaller]
            mail(box.port, html=HTML).send(told)
            ((_, letter),) = box.letters
        assert shown(letter) == expected
        html = letter.get_body(("html",))
        assert html is not None
        cids = re.findall(r'cid:(\S+)" alt="0"', html.get_content())
        ids = [part["Content-ID"] for part in letter.walk() if part["Content-ID"]]
        assert [f"<{cid}>" for cid in cids] == ids
        assert len(ids) == (smaller < 2)
        assert "ORDER-7 succeeded" in str(letter.get_body(("plain",)))


def test_a_template_for_text_alone_also_replaces_the_html_and_the_previews(told: Notice) -> None:
    with smtp_server() as box:
        mail(box.port, text="{{ task.reference }}: {{ media[0].url }}").send(told)
        mail(box.port, text="{{ task.reference }}", html="<b>{{ id }}</b>").send(told)
        (_, plain), (_, both) = box.letters
    assert [part.get_content_type() for part in plain.walk()] == [
        "multipart/mixed",
        "text/plain",
        "image/png",
    ]
    text = plain.get_body(("plain",))
    assert text is not None
    assert text.get_content().strip() == "ORDER-7: https://cdn.example/0.png"
    assert shown(both) == WHOLE
    html = both.get_body(("html",))
    assert html is not None
    assert html.get_content().strip() == f"<b>{told.id}</b>"


def test_a_subject_is_a_template_only_if_it_contains_jinja_syntax(told: Notice) -> None:
    subjects = {
        "{reference} {status}": "ORDER-7 succeeded",
        "{{ task.reference }} {status}": "ORDER-7 {status}",
        "{% if media %}{{ media | length }} picture{% endif %}": "1 picture",
        "=?utf-8?q?x=0ABcc:_a=40b.c?= {{ id }}": f"= ?utf-8?q?x=0ABcc:_a=40b.c?= {told.id}",
    }
    for subject, expected in subjects.items():
        with smtp_server() as box:
            mail(box.port, subject=subject).send(told)
            ((_, letter),) = box.letters
            assert letter["Subject"] == expected
