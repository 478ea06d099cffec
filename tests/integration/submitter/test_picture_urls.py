"""Pictures behind URLs that are fetched to be merged."""

from __future__ import annotations

import base64
import io
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from submitter.errors import InputError
from submitter.pictures import garments, images
from submitter.pictures.garments import Garment, Kind
from tests.support.scripted_provider import Scripted

fetch = partial(images.fetch, allow_private=True)  # the scripted server is on loopback


def test_pictures_behind_urls_are_merged(server: Scripted, picture: Path) -> None:
    server.will(server.say(picture.read_bytes()))
    pair = [Garment(str(picture), Kind.UPPER), Garment(f"{server.url}/a.png", Kind.LOWER)]
    sheet = Image.open(
        io.BytesIO(base64.b64decode(garments.prepare_garments(pair, fetch=fetch).cloth))
    )
    assert sheet.size == (320, 640)
    assert [asked.path for asked in server.asked] == ["/a.png"]


def test_an_internal_address_is_never_reached(server: Scripted) -> None:
    with pytest.raises(InputError, match=r"not a public address\); save it and give the path"):
        images.load("cloth", f"{server.url}/secret?token=x")
    assert server.asked == []


@pytest.mark.parametrize("status", [200, 203, 206])
def test_a_complete_picture_is_accepted_with_any_success_status(
    server: Scripted, picture: Path, status: int
) -> None:
    whole = picture.read_bytes()
    server.will(server.say(whole, status))
    assert images.load("cloth", f"{server.url}/a.png", fetch) == whole
    server.will(server.say(whole[:-20], status))
    with pytest.raises(InputError, match="truncated"):
        images.load("cloth", f"{server.url}/a.png", fetch)


def test_a_fetched_picture_is_validated_like_any_other(server: Scripted) -> None:
    url = f"{server.url}/a.png?signature=secret"
    for reply, complaint in (
        (server.say(b"<html>"), "is not a JPEG or PNG picture"),
        (server.say(b"gone", 404), r"HTTP 404\); save it"),
        (server.say(b" " * (images.MAX_BYTES + 1)), "larger than"),
        (server.hang_up, "cannot be fetched"),
    ):
        server.will(reply)
        with pytest.raises(InputError, match=complaint) as caught:
            images.load("cloth", url, fetch)
        assert caught.value.field == "cloth"
        assert "secret" not in str(caught.value)
