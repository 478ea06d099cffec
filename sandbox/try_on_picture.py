"""Composes a try-on picture from a person and a garment, without any model."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

LONGEST_SIDE = 1024
WHITE = 249  # the background is at least this bright in every channel; pale cloth is darker
SMALL = 160  # side in pixels at which the background is traced, because flood filling is slow
BACKDROP = 128  # any value other than 0 and 255
# Ranges of Cb and Cr of skin of any tone; narrower than Chai and Ngan (1999), because of beige
# backdrops.
SKIN_CB, SKIN_CR = (77, 120), (136, 165)
FACE_RADIUS = SMALL // 14
FACE_DENSITY = 190  # of 255


class PictureError(ValueError):
    """One of the inputs cannot be used."""


@dataclass(frozen=True)
class Placement:
    """The position of the garment, in pixels of the person's picture."""

    left: int
    top: int
    width: int


def dress(human: bytes, cloth: bytes) -> bytes:
    """Return a PNG of the person wearing the garment; raise PictureError."""
    try:
        person, garment = _load(human), _load(cloth)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        raise PictureError(str(fault)) from fault
    output = io.BytesIO()
    wear(person, cut_out(garment)).save(output, "PNG")
    return output.getvalue()


def cut_out(garment: Image.Image) -> Image.Image:
    """Return the garment alone: white that reaches the picture's edge becomes transparent."""
    framed = ImageOps.expand(garment, 4, "white")
    # The median filter removes the specks that JPEG leaves along the outline.
    cloth = ImageChops.invert(_background(framed)).filter(ImageFilter.MedianFilter(7))
    box = cloth.getbbox()
    if box is None:
        raise PictureError("the garment picture is all white")
    soft = cloth.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.GaussianBlur(0.9))
    framed.putalpha(soft)
    return framed.crop(box)


def wear(person: Image.Image, garment: Image.Image) -> Image.Image:
    """Put the garment on the person's torso, keeping the light and folds of the original."""
    place = find_torso(person)
    size = (place.width, round(place.width * garment.height / garment.width))
    layer = Image.new("RGBA", person.size)
    layer.paste(garment.resize(size, Image.Resampling.LANCZOS), (place.left, place.top))
    alpha = layer.getchannel("A")
    lit = ImageChops.multiply(layer.convert("RGB"), _light(person))
    shaded = Image.composite(_darker(person), person, _shadow(alpha))
    return Image.composite(lit, shaded, alpha)


def find_torso(person: Image.Image) -> Placement:
    """Estimate the position from the face, or without a face from the picture's shape."""
    face = _find_face(person)
    if face is None:
        is_full_figure = person.height > 1.3 * person.width
        top, width = (0.17, 0.6) if is_full_figure else (0.42, 0.85)
        return _place(person, 0.5 * person.width, top * person.height, width * person.width)
    x, y, head = face
    return _place(person, x, y + 0.72 * head, 3.5 * head)


def _place(person: Image.Image, centre: float, top: float, width: float) -> Placement:
    fitting = min(width, 0.96 * person.width)
    return Placement(left=round(centre - fitting / 2), top=round(top), width=round(fitting))


def _find_face(person: Image.Image) -> tuple[float, float, float] | None:
    """Return the centre and the width of the area most like a head: skin in the upper part."""
    scale = person.width / SMALL
    size = (SMALL, max(1, round(person.height / scale / 2)))
    upper = person.resize(size, Image.Resampling.BOX, (0, 0, person.width, person.height / 2))
    skin = _skin(upper).filter(ImageFilter.MinFilter(5)).filter(ImageFilter.MaxFilter(5))
    dense = skin.filter(ImageFilter.BoxBlur(FACE_RADIUS))
    peak = max(dense.tobytes())
    densest = dense.point(lambda level: 255 if level >= peak - 2 else 0).getbbox()
    if peak < FACE_DENSITY or densest is None:
        return None
    left, top, right, bottom = densest
    x, y = (left + right) // 2, (top + bottom) // 2
    return x * scale, y * scale, _run(skin, x, y) * scale


def _run(mask: Image.Image, x: int, y: int) -> int:
    """Return how far the mask extends to both sides of a point, at most the width of a head."""
    left, right = x, x
    while left > 0 and mask.getpixel((left - 1, y)):
        left -= 1
    while right < mask.width - 1 and mask.getpixel((right + 1, y)):
        right += 1
    return min(max(right - left, SMALL // 10), SMALL // 3)


def _skin(person: Image.Image) -> Image.Image:
    _, cb, cr = person.convert("YCbCr").split()
    return ImageChops.darker(_within(cb, *SKIN_CB), _within(cr, *SKIN_CR))


def _within(channel: Image.Image, low: int, high: int) -> Image.Image:
    return channel.point(lambda level: 255 if low <= level <= high else 0)


def _background(picture: Image.Image) -> Image.Image:
    """Return a mask of the white area that is connected to the picture's edge."""
    red, green, blue = picture.split()
    darkest = ImageChops.darker(ImageChops.darker(red, green), blue)
    white = darkest.point(lambda level: 255 if level >= WHITE else 0)
    small = white.resize((SMALL, SMALL), Image.Resampling.BOX)
    small = small.point(lambda level: 255 if level >= BACKDROP else 0)
    ImageDraw.floodfill(small, (0, 0), BACKDROP)
    reached = small.point(lambda level: 255 if level == BACKDROP else 0)
    grown = reached.filter(ImageFilter.MaxFilter(5)).resize(picture.size)
    return ImageChops.darker(white, grown.point(lambda level: 255 if level else 0))


def _light(person: Image.Image) -> Image.Image:
    """Return the person's folds and shadows as a layer to multiply by; its mean is 1.0."""
    grey = ImageOps.autocontrast(person.convert("L").filter(ImageFilter.GaussianBlur(2.5)))
    soft = grey.point(lambda level: round(175 + level * 80 / 255))
    return Image.merge("RGB", (soft, soft, soft))


def _shadow(alpha: Image.Image) -> Image.Image:
    spread = max(3, alpha.width // 90)
    return ImageChops.offset(alpha, 0, spread // 2).filter(ImageFilter.GaussianBlur(spread))


def _darker(picture: Image.Image) -> Image.Image:
    return picture.point(lambda level: round(level * 0.55))


def _load(content: bytes) -> Image.Image:
    """Decode the picture, rotate it upright, put it on white, and scale it down."""
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
        image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
        upright = ImageOps.exif_transpose(image)
        if upright.mode not in ("RGB", "L"):  # palette images do not scale well
            upright = upright.convert("RGBA")
        upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    upright = upright.convert("RGBA")
    flat = Image.new("RGBA", upright.size, "white")
    flat.alpha_composite(upright)
    return flat.convert("RGB")
