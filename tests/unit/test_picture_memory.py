"""Decoding pictures takes a limited amount of memory, however many arrive at the same time."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from receiver.hooks import content
from receiver.pictures import memory, thumbnails
from receiver.pictures.memory import MAX_MEMORY, MemoryLimit, TooMuchMemory, needed
from tests.support.patience import PATIENCE, wait_until

SIDE = 64
EIGHT_THOUSAND = 8000 * 8000  # pixels


def saved(mode: str, form: str, side: int = SIDE, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (side, side)).save(out, form, **options)
    return out.getvalue()


def estimate(whole: bytes, side: int = 10) -> int:
    """Return the bytes per pixel that are reserved for a picture with SIDE pixels on each side."""
    amounts: list[int] = []

    class Watched(MemoryLimit):
        def reserved(self, amount: int) -> Any:
            amounts.append(amount)
            return super().reserved(amount)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "LIMIT", Watched())
        with thumbnails.opened(io.BytesIO(whole), (form_of(whole),), None, side) as image:
            image.load()
    (amount,) = amounts
    return amount // (SIDE * SIDE)


def form_of(whole: bytes) -> str:
    with Image.open(io.BytesIO(whole)) as image:
        return str(image.format)


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        (saved("L", "PNG"), 1),
        (saved("P", "PNG"), 1),
        (saved("1", "PNG"), 1),
        (saved("I;16", "PNG"), 2),
        (saved("LA", "PNG"), 4),
        (saved("RGB", "PNG"), 4),
        (saved("RGBA", "PNG"), 4),
        (saved("P", "GIF"), 1),
        (saved("L", "JPEG"), 1),
        (saved("RGB", "JPEG"), 4),
        (saved("CMYK", "JPEG"), 4),
        (saved("RGB", "JPEG", progressive=True), 4 + 3),
        (saved("RGB", "JPEG", progressive=True, subsampling=0), 4 + 6),
        (saved("CMYK", "JPEG", progressive=True), 4 + 8),
        (saved("RGB", "WEBP"), 16),
        (saved("RGB", "AVIF"), 16),
        (saved("RGB", "JPEG2000"), 24),
        (saved("RGB", "BMP"), 4),
        (saved("RGB", "TIFF"), 4),
    ],
)
def test_the_estimate_depends_on_format_and_mode(whole: bytes, expected: int) -> None:
    assert estimate(whole) == expected


def test_a_compressed_tiff_is_read_as_a_whole() -> None:
    assert estimate(saved("RGB", "TIFF", compression="tiff_lzw")) > 4


def test_a_picture_of_8000_by_8000_pixels_is_decoded_in_the_usual_modes() -> None:
    assert EIGHT_THOUSAND * memory.bytes_per_pixel("RGBA") <= MAX_MEMORY


@pytest.mark.parametrize(("form", "most"), [("JPEG", 1.0), ("JPEG2000", 24.0)])
def test_a_large_picture_is_decoded_at_a_smaller_scale(
    form: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "LARGE", 100)
    whole = saved("RGB", form, 1024)
    with thumbnails.opened(io.BytesIO(whole), (form,), None, 64) as image:
        size = getattr(image, "size", (0, 0))
        amount = needed(image, (1024, 1024), io.BytesIO(whole), has_scans=False)
        image.load()
        assert min(image.size) >= 128  # twice the side of the copy
    assert size[0] * size[1] > 0
    assert amount <= 1024 * 1024 * most / 4


def test_four_large_pictures_are_decoded_one_after_another() -> None:
    limit = MemoryLimit(100)
    started: list[int] = []
    running: list[int] = []
    together: list[int] = []

    def decode(number: int) -> None:
        started.append(number)
        with limit.reserved(60):
            running.append(number)
            wait_until(lambda: len(started) == 4)  # other threads could decode meanwhile
            together.append(len(running))
            running.remove(number)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(decode, number) for number in range(4)]:
            done.result(PATIENCE)
    assert together == [1, 1, 1, 1]


def test_small_pictures_are_decoded_together() -> None:
    limit, together = MemoryLimit(100), threading.Barrier(4)

    def decode() -> None:
        with limit.reserved(25):
            together.wait(PATIENCE)  # raises an error unless all four threads are here

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(decode) for _ in range(4)]:
            done.result(PATIENCE)


def test_an_error_releases_the_memory() -> None:
    limit = MemoryLimit(100)
    with pytest.raises(ValueError, match="broken"), limit.reserved(100):
        raise ValueError("broken")
    with limit.reserved(100):
        pass


def test_a_picture_that_takes_too_much_memory_is_stored_without_a_thumbnail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "LIMIT", MemoryLimit(SIDE * SIDE * 4 - 1))
    file = tmp_path / "large.png"
    file.write_bytes(saved("RGB", "PNG"))
    found, small = content.inspect(file, "image")
    assert (found.extension, small) == ("png", None)
    assert "too much memory" in "".join(capsys.readouterr())
    file.write_bytes(saved("L", "PNG"))  # it takes a quarter of the memory
    assert content.inspect(file, "image")[1] is not None


def test_an_input_is_decoded_even_if_it_takes_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to be sent unchanged, and the provider has its own limit. It is decoded alone."""
    monkeypatch.setattr(memory, "LIMIT", MemoryLimit(1))
    with thumbnails.opened(io.BytesIO(saved("RGB", "PNG")), ("PNG",)) as image:
        image.load()
    with (
        pytest.raises(TooMuchMemory),
        thumbnails.opened(io.BytesIO(saved("RGB", "PNG")), ("PNG",), None, 10),
    ):
        pass


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "I", "F", "LA", "RGB", "RGBA", "CMYK"])
def test_a_picture_decoded_in_bands_equals_one_decoded_as_a_whole(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of a large picture is made in bands, whose edges must not be visible."""
    grey = Image.linear_gradient("L").resize((500, 700))
    if mode in ("LA", "RGBA", "CMYK"):
        image = Image.merge(mode, [grey] * len(mode))
    else:
        image = grey.convert("I" if mode == "I;16" else mode)
    whole = thumbnails.flattened(image, (50, 70))
    monkeypatch.setattr(thumbnails, "BAND", 500 * 30)
    bands = thumbnails.flattened(image, (50, 70))
    assert bands.tobytes() == whole.tobytes()
