"""The type of a file is determined by its first bytes."""

from __future__ import annotations

import io
import struct
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from receiver.pictures import file_types
from receiver.pictures.file_types import HEAD, UNKNOWN, detect, text_in
from tests.support.picture_files import encoded

PICTURE = Image.linear_gradient("L").resize((40, 30)).convert("RGB")


def ftyp(main: bytes, *compatible: bytes) -> bytes:
    brands = main + b"\0\0\2\0" + b"".join(compatible)
    return struct.pack(">I", len(brands) + 8) + b"ftyp" + brands + b"\0\0\0\x08free"


def ebml(kind: bytes, before: bytes = b"") -> bytes:
    inner = b"\x42\x86\x81\1\x42\xf7\x81\1" + before + b"\x42\x82" + bytes([0x80 | len(kind)])
    return b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x2f" + inner + kind + b"\x42\x87\x81\4" + b"\xff" * 40


def ogg(codec: bytes) -> bytes:
    return b"OggS\0\2" + bytes(12) + b"\4\xd2\xff\1\1" + bytes([len(codec)]) + codec + bytes(30)


def wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\0\1" * 100)
    return out.getvalue()


@pytest.mark.parametrize(
    ("head", "extension", "content_type"),
    [
        # pictures
        (encoded(PICTURE, "JPEG"), "jpg", "image/jpeg"),
        (encoded(PICTURE, "PNG"), "png", "image/png"),
        (encoded(PICTURE, "GIF"), "gif", "image/gif"),
        (encoded(PICTURE, "WEBP"), "webp", "image/webp"),
        (encoded(PICTURE, "AVIF"), "avif", "image/avif"),
        (encoded(PICTURE, "BMP"), "bmp", "image/bmp"),
        (encoded(PICTURE, "TIFF"), "tiff", "image/tiff"),
        (encoded(PICTURE, "TIFF", big_tiff=True), "tiff", "image/tiff"),
        (b"MM\0*\0\0\0\x08" + bytes(90), "tiff", "image/tiff"),
        (encoded(PICTURE, "JPEG2000"), "jp2", "image/jp2"),
        (encoded(PICTURE, "JPEG2000", no_jp2=True), "j2k", "image/x-jp2-codestream"),
        (encoded(PICTURE, "ICO"), "ico", "image/vnd.microsoft.icon"),
        (encoded(PICTURE, "PPM"), "ppm", "image/x-portable-pixmap"),
        (b"P6\n# black at the top\n400 300\n255\n" + bytes(4000), "ppm", "image/x-portable-pixmap"),
        (b"P5 400 300 255\n" + b"white" * 900, "pgm", "image/x-portable-graymap"),
        (b"P1\n4 2\n1 0 1 0\n0 1 0 1\n", "pbm", "image/x-portable-bitmap"),
        (encoded(PICTURE, "QOI"), "qoi", "image/qoi"),
        (ftyp(b"avif"), "avif", "image/avif"),
        (ftyp(b"avis", b"avif", b"msf1"), "avif", "image/avif"),
        (ftyp(b"mif1", b"avif"), "avif", "image/avif"),
        (ftyp(b"heic", b"mif1"), "heic", "image/heic"),
        (ftyp(b"heix", b"mif1", b"miaf"), "heic", "image/heic"),
        (ftyp(b"mif1", b"mif1", b"heic"), "heic", "image/heic"),
        (ftyp(b"msf1", b"hevc"), "heic", "image/heic"),
        (ftyp(b"mif1", b"miaf"), "heif", "image/heif"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + ftyp(b"jxl ", b"jxl "), "jxl", "image/jxl"),
        (b"\xff\x0a\xfa\x1f\x0c\x8b" + bytes(60), "jxl", "image/jxl"),
        (b"8BPS\0\1" + bytes(60), "psd", "image/vnd.adobe.photoshop"),
        # videos
        (ftyp(b"isom", b"iso2", b"avc1"), "mp4", "video/mp4"),
        (ftyp(b"mp42"), "mp4", "video/mp4"),
        (ftyp(b"M4V "), "mp4", "video/mp4"),
        (ftyp(b"dash"), "mp4", "video/mp4"),
        (ftyp(b"iso6"), "mp4", "video/mp4"),
        (ftyp(b"new?"), "mp4", "video/mp4"),
        (ftyp(b"qt  "), "mov", "video/quicktime"),
        (b"\0\0\0\x08wide\0\0\x10\0mdat" + bytes(60), "mov", "video/quicktime"),
        (b"\0\0\1\0moov\0\0\0\x6cmvhd" + bytes(60), "mov", "video/quicktime"),
        (ftyp(b"3gp5"), "3gp", "video/3gpp"),
        (ebml(b"webm"), "webm", "video/webm"),
        (ebml(b"webm", b"\xec\xa0" + bytes(32)), "webm", "video/webm"),
        (ebml(b"matroska"), "mkv", "video/x-matroska"),
        (b"RIFF\x24\0\0\0AVI LIST" + bytes(60), "avi", "video/x-msvideo"),
        (ogg(b"\x80theora\3\2\1"), "ogv", "video/ogg"),
        (b"FLV\1\5\0\0\0\x09" + bytes(60), "flv", "video/x-flv"),
        (b"\0\0\1\xba\x44\0\4" + bytes(60), "mpg", "video/mpeg"),
        # sounds
        (wav(), "wav", "audio/wav"),
        (b"RF64\xff\xff\xff\xffWAVEds64" + bytes(60), "wav", "audio/wav"),
        (b"ID3\4\0\0\0\0\0\0", "mp3", "audio/mpeg"),
        (b"\xff\xfb\x90\x64", "mp3", "audio/mpeg"),
        (b"\xff\xf3\x90\x64", "mp3", "audio/mpeg"),
        (b"\xff\xf1\x50\x80\2\x1f\xfc", "aac", "audio/aac"),
        (b"\xff\xf9\x50\x80\2\x1f\xfc", "aac", "audio/aac"),
        (ftyp(b"M4A ", b"M4A ", b"mp42"), "m4a", "audio/mp4"),
        (ftyp(b"M4B "), "m4a", "audio/mp4"),
        (ogg(b"\1vorbis\0"), "ogg", "audio/ogg"),
        (ogg(b"OpusHead\1"), "ogg", "audio/ogg"),
        (b"fLaC\0\0\0\x22\x10\0" + bytes(40), "flac", "audio/flac"),
        (b"FORM\0\0\1\0AIFFCOMM\0\0\0\x12", "aiff", "audio/aiff"),
        # others
        (b"glTF\2\0\0\0\x40\0\0\0", "glb", "model/gltf-binary"),
        (b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\n", "pdf", "application/pdf"),
        (b"PK\3\4\x14\0\0\0\x08\0" + bytes(40), "zip", "application/zip"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\3" + bytes(40), "gz", "application/gzip"),
    ],
)  # fmt: skip
def test_formats_are_recognised(head: bytes, extension: str, content_type: str) -> None:
    assert detect(head[:HEAD]) == file_types.FileType(extension, content_type)
    assert not text_in(head[:HEAD])


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        bytes(1000),
        b"\xff" * 1000,
        b"\x7fELF\2\1\1" + bytes(60),  # no file that could be executed gets its own extension
        b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff" + bytes(60),
        b"#!/bin/sh\nrm -r .\n",
        b"<?php echo 1;",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        bytes(range(256)),
    ],
)
def test_anything_else_is_unknown(head: bytes) -> None:
    assert detect(head) is UNKNOWN


SENTENCES = {
    "utf-8": "<!doctype html><title>Désolé</title>",
    "utf-16": "<html><body>Sorry</body></html>",
    "utf-16-le": "<html><body>Sorry</body></html>",
    "utf-16-be": "<html><body>Sorry</body></html>",
    "utf-32": "<html><body>Sorry</body></html>",
    "utf-32-le": '{"error": "expired"}',
    "utf-8-sig": '\n {"error": "expired"}',
    "cp1252": "Désolé, veuillez réessayer",
    "gbk": "对不起页面不存在",
    "big5": "對不起頁面不存在",
    "shift_jis": "申し訳ございません",
    "iso2022_jp": "<title>申し訳ございません</title>",
    "euc_kr": "죄송합니다",
    "koi8-r": "Страница не найдена",
    "ascii": "error code: 1015",
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_text_is_recognised_in_any_encoding(encoding: str) -> None:
    body = SENTENCES[encoding].encode(encoding)
    assert text_in(body)
    assert detect(body) is UNKNOWN
    assert text_in((body * 500)[: HEAD + 1])  # truncated anywhere


@pytest.mark.parametrize(
    ("body", "beginning"),
    [
        (b"error code: 1015", "error code: 1015"),
        (b"error code: 1015\0\0", "error code: 1015"),
        ("<html>é</html>".encode("utf-16"), "<html>é</html>"),
        (("<svg/>" * 5).encode("utf-16-be"), "<svg/><svg"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>", "<?xml"),
        (b"<html>" + b"a page with one odd character \x01" + b" and more text" * 9, "<html>a page"),
        (b"BMW is not found", "BMW"),  # not a BMP
        (b"ID3 tags are missing", "ID3"),
        (b"GIF is not found", "GIF"),
        (b"  \r\n", ""),
    ],
)
def test_text_is_recognised_as_text(body: bytes, beginning: str) -> None:
    assert text_in(body).startswith(beginning)
    assert text_in(body)
    assert detect(body) is UNKNOWN


@given(st.binary(min_size=200, max_size=600))
def test_any_bytes_have_a_type(head: bytes) -> None:
    assert detect(head).extension.isalnum()
    text_in(head)


@pytest.mark.parametrize(
    "pattern", [b"<", b"{ ", b"[ \n", b" ", b"\xfe\xff", b"\0", b"<a", b"\xd8\0"]
)
def test_only_the_first_bytes_are_read(pattern: bytes) -> None:
    """A long beginning has the same type as a short one: the time does not depend on the file."""
    long = pattern * (1_000_000 // len(pattern))
    assert text_in(long) == text_in(long[:HEAD])
    assert detect(long) is detect(long[:HEAD])
