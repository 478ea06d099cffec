"""The download hook against a real server, into a real folder."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from PIL import Image

from receiver.errors import (
    ContentFailure,
    DeliveryFailure,
    PermanentFailure,
    ResultGone,
    TemporaryFailure,
)
from receiver.events import Media
from receiver.hooks import content
from receiver.hooks import download as download_hook
from receiver.hooks.download import Download
from receiver.hooks.local_folder import LocalFolder
from tests.support.hook_servers import Page, Site, dripping, notice, picture


def download(to: Path | str, **options: Any) -> Download:
    return Download("files", {"to": str(to), "allow_private": True, **options})


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def image(site: Site, name: str = "0", index: str = "0") -> Media:
    return Media("image", f"{site.url}/{name}?sig=S3CRET", index)


def serve(site: Site, name: str, body: bytes, status: int = 200) -> None:
    site.pages[f"/{name}?sig=S3CRET"] = Page(body, status, {"Content-Type": "text/html"})


def test_a_picture_is_downloaded_and_described(site: Site, tmp_path: Path) -> None:
    content = picture("PNG", (640, 480))
    serve(site, "0", content)
    done = download(tmp_path).send(notice(media=(image(site),)))
    assert done.answer == f"downloaded 1 file, {len(content)} bytes"
    (file,) = done.files
    assert file.url == str(tmp_path / "kling" / "0199f1a2" / "0.png")
    assert Path(file.url).read_bytes() == content
    assert (file.media_index, file.size) == ("0", len(content))
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert file.content_type == "image/png"  # not the type in the header
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


def test_a_second_attempt_writes_the_same_files(site: Site, tmp_path: Path) -> None:
    serve(site, "0", picture())
    hook, told = download(tmp_path), notice(media=(image(site),))
    assert hook.send(told) == hook.send(told)
    assert below(tmp_path) == {"kling/0199f1a2/0.png"}


def test_a_picture_can_be_stored_in_a_bucket(site: Site) -> None:
    content = picture()
    serve(site, "0", content)
    done = download("memory://bucket").send(notice(media=(image(site),)))
    assert done.files[0].url == "memory:///bucket/kling/0199f1a2/0.png"
    with fsspec.open(done.files[0].url, "rb") as opened:
        assert opened.read() == content


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 412, 418])
def test_an_expired_url_is_retried_because_it_may_be_replaced(
    site: Site, tmp_path: Path, status: int
) -> None:
    serve(site, "0", b"<Error>", status)
    with pytest.raises(ResultGone) as caught:
        download(tmp_path).send(notice(media=(image(site),)))
    assert str(caught.value) == f"the result URL answered {status}: it may have expired"
    assert below(tmp_path) == set()


@pytest.mark.parametrize(
    ("status", "family"),
    [
        *((status, ResultGone) for status in (201, 202, 204, 205, 207, 226)),
        *((status, ResultGone) for status in (300, 301, 302, 304, 399)),
        *((status, ResultGone) for status in (413, 416, 421, 422, 423, 424, 426, 428, 431, 451)),
        *((status, ResultGone) for status in (470, 498, 499, 600, 999)),
        *((status, TemporaryFailure) for status in (408, 425, 429)),
        *((status, TemporaryFailure) for status in (500, 501, 502, 503, 504, 520, 529, 599)),
    ],
)
def test_only_an_unavailable_server_is_a_temporary_failure(
    site: Site, tmp_path: Path, status: int, family: type[Exception]
) -> None:
    serve(site, "0", picture(), status)
    with pytest.raises(family, match=f"the result URL answered {status}") as caught:
        download(tmp_path).send(notice(media=(image(site),)))
    assert type(caught.value) is family
    assert below(tmp_path) == set()


@pytest.mark.parametrize("status", [403, 429, 503, 202])
def test_retry_after_of_a_result_is_obeyed(site: Site, tmp_path: Path, status: int) -> None:
    site.pages["/0?sig=S3CRET"] = Page(b"", status, {"Retry-After": "77"})
    for media in ((image(site),), (image(site), image(site, "none", "1"))):
        with pytest.raises(DeliveryFailure) as caught:
            download(tmp_path).send(notice(media=media))
        assert getattr(caught.value, "retry_after", None) == 77.0


@pytest.mark.parametrize(
    "text",
    [
        b"<!doctype html><title>Sorry</title>",
        b"<html><form action=/login>",
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        b'\xef\xbb\xbf{"error": "expired"}',
        b"",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_an_error_page_served_as_a_success_leaves_no_file(
    site: Site, tmp_path: Path, text: bytes
) -> None:
    serve(site, "0", text)
    with pytest.raises(ResultGone):
        download(tmp_path).send(notice(media=(image(site),)))
    assert below(tmp_path) == set()


@pytest.mark.parametrize(
    "location",
    ["/login", "/0?sig=S3CRET", "ftp://127.0.0.1/", "https://", "//a b/", "data:image/png,x"],
)
def test_a_redirect_to_anything_but_the_result_requests_a_fresh_url(
    site: Site, tmp_path: Path, location: str
) -> None:
    site.pages["/login"] = Page(b"<html>Please log in")
    site.pages["/0?sig=S3CRET"] = Page(b"", 302, {"Location": location})
    with pytest.raises(ResultGone):
        download(tmp_path).send(notice(media=(image(site),)))
    assert below(tmp_path) == set()


@pytest.mark.parametrize("url", ["ftp://cdn.example/0.png", "/0.png", "", "https://a b/0.png"])
def test_an_unusable_url_requests_a_fresh_one(tmp_path: Path, url: str) -> None:
    with pytest.raises(ResultGone, match="not an http or https URL"):
        download(tmp_path).send(notice(media=(Media("image", url),)))


def test_a_redirect_to_an_internal_address_is_a_permanent_failure(
    site: Site, tmp_path: Path
) -> None:
    other = site.url.replace("127.0.0.1", "127.0.0.2")
    site.pages["/0?sig=S3CRET"] = Page(b"", 302, {"Location": f"{other}/b"})
    with pytest.raises(PermanentFailure, match="not a public address"):
        download(tmp_path).send(notice(media=(image(site),)))


SIZE = len(picture())


@pytest.mark.parametrize(
    ("status", "content_range"),
    [
        (203, None),
        (206, f"bytes 0-{SIZE - 1}/{SIZE}"),
        (206, f"Bytes  0-{SIZE - 1}/{SIZE} "),
        # The header does not say that the file is complete, but the picture shows it.
        (206, None),
        (206, ""),
        (206, f"bytes 0-{SIZE - 1}/*"),
        (206, "bytes */*"),
        (206, f"bytes 0-{SIZE + 6}/{SIZE + 7}"),
        (206, "bytes 0-" + "9" * 5_000 + "/" + "9" * 5_000),
    ],
)
def test_a_complete_picture_is_accepted_with_any_success_status(
    site: Site, tmp_path: Path, status: int, content_range: str | None
) -> None:
    headers = {} if content_range is None else {"Content-Range": content_range}
    site.pages["/0?sig=S3CRET"] = Page(picture(), status, headers)
    assert download(tmp_path).send(notice(media=(image(site),))).files
    assert below(tmp_path) == {"kling/0199f1a2/0.png"}


CLIP = b"\0\0\0\x20ftypisom\0\0\2\0" + b"x" * 1000


@pytest.mark.parametrize(
    ("content_range", "is_taken"),
    [
        (f"bytes 0-{len(CLIP) - 1}/{len(CLIP)}", True),
        (f"bytes 0-{len(CLIP) - 1}/{2 * len(CLIP)}", False),  # the first half
        (f"bytes {len(CLIP)}-{2 * len(CLIP) - 1}/{2 * len(CLIP)}", False),  # the second half
        (f"bytes 0-{len(CLIP) - 1}/*", False),  # unknown
        (f"bytes 0-{len(CLIP) + 9}/{len(CLIP) + 10}", False),  # it announces more than it contains
        (None, False),
    ],
)
def test_a_part_of_a_file_is_not_mistaken_for_the_whole(
    site: Site, tmp_path: Path, content_range: str | None, is_taken: bool
) -> None:
    headers = {} if content_range is None else {"Content-Range": content_range}
    site.pages["/0?sig=S3CRET"] = Page(CLIP, 206, headers)
    told = notice(media=(Media("video", f"{site.url}/0?sig=S3CRET"),))
    if is_taken:
        assert download(tmp_path).send(told).files
    else:
        with pytest.raises(ResultGone, match="206"):
            download(tmp_path).send(told)
    assert len(below(tmp_path)) == is_taken


@pytest.mark.parametrize(
    "content_range", [f"bytes 0-{SIZE - 1}/{SIZE + 1}", f"bytes 1-{SIZE}/{SIZE + 1}", "bytes 0-0/2"]
)
def test_a_partial_response_is_refused_even_if_it_decodes(
    site: Site, tmp_path: Path, content_range: str
) -> None:
    site.pages["/0?sig=S3CRET"] = Page(picture(), 206, {"Content-Range": content_range})
    with pytest.raises(ResultGone, match="206 with only a part of the result"):
        download(tmp_path).send(notice(media=(image(site),)))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP", "x-gzip", "br", "zstd", "compress"])
def test_a_body_that_does_not_match_its_content_encoding_is_a_content_failure(
    site: Site, tmp_path: Path, coding: str
) -> None:
    site.pages["/0?sig=S3CRET"] = Page(picture(), 200, {"Content-Encoding": coding})
    with pytest.raises(ResultGone, match="compressed"):
        download(tmp_path).send(notice(media=(image(site),)))
    assert below(tmp_path) == set()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
        ("binary", bytes),
        ("utf-8", bytes),
        ("aws-chunked", bytes),
        ("", bytes),
    ],
)
def test_a_picture_with_a_content_encoding_is_decoded(
    site: Site, tmp_path: Path, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    site.pages["/0?sig=S3CRET"] = Page(pack(picture()), 200, {"Content-Encoding": coding})
    download(tmp_path).send(notice(media=(image(site),)))
    assert (tmp_path / "kling/0199f1a2/0.png").read_bytes() == picture()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n",
    ],
)
def test_a_truncated_body_is_a_temporary_failure(tmp_path: Path, answer: bytes) -> None:
    with dripping(answer + picture()[:40], pause=0) as port:
        told = notice(media=(Media("image", f"http://127.0.0.1:{port}/0.png"),))
        with pytest.raises(TemporaryFailure, match="connection broke"):
            download(tmp_path).send(told)
    assert below(tmp_path) == set()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_downloaded_files_are_recorded_and_only_the_rest_is_fetched_again(
    site: Site, tmp_path: Path, failing: int
) -> None:
    names = ["0", "1", "2"]
    for name in names:
        serve(site, name, picture())
    serve(site, names[failing], b"", 403)
    hook = download(tmp_path)
    told = notice(media=tuple(image(site, name, name) for name in names))
    with pytest.raises(ResultGone) as caught:
        hook.send(told)
    assert str(caught.value) == (
        f"2 of 3 downloaded; output {failing + 1}: the result URL answered 403: it may have expired"
    )
    made = caught.value.files
    assert [file.media_index for file in made] == names[:failing] + names[failing + 1 :]
    serve(site, names[failing], picture())
    site.requests.clear()
    done = hook.send(replace(told, made=made))
    assert [request.path for request in site.requests] == [f"/{failing}?sig=S3CRET"]
    assert [file.media_index for file in done.files] == [names[failing]]
    assert below(tmp_path) == {f"kling/0199f1a2/{name}.png" for name in names}


@pytest.mark.parametrize(
    ("others", "family"),
    [
        ([403, 503], ResultGone),  # a server that refuses works
        ([503, 500], TemporaryFailure),
        ([200, 503], TemporaryFailure),  # see `deliver`: it returned a file
        (["large", 503], TemporaryFailure),
        (["large", 403], ResultGone),
        (["large", "large"], PermanentFailure),
        ([200, "large"], PermanentFailure),  # downloaded files are recorded nevertheless
    ],
)
def test_the_failures_of_several_outputs_are_combined(
    site: Site, tmp_path: Path, others: list[int | str], family: type[Exception]
) -> None:
    for name, answer in enumerate(others):
        if answer == "large":
            serve(site, str(name), b"x" * 100_001)
        else:
            serve(site, str(name), picture(), int(answer))
    media = tuple(image(site, str(name), str(name)) for name in range(len(others)))
    with pytest.raises(DeliveryFailure) as caught:
        download(tmp_path, max_bytes=100_000).send(notice(media=media))
    assert type(caught.value) is family
    assert len(caught.value.files) == len(below(tmp_path)) == others.count(200)


def test_a_slow_output_leaves_time_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each output would use all of its time, according to a scripted clock."""
    shares: list[float] = []

    def stream(url: str, *, deadline: float, **_: object) -> Any:
        shares.append(deadline)
        raise TemporaryFailure(f"{url}: no complete answer within {deadline:g} s")

    clock = SimpleNamespace(monotonic=lambda: sum(shares))
    monkeypatch.setattr(download_hook, "time", clock)
    monkeypatch.setattr("receiver.outgoing.stream", stream)
    media = tuple(Media("image", "http://cdn.example/", index) for index in "012")
    with pytest.raises(TemporaryFailure, match="0 of 3 downloaded; output 1: "):
        download(tmp_path, deadline=100).send(notice(media=media))
    assert shares == [50, 25, 25]
    shares.clear()
    with pytest.raises(TemporaryFailure, match="no complete answer within 100 s"):
        download(tmp_path, deadline=100).send(notice(media=media[:1]))


def test_a_result_that_breaks_the_code_costs_only_itself(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = content.inspect

    def breaks(path: Path, kind: str) -> Any:
        if kind == "odd":
            raise ZeroDivisionError("in a library")
        return inspect(path, kind)

    monkeypatch.setattr(content, "inspect", breaks)
    serve(site, "0", picture())
    odd = Media("odd", f"{site.url}/0?sig=S3CRET", "1")
    with pytest.raises(ContentFailure, match="output 1: ZeroDivisionError: in a lib") as caught:
        download(tmp_path).send(notice(media=(odd, image(site))))
    assert [file.media_index for file in caught.value.files] == ["0"]


@pytest.mark.parametrize(
    ("number", "family"),
    [
        (errno.ENOSPC, TemporaryFailure),
        (errno.EDQUOT, TemporaryFailure),
        (errno.EROFS, TemporaryFailure),
        (errno.EACCES, TemporaryFailure),
        (errno.EIO, TemporaryFailure),
        (errno.ENAMETOOLONG, ContentFailure),
        (errno.EISDIR, ContentFailure),
        (errno.EFBIG, ContentFailure),
    ],
)
def test_a_storage_error_is_a_temporary_failure(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    family: type[Exception],
) -> None:
    def put(*_: object) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(LocalFolder, "put", put)
    serve(site, "0", picture())
    with pytest.raises(DeliveryFailure, match="cannot be written") as caught:
        download(tmp_path).send(notice(media=(image(site),)))
    assert type(caught.value) is family


def test_a_name_that_is_too_long_does_not_block_other_results(site: Site, tmp_path: Path) -> None:
    serve(site, "0", picture())
    path = "{task}" + 4 * "{reference}-{index}" + ".{extension}"
    hook = download(tmp_path, path=path)
    with pytest.raises(ContentFailure, match="File name too long"):
        hook.send(notice(media=(image(site),), reference="r" * 64))
    assert hook.send(notice(media=(image(site),), reference="r")).files


def test_an_exception_of_the_storage_library_is_a_temporary_failure(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class HttpError(Exception):
        """Not an OSError, as in some of fsspec's file systems."""

    def put_file(*_: object, **__: object) -> None:
        raise HttpError("503, backend error")

    serve(site, "0", picture())
    hook = download("memory://bucket")
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.put_file", put_file)
    with pytest.raises(TemporaryFailure, match="cannot be written: HttpError: 503, backend error"):
        hook.send(notice(media=(image(site),)))


def test_a_failed_attempt_does_not_change_the_older_file(site: Site, tmp_path: Path) -> None:
    content = picture()
    serve(site, "0", content)
    hook, told = download(tmp_path), notice(media=(image(site),))
    hook.send(told)
    serve(site, "0", picture("PNG", (400, 400))[:-500])
    with pytest.raises(ContentFailure):
        hook.send(told)
    assert (tmp_path / "kling/0199f1a2/0.png").read_bytes() == content
    assert below(tmp_path) == {"kling/0199f1a2/0.png"}


def test_a_download_that_is_too_large_is_refused_and_leaves_no_file(
    site: Site, tmp_path: Path
) -> None:
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
    with pytest.raises(
        TemporaryFailure, match=r"not begun, because the deadline of 150 s passed"
    ) as caught:
        hook.send(notice(media=media))
    assert caught.value.timed_out
    assert len(site.requests) == 2


def test_internal_addresses_are_refused_unless_allowed(site: Site, tmp_path: Path) -> None:
    serve(site, "0", picture())
    with pytest.raises(PermanentFailure, match="not a public address") as caught:
        Download("files", {"to": str(tmp_path)}).send(notice(media=(image(site),)))
    assert "S3CRET" not in str(caught.value)
    assert site.requests == []


def test_an_unwritable_folder_is_retried(site: Site, tmp_path: Path) -> None:
    (tmp_path / "kling").write_text("a file where a folder should be")
    serve(site, "0", picture())
    with pytest.raises(TemporaryFailure, match=r"cannot be written: (Not a directory|File exists)"):
        download(tmp_path).send(notice(media=(image(site),)))


def test_a_provider_cannot_choose_the_folder(site: Site, tmp_path: Path) -> None:
    serve(site, "0", picture())
    hook = download(tmp_path / "files")
    hook.send(notice(media=(image(site, index="../../../evil"),), reference="../.."))
    assert below(tmp_path) == {"files/kling/0199f1a2/_.._.._evil.png"}
