"""Results of every type are stored unchanged, with a matching extension."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from receiver.errors import ContentFailure
from receiver.events import Media
from receiver.hooks.download import Download
from tests.support.hook_servers import Page, Site, notice, picture
from tests.support.picture_files import mpo


def box(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + name + data


RESULTS = {
    ("image", "avif", "image/avif"): picture("AVIF", (640, 480)),
    ("image", "bmp", "image/bmp"): picture("BMP"),
    ("image", "tiff", "image/tiff"): picture("TIFF"),
    ("image", "jp2", "image/jp2"): picture("JPEG2000"),
    ("image", "jpg", "image/jpeg"): mpo(),
    ("image", "heic", "image/heic"): box(b"ftyp", b"heic\0\0\0\0heic") + box(b"mdat", bytes(90)),
    ("image", "bin", "application/octet-stream"): bytes(range(256)),
    ("video", "mkv", "video/x-matroska"): b"\x1a\x45\xdf\xa3\x9fB\x82\x88matroska" + bytes(90),
    ("video", "mov", "video/quicktime"): box(b"ftyp", b"qt  \0\0\0\0qt  ") + bytes(90),
    ("video", "avi", "video/x-msvideo"): b"RIFF\x24\0\0\0AVI LIST" + bytes(90),
    ("audio", "ogg", "audio/ogg"): b"OggS\0\2" + bytes(90),
    ("audio", "flac", "audio/flac"): b"fLaC\0\0\0\x22" + bytes(90),
    ("audio", "aac", "audio/aac"): b"\xff\xf1\x50\x80\2\x1f\xfc" + bytes(90),
    ("audio", "m4a", "audio/mp4"): box(b"ftyp", b"M4A \0\0\0\0M4A ") + bytes(90),
}


def test_results_of_every_type_are_stored_with_a_matching_extension(
    site: Site, tmp_path: Path
) -> None:
    media = []
    for number, ((kind, _, _), body) in enumerate(RESULTS.items()):
        # The server's Content-Type is wrong, as it often is.
        site.pages[f"/{number}.png"] = Page(body, headers={"Content-Type": "image/png"})
        media.append(Media(kind, f"{site.url}/{number}.png", str(number)))
    hook = Download("files", {"to": str(tmp_path), "allow_private": True})
    done = hook.send(notice(media=tuple(media)))
    folder = tmp_path / "kling" / "0199f1a2"
    for file, ((_, extension, content_type), body) in zip(done.files, RESULTS.items(), strict=True):
        assert file.url == str(folder / f"{file.media_index}.{extension}")
        assert Path(file.url).read_bytes() == body
        assert file.content_type == content_type


@pytest.mark.parametrize(
    "body",
    [
        b"error code: 1015",
        "<html><title>Désolé</title></html>".encode("utf-16"),
        b'{"error": "expired"}',
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        picture("PNG")[:-40],
        picture("AVIF", (640, 480))[:-500],
        b"\0\0\0\x20ftypheic",
    ],
)
def test_a_file_that_is_not_a_result_is_a_content_failure(
    site: Site, tmp_path: Path, body: bytes
) -> None:
    site.pages["/0.png"] = Page(body, headers={"Content-Type": "image/png"})
    hook = Download("files", {"to": str(tmp_path), "allow_private": True})
    with pytest.raises(ContentFailure):
        hook.send(notice(media=(Media("image", f"{site.url}/0.png"),)))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
