"""A compressed body is decompressed up to a limit, in every format that senders use."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from receiver import providers
from receiver.errors import BodyTooLong, NotJson
from receiver.events import Callback
from receiver.tasks import Status
from receiver.text.content_encoding import decoded
from receiver.text.limits import MAX_BODY, MAX_CODINGS, MAX_GZIP_MEMBERS
from tests.support.samples import body, callback

TEXT = body("succeed", task_status_msg="é" * 2_000)


def raw_deflate(data: bytes, level: int = 9, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 8, strategy)
    return stream.compress(data) + stream.flush()


def flushed_often(data: bytes) -> bytes:
    """Return gzip data as a server writes it when it flushes every part of a response."""
    stream = zlib.compressobj(wbits=31)
    parts = [
        stream.compress(data[at : at + 100]) + stream.flush(zlib.Z_FULL_FLUSH)
        for at in range(0, len(data), 100)
    ]
    return b"".join(parts) + stream.flush()


def with_name(data: bytes) -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile("callback.json", "wb", fileobj=file) as stream:
        stream.write(data)
    return file.getvalue()


FORMS: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "gzip, not compressed": ("gzip", gzip.compress(TEXT, 0)),
    "gzip with a file name": ("gzip", with_name(TEXT)),
    "gzip that was flushed often": ("gzip", flushed_often(TEXT)),
    "gzip of two members": ("gzip", gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:])),
    "gzip with an empty member": ("gzip", gzip.compress(b"") + gzip.compress(TEXT)),
    "gzip followed by zeros": ("gzip", gzip.compress(TEXT) + b"\0" * 500),
    "gzip followed by a line break": ("gzip", gzip.compress(TEXT) + b"\r\n"),
    "x-gzip": ("x-gzip", gzip.compress(TEXT)),
    "gzip in capitals": (" GZIP ", gzip.compress(TEXT)),
    "deflate with the zlib header": ("deflate", zlib.compress(TEXT)),
    "deflate with another level": ("deflate", zlib.compress(TEXT, 1)),
    "deflate without the zlib header": ("deflate", raw_deflate(TEXT)),
    "deflate, stored only": ("deflate", raw_deflate(TEXT, 0)),
    "deflate with fixed codes": ("deflate", raw_deflate(TEXT, 9, zlib.Z_FIXED)),
    "deflate of a byte order mark": (
        "deflate",
        raw_deflate(b"\xef\xbb\xbf" + TEXT, 9, zlib.Z_FIXED),
    ),
    "zlib that is labelled gzip": ("gzip", zlib.compress(TEXT)),
    "gzip that is labelled deflate": ("deflate", gzip.compress(TEXT)),
    "gzip of deflate": ("deflate, gzip", gzip.compress(zlib.compress(TEXT))),
    "gzip twice": ("gzip,gzip", gzip.compress(gzip.compress(TEXT))),
    "gzip and identity": ("identity, gzip", gzip.compress(TEXT)),
    "gzip in a list with gaps": (",, gzip ,", gzip.compress(TEXT)),
    "gzip of a coding that changes nothing": ("utf-8, gzip", gzip.compress(TEXT)),
    "identity": ("identity", TEXT),
    "nothing": ("", TEXT),
    "a character set in the wrong header": ("UTF-8", TEXT),
    "gzip that a proxy decompressed": ("gzip", TEXT),
    "deflate that a proxy decompressed": ("deflate", TEXT),
    "gzip that a proxy decompressed, after a line break": ("gzip", b"\r\n" + TEXT),
    "gzip twice, decompressed once by a proxy": ("gzip, gzip", gzip.compress(TEXT)),
}


@pytest.mark.parametrize(("codings", "sent"), FORMS.values(), ids=FORMS)
def test_a_body_is_decompressed(codings: str, sent: bytes) -> None:
    assert decoded(sent, codings).removeprefix(b"\xef\xbb\xbf").strip() == TEXT
    message = callback(sent, headers={"Content-Encoding": codings})
    assert providers.parse(message).status is Status.SUCCEEDED


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("charset", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("codings", ["gzip", ""])
@pytest.mark.parametrize("space", ["", "\r\n", " \ufeff"])
def test_a_byte_order_mark_and_spaces_are_skipped(
    mark: str, charset: str, codings: str, space: str
) -> None:
    if space.endswith("\ufeff") and not mark:
        space = ""
    sent = (mark + space + TEXT.decode() + space).encode(charset)
    sent = gzip.compress(sent) if codings else sent
    message = callback(sent, headers={"Content-Encoding": codings})
    assert providers.parse(message).status is Status.SUCCEEDED


@pytest.mark.parametrize("charset", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("codings", ["gzip", "deflate"])
def test_text_with_a_mark_that_a_proxy_decompressed_is_not_changed(
    charset: str, codings: str
) -> None:
    sent = TEXT.decode().encode(charset)
    assert decoded(sent, codings) == sent


DAMAGED = {
    "cut off in the data": ("gzip", gzip.compress(TEXT)[:50]),
    "cut off in the checksum": ("gzip", gzip.compress(TEXT)[:-3]),
    "cut off in the header": ("gzip", gzip.compress(TEXT)[:4]),
    "with a wrong checksum": ("gzip", gzip.compress(TEXT)[:-8] + b"12345678"),
    "with a second member that is cut off": ("gzip", gzip.compress(TEXT) + b"\x1f\x8b\x08"),
    "with a changed byte": ("gzip", gzip.compress(TEXT)[:30] + b"?" + gzip.compress(TEXT)[31:]),
    "cut off": ("deflate", zlib.compress(TEXT)[:-5]),
    "without a header, truncated": ("deflate", raw_deflate(TEXT)[:-5]),
    "without a header, followed by more data": ("deflate", raw_deflate(TEXT) + b"123"),
    "not compressed": ("gzip", b"a=b&c=d"),
    "not compressed at all": ("deflate", b"payload=%7B%7D"),
    "compressed once, not twice": ("gzip, gzip", gzip.compress(b"a=b")),
    "with too many codings": (
        ",".join(["gzip"] * (MAX_CODINGS + 1)),
        gzip.compress(TEXT),
    ),
    "with too many members": ("gzip", gzip.compress(b"") * MAX_GZIP_MEMBERS + gzip.compress(TEXT)),
}


@pytest.mark.parametrize(("codings", "sent"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_data_is_refused_with_a_reason(codings: str, sent: bytes) -> None:
    with pytest.raises(NotJson, match="compressed"):
        decoded(sent, codings)


@pytest.mark.parametrize(
    ("codings", "bomb"),
    [
        ("gzip", lambda: gzip.compress(b" " * (MAX_BODY + 1))),
        ("gzip", lambda: gzip.compress(b" " * MAX_BODY) + gzip.compress(b" ")),
        ("gzip", lambda: gzip.compress(b"\0" * 100_000_000, 9)),
        ("deflate", lambda: zlib.compress(b"\0" * 100_000_000, 9)),
        ("deflate", lambda: raw_deflate(b" " * 10_000_000)),
        ("gzip, gzip", lambda: gzip.compress(gzip.compress(b"\0" * 10_000_000) * 9)),
        ("gzip, gzip", lambda: gzip.compress(b"\0" * 10_000_000)),
    ],
)
def test_a_body_is_not_decompressed_beyond_the_limit(
    codings: str, bomb: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    class Watched:
        """A decompressor that remembers how much it was allowed to return."""

        def __init__(self, window: int) -> None:
            self._stream = original(window)

        def decompress(self, data: bytes, limit: int) -> bytes:
            assert 0 < limit <= MAX_BODY + 1  # 0 means no limit
            found = self._stream.decompress(data, limit)
            lengths.append(len(found))
            return found

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

    original = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Watched)
    with pytest.raises(BodyTooLong, match="262144 bytes"):
        decoded(bomb(), codings)
    assert sum(lengths) <= 2 * (MAX_BODY + 1)


def test_a_body_of_exactly_the_limit_is_decompressed() -> None:
    sent = b" " * MAX_BODY
    for codings, packed in (("gzip", gzip.compress(sent)), ("deflate", raw_deflate(sent))):
        assert decoded(packed, codings) == sent


def test_a_coding_that_is_not_supported_is_named() -> None:
    message = callback(b"\x28\xb5\x2f\xfd\x04", headers={"Content-Encoding": "zstd"})
    with pytest.raises(NotJson, match="Content-Encoding is 'zstd'"):
        providers.parse(message)


def test_a_body_without_the_header_is_not_decompressed() -> None:
    with pytest.raises(NotJson):
        providers.parse(callback(gzip.compress(TEXT)))


# -- digest and readable form of a body


def packed(raw: bytes, codings: str = "gzip", mtime: int = 0) -> Callback:
    return callback(gzip.compress(raw, mtime=mtime), headers={"Content-Encoding": codings})


def test_the_digest_is_that_of_the_content() -> None:
    plain = callback(TEXT)
    assert packed(TEXT).body != packed(TEXT, mtime=5).body
    assert packed(TEXT).digest == packed(TEXT, mtime=5).digest == plain.digest
    unpacked = replace(packed(TEXT), headers={})
    assert unpacked.digest != plain.digest  # the header does not apply to it, so it cannot be read


def test_a_body_that_cannot_be_decompressed_is_readable_as_received() -> None:
    damaged = callback(b"\x1f\x8bno", headers={"Content-Encoding": "gzip"})
    assert damaged.readable == damaged.body
    assert damaged.digest == replace(damaged, headers={}).digest
    assert packed(TEXT).readable == TEXT


@pytest.mark.parametrize(
    "raw", [b"", b" ", b"{}", b"{ }\n", b"[]", b"null", b'""', b"\xef\xbb\xbf{}", b"{\r\n\r\n}"]
)
def test_a_body_without_any_content_is_empty(raw: bytes) -> None:
    assert callback(raw).is_empty
    assert packed(raw).is_empty
    assert callback(raw.decode().encode("utf-16")).is_empty


@pytest.mark.parametrize("raw", [b"0", b"{'a'}", b'{"": 0}', b"[0]", b"\0", b"{}{}", b" " * 65])
def test_any_other_body_is_not_empty(raw: bytes) -> None:
    assert not callback(raw).is_empty
    assert not packed(raw).is_empty
