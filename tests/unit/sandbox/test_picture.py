"""The result is made from both inputs, and every input that can be decoded results in one."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib import resources

import pytest
from PIL import Image

from sandbox import try_on_picture
from sandbox.try_on_picture import PictureError

Make = Callable[..., bytes]


def sample(name: str) -> bytes:
    return (resources.files("sandbox") / "images" / name).read_bytes()


def test_the_person_wears_the_garment() -> None:
    result = Image.open(
        io.BytesIO(try_on_picture.dress(sample("person.jpg"), sample("garment.png")))
    )
    person = Image.open(io.BytesIO(sample("person.jpg")))
    assert (result.format, result.size) == ("PNG", person.size)
    face, chest = (220, 120), (215, 250)
    assert result.getpixel(face) == person.getpixel(face)
    red, _, blue = result.convert("RGB").getpixel(chest)  # type: ignore[misc]  # a tuple for RGB
    assert blue > 2 * red, "the garment is blue, the suit below it orange"


def test_the_white_around_a_garment_is_removed_but_its_pale_stripes_are_not() -> None:
    garment = Image.open(io.BytesIO(sample("garment.png"))).convert("RGB")
    cut = try_on_picture.cut_out(garment)
    alpha = cut.getchannel("A")
    stripe = (300 - 40, 210 - 90)
    assert alpha.getpixel((2, 2)) == 0
    assert alpha.getpixel(stripe) == 255


@pytest.mark.parametrize("size", [(300, 300), (300, 2_000), (2_000, 300)])
def test_pictures_of_odd_shapes_are_combined_too(make_picture: Make, size: tuple[int, int]) -> None:
    result = try_on_picture.dress(make_picture(*size, "JPEG"), make_picture(400, 300))
    Image.open(io.BytesIO(result)).load()


def test_a_white_picture_is_not_a_garment(make_picture: Make) -> None:
    with pytest.raises(PictureError, match="all white"):
        try_on_picture.dress(make_picture(300, 300), make_picture(300, 300, colour="white"))


def test_a_truncated_picture_has_its_own_error(make_picture: Make) -> None:
    with pytest.raises(PictureError):
        try_on_picture.dress(sample("person.jpg")[:9_000], make_picture(300, 300))
