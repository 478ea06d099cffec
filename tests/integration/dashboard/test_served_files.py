"""Result files are shown only if browsers run no scripts in them; others are attachments."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from receiver.deliveries import Attempt, File, State
from receiver.stores.sqlite import SqliteStore
from tests.support.rich_record import MINUTE, tell

BODY = b"<script>alert(1)</script>"  # whatever type the file claims to have


def served(store: SqliteStore, tmp_path: Path, content_type: str, name: str) -> str:
    """Return the URL at which the pages serve a file of this type."""
    tell(store, "t", "succeed", MINUTE)
    delivery = store.outbox.claim("w", MINUTE, 2 * MINUTE, 1)[0]
    path = tmp_path / name
    path.write_bytes(BODY)
    file = File("0", str(path), "cd" * 32, len(BODY), content_type)
    store.outbox.settle(delivery, Attempt(1, 0, 0, "delivered", ""), State.DELIVERED, None, [file])
    return f"/dashboard/files/{delivery.id}/0"


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("image/avif", "0.avif"),
        ("image/heic", "0.heic"),
        ("image/bmp", "0.bmp"),
        ("image/tiff", "0.tiff"),
        ("image/jp2", "0.jp2"),
        ("image/svg+xml", "0.svg"),
        ("audio/ogg", "0.ogg"),
        ("audio/flac", "0.flac"),
        ("audio/mp4", "0.m4a"),
        ("video/x-matroska", "0.mkv"),
        ("application/pdf", "0.pdf"),
        ("application/zip", "0.zip"),
        ("application/octet-stream", "0.bin"),
        ("application/octet-stream", "0.html"),  # by the hook's template
        ("text/html", "0.png"),
        ("IMAGE/PNG", "0.png"),
        ("image/png; charset=x", "0.png"),
        ("", "0"),
    ],
)
def test_a_file_of_another_type_is_an_attachment(
    browser: FlaskClient, store: SqliteStore, tmp_path: Path, content_type: str, name: str
) -> None:
    with browser.get(served(store, tmp_path, content_type, name)) as answer:
        assert answer.data == BODY
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert name in answer.headers["Content-Disposition"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("image/jpeg", "0.jpg"),
        ("image/png", "0.png"),
        ("image/webp", "0.webp"),
        ("video/mp4", "0.mp4"),
        ("audio/mpeg", "0.mp3"),
    ],
)
def test_a_file_that_is_shown_is_not_sniffed(
    browser: FlaskClient, store: SqliteStore, tmp_path: Path, content_type: str, name: str
) -> None:
    with browser.get(served(store, tmp_path, content_type, name)) as answer:
        assert answer.headers["Content-Type"] == content_type
        assert not answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
