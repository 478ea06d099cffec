"""The download hook against a real server, into a real folder."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from PIL import Image

from receiver.errors import PermanentFailure, TemporaryFailure
from receiver.events import Media
from receiver.hooks import download as download_hook
from receiver.hooks.download import Download
from tests.support.hook_servers import Page, Site, notice, picture


def download(to: Path | str, **options: Any) -> Download:
    return Download("files", {"to": str(to), "allow_private": True, **options})


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def image(site: Site, name: str = "0", index: str = "0") -> Media:
    return Media("image", f"{site.url}/{name}?sig=S3CRET", index)


def serve(site: Site, name: str, body: bytes, status: int = 200) -> None:
    site.pages[f"/{name}?sig=S3CRET"] = Page(body, status, {"Content-Type": "text/html"})


def test_a_picture_is_fetched_whole_and_described(site: Site, tmp_path: Path) -> None:
    content = picture("PNG", (640, 480))
    serve(site, "0", content)
    done = download(tmp_path).send(notice(media=(image(site),)))
    assert done.answer == f"downloaded 1 file(s), {len(content)} bytes"
    (file,) = done.files
    assert file.url == str(tmp_path / "kling" / "0199f1a2" / "0.png")
    assert Path(file.url).read_bytes() == content
    assert (file.media_index, file.size) == ("0", len(content))
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert file.content_type == "image/png"  # not what the header said
    assert file.thumbnail is not None
    with Image.open(io.BytesIO(file.thumbnail)) as small:
        assert (small.format, small.size) == ("JPEG", (320, 240))
    assert below(tmp_path) == {"kling/0199f1a2/0.png"}


def test_all_outputs_are_fetched(site: Site, tmp_path: Path) -> None:
    clip = b"\0\0\0\x20ftypisom\0\0\2\0" + b"x" * 1000
    serve(site, "0", picture("JPEG"))
    serve(site, "1", clip)
    media = (image(site), Media("video", f"{site.url}/1?sig=S3CRET", "vid-1"))
    done = download(tmp_path).send(notice(media=media))
    assert below(tmp_path) == {"kling/0199f1a2/0.jpg", "kling/0199f1a2/vid-1.mp4"}
    assert [file.media_index for file in done.files] == ["0", "vid-1"]
    assert done.files[1].thumbnail is None


def test_a_second_attempt_leads_to_the_same_files(site: Site, tmp_path: Path) -> None:
    serve(site, "0", picture())
    hook, told = download(tmp_path), notice(media=(image(site),))
    assert hook.send(told) == hook.send(told)
    assert below(tmp_path) == {"kling/0199f1a2/0.png"}


def test_it_goes_into_a_bucket_as_well(site: Site) -> None:
    content = picture()
    serve(site, "0", content)
    done = download("memory://bucket").send(notice(media=(image(site),)))
    assert done.files[0].url == "memory:///bucket/kling/0199f1a2/0.png"
    with fsspec.open(done.files[0].url, "rb") as opened:
        assert opened.read() == content


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_expired_url_may_be_replaced_and_is_tried_again(
    site: Site, tmp_path: Path, status: int
) -> None:
    serve(site, "0", b"<Error>", status)
    with pytest.raises(TemporaryFailure) as caught:
        download(tmp_path).send(notice(media=(image(site),)))
    assert str(caught.value) == f"the result URL answered {status}: it may have expired"
    assert below(tmp_path) == set()


@pytest.mark.parametrize(
    ("status", "family"),
    [(500, TemporaryFailure), (204, TemporaryFailure), (400, PermanentFailure)],
)
def test_another_answer_than_200_is_a_failure(
    site: Site, tmp_path: Path, status: int, family: type[Exception]
) -> None:
    serve(site, "0", b"", status)
    with pytest.raises(family, match=f"the result URL answered {status}"):
        download(tmp_path).send(notice(media=(image(site),)))


def test_an_error_page_served_as_a_success_leaves_no_file(site: Site, tmp_path: Path) -> None:
    serve(site, "0", b"<!doctype html><title>Sorry</title>")
    with pytest.raises(TemporaryFailure, match="page of text"):
        download(tmp_path).send(notice(media=(image(site),)))
    assert below(tmp_path) == set()


def test_a_failed_attempt_leaves_the_older_file_alone(site: Site, tmp_path: Path) -> None:
    content = picture()
    serve(site, "0", content)
    hook, told = download(tmp_path), notice(media=(image(site),))
    hook.send(told)
    serve(site, "0", picture("PNG", (400, 400))[:-500])
    with pytest.raises(TemporaryFailure, match="broken"):
        hook.send(told)
    assert (tmp_path / "kling/0199f1a2/0.png").read_bytes() == content
    assert below(tmp_path) == {"kling/0199f1a2/0.png"}


def test_a_download_too_large_is_refused_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    serve(site, "0", picture() + b"x" * 200_000)
    with pytest.raises(PermanentFailure, match="larger than the 100000 bytes"):
        download(tmp_path, max_bytes=100_000).send(notice(media=(image(site),)))
    assert below(tmp_path) == set()


def test_all_outputs_together_have_one_deadline(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each output takes 100 seconds of a scripted clock: enough for one of them, not for three."""
    clock = SimpleNamespace(monotonic=lambda: 100.0 * len(site.requests))
    monkeypatch.setattr(download_hook, "time", clock)
    for number in range(3):
        serve(site, str(number), picture())
    media = tuple(image(site, str(number), str(number)) for number in range(3))
    hook = download(tmp_path, deadline=150)
    for one in media:
        site.requests.clear()
        assert hook.send(notice(media=(one,))).files
    site.requests.clear()
    with pytest.raises(TemporaryFailure, match=r"no time left of the 150 s"):
        hook.send(notice(media=media))
    assert len(site.requests) == 2


def test_internal_addresses_are_refused_unless_allowed(site: Site, tmp_path: Path) -> None:
    serve(site, "0", picture())
    with pytest.raises(PermanentFailure, match="not a public address") as caught:
        Download("files", {"to": str(tmp_path)}).send(notice(media=(image(site),)))
    assert "S3CRET" not in str(caught.value)
    assert site.requests == []


def test_a_place_that_cannot_be_written_is_tried_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "kling").write_text("a file where a folder should be")
    serve(site, "0", picture())
    with pytest.raises(TemporaryFailure, match=r"cannot be written: (Not a directory|File exists)"):
        download(tmp_path).send(notice(media=(image(site),)))


def test_a_provider_cannot_choose_the_folder(site: Site, tmp_path: Path) -> None:
    serve(site, "0", picture())
    hook = download(tmp_path / "files")
    hook.send(notice(media=(image(site, index="../../../evil"),), reference="../.."))
    assert below(tmp_path) == {"files/kling/0199f1a2/_.._.._evil.png"}
