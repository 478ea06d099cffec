"""Labels of garments, accepted combinations, and the picture into which they are merged."""

from __future__ import annotations

import base64
import io
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from submitter.client import Client
from submitter.errors import InputError
from submitter.pictures import garments, images
from submitter.pictures.garments import ClothPicture, Garment, Kind
from submitter.pictures.inputs import prepare_inputs
from submitter.providers import Provider
from submitter.providers.appypie import AppyPie
from submitter.providers.kling import ApiKey, Kling
from submitter.providers.modellix import Modellix

NOWHERE = Client("http://127.0.0.1:9")
KLING = Kling(NOWHERE, ApiKey("key"))
V1, V1_5 = "kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5"
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **more)
    return out.getvalue()


def plain(colour: tuple[int, ...] | int | str, size: tuple[int, int], mode: str = "RGB") -> bytes:
    return encoded(Image.new(mode, size, colour), compress_level=1)


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def near(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    found = image.getpixel(place)
    assert isinstance(found, tuple)
    return all(abs(a - b) < 12 for a, b in zip(found, colour, strict=True))


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("shirt.png", Garment("shirt.png")),
        ("upper:shirt.png", Garment("shirt.png", Kind.UPPER)),
        ("LOWER:skirt.png", Garment("skirt.png", Kind.LOWER)),
        ("dress:https://x.example/a.png", Garment("https://x.example/a.png", Kind.DRESS)),
        ("upper:C:\\shirt.png", Garment("C:\\shirt.png", Kind.UPPER)),
        ("https://x.example/upper:a.png", Garment("https://x.example/upper:a.png")),
        ("C:\\shirt.png", Garment("C:\\shirt.png")),
        ("upper://x.example/a.png", Garment("upper://x.example/a.png")),
        ("./upper:shirt.png", Garment("./upper:shirt.png")),
        ("skirt:a.png", Garment("skirt:a.png")),
    ],
)
def test_only_three_words_are_labels_and_no_url_has_a_label(given: str, read: Garment) -> None:
    assert garments.select_garments([given], KLING, V1) == (read,)


def test_an_upper_and_a_lower_garment_are_accepted_in_either_order() -> None:
    pair = (Garment("a", Kind.UPPER), Garment("b", Kind.LOWER))
    assert garments.select_garments(["upper:a", "lower:b"], KLING, V1_5) == pair
    assert garments.select_garments(["lower:b", "upper:a"], KLING, V1_5) == pair


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["upper:a", "upper:b"], "upper and upper cannot be combined; give one upper:PICTURE"),
        (["lower:a", "lower:b"], "lower and lower cannot"),
        (["dress:a", "dress:b"], "dress and dress cannot"),
        (["upper:a", "dress:b"], "upper and dress cannot"),
        (["dress:a", "lower:b"], "lower and dress cannot"),
        (["a", "b"], "unlabelled and unlabelled cannot"),
        (["upper:a", "b"], "upper and unlabelled cannot"),
        (["upper:a", "lower:b", "dress:c"], "3 garments were given"),
        ([], "0 garments were given"),
        (["upper:"], "'upper:' contains no path or URL"),
    ],
)
def test_invalid_combinations_are_refused_before_anything_is_paid(
    given: list[str], problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        garments.select_garments(given, KLING, V1_5)
    assert caught.value.field == "cloth"


@pytest.mark.parametrize(
    ("adapter", "model", "problem"),
    [
        (KLING, None, f"{V1} accepts only one garment; use model {V1_5}"),
        (KLING, V1, f"{V1} accepts only one garment; use model {V1_5}"),
        (Modellix(NOWHERE, "key"), V1, f"{V1} accepts only one garment"),
        (AppyPie(NOWHERE, "key"), None, "appypie accepts only one garment; use another provider"),
    ],
)
def test_the_error_names_a_model_that_accepts_only_one_garment(
    adapter: Provider, model: str | None, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        prepare_inputs(adapter, "https://x.example/h.png", ["upper:a", "lower:b"], model=model)


def test_the_default_model_of_modellix_accepts_two_garments(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(plain("red", (300, 300)))
    inputs = prepare_inputs(
        Modellix(NOWHERE, "key"),
        "https://x.example/h.png",
        ["upper:a.png", "lower:b.png"],
        folder=tmp_path,
    )
    assert opened(base64.b64decode(inputs.cloth, validate=True)).size == (300, 600)


def test_a_provider_without_models_refuses_a_model() -> None:
    with pytest.raises(InputError, match="model: appypie does not accept a model"):
        prepare_inputs(AppyPie(NOWHERE, "key"), "https://x.example/h.png", "a.png", model=V1)


def test_the_upper_garment_is_above_and_both_have_the_larger_width() -> None:
    sheet = opened(garments.merged(plain("red", (400, 400)), plain("blue", (800, 1000))))
    assert (sheet.format, sheet.mode, sheet.size) == ("JPEG", "RGB", (800, 1800))
    assert near(sheet, (400, 400), RED)
    assert near(sheet, (400, 780), RED)
    assert near(sheet, (400, 820), BLUE)


def test_transparency_becomes_white_also_in_palettes_and_grey() -> None:
    clear = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 300, 150))
    palette = Image.new("P", (300, 300), 0)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    palette.info["transparency"] = 0
    grey = Image.new("LA", (300, 300), (0, 0))
    for lower in (encoded(palette, transparency=0), encoded(grey)):
        sheet = opened(garments.merged(encoded(clear), lower))
        assert near(sheet, (150, 50), RED)
        assert near(sheet, (150, 250), WHITE)
        assert near(sheet, (150, 450), WHITE)


def test_a_rotated_photo_is_turned_upright() -> None:
    photo = Image.new("RGB", (600, 300), "red")
    photo.paste((0, 0, 255), (0, 0, 300, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was rotated: the left side is the top
    sheet = opened(garments.merged(encoded(photo, "JPEG", exif=exif), plain("white", (300, 300))))
    assert sheet.size == (300, 900)
    assert near(sheet, (150, 100), BLUE)
    assert near(sheet, (150, 500), RED)


def test_cmyk_and_16_bit_grey_keep_their_colours() -> None:
    cmyk = encoded(Image.new("CMYK", (300, 300), (0, 255, 255, 0)), "JPEG")
    grey = encoded(Image.new("I;16", (300, 300), 65535 // 2))
    sheet = opened(garments.merged(cmyk, grey))
    assert near(sheet, (150, 150), (254, 0, 0))
    assert near(sheet, (150, 450), (127, 127, 127))


def test_the_largest_merged_picture_is_small_enough_to_be_sent() -> None:
    noise = Image.effect_noise((1000, 1000), 120)
    picture = Image.new("RGB", (2000, 2000))
    for left, top in itertools.product((0, 1000), (0, 1000)):
        picture.paste(noise, (left, top))
    garment = encoded(picture, "JPEG", quality=95)
    sent = garments.merged(garment, garment)
    assert len(base64.b64encode(sent)) <= images.MAX_BYTES
    images.check("cloth", sent)


@settings(max_examples=10, deadline=None)
@given(
    upper=st.tuples(st.integers(300, 6000), st.integers(300, 6000)),
    lower=st.tuples(st.integers(300, 6000), st.integers(300, 6000)),
)
def test_every_merged_picture_is_accepted(upper: tuple[int, int], lower: tuple[int, int]) -> None:
    sent = garments.merged(plain(255, upper, "L"), plain(0, lower, "L"))
    images.check("cloth", sent)
    assert max(opened(sent).size) <= garments.MAX_SIDE


def test_a_narrow_picture_is_padded_with_white() -> None:
    sheet = opened(garments.merged(plain("red", (300, 9000)), plain("blue", (300, 300))))
    assert sheet.size == (300, 4096)
    assert near(sheet, (5, 2000), WHITE)
    assert near(sheet, (150, 2000), RED)


def test_each_garment_is_checked_like_any_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(plain("red", (300, 300)))
    (tmp_path / "b.png").write_bytes(plain("red", (299, 300)))
    pair = garments.select_garments(["upper:a.png", "lower:b.png"], KLING, V1_5)
    with pytest.raises(InputError, match="299 x 300 px"):
        garments.prepare_garments(pair, tmp_path)


def test_urls_are_fetched_for_merging_but_a_single_url_is_passed_on(tmp_path: Path) -> None:
    fetched = []

    def fetch(field: str, url: str) -> bytes:
        fetched.append((field, url))
        return plain("blue", (300, 300))

    (tmp_path / "a.png").write_bytes(plain("red", (300, 300)))
    pair = garments.select_garments(["upper:a.png", "lower:https://x.example/b.png"], KLING, V1_5)
    sent = garments.prepare_garments(pair, tmp_path, fetch)
    assert near(opened(base64.b64decode(sent.cloth)), (150, 450), BLUE)
    assert sent.merged == ((tmp_path / "a.png").read_bytes(), plain("blue", (300, 300)))
    assert fetched == [("cloth", "https://x.example/b.png")]
    alone = garments.select_garments(["lower:https://x.example/b.png"], KLING, V1)
    assert garments.prepare_garments(alone, tmp_path, fetch) == ClothPicture(
        "https://x.example/b.png"
    )
    assert len(fetched) == 1


def test_broken_camera_metadata_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    pair = [Garment(str(path), Kind.UPPER), Garment(str(path), Kind.LOWER)]
    for notes in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        path.write_bytes(encoded(Image.new("RGB", (300, 300)), "JPEG", exif=notes))
        assert garments.prepare_garments(pair).cloth
    path.write_bytes(encoded(Image.new("I;16", (300, 300), 65535), transparency=65535))
    assert garments.prepare_garments(pair).cloth
