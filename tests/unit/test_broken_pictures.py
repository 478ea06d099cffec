"""Pictures with damaged or missing bytes are reported as broken, whatever error Pillow raises."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from PIL import Image

from receiver.errors import DeliveryFailure
from receiver.hooks.content import inspect
from submitter.errors import InputError
from submitter.pictures import images
from tests.support.hook_servers import picture

ROUNDS = 120


def with_exif() -> bytes:
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010E: "a description", 0x8298: "somebody", 0x8769: {0x9003: "2026"}})
    return picture("JPEG", (320, 310), exif=exif)


SAMPLES = {
    "jpeg": with_exif(),
    "png": picture("PNG", (320, 310)),
    "webp": picture("WEBP", (320, 310)),
    "gif": picture("GIF", (320, 310)),
    "avif": picture("AVIF", (320, 310)),
    "bmp": picture("BMP", (320, 310)),
    "tiff": picture("TIFF", (320, 310)),
    "jp2": picture("JPEG2000", (320, 310)),
}


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Change some bytes, most of them near the beginning, and sometimes remove the end."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 12)):
        end = len(changed) if chance.random() < 0.3 else min(len(changed), 600)
        changed[chance.randrange(12, end)] = chance.randrange(256)
    if chance.random() < 0.3:
        del changed[chance.randrange(20, len(changed)) :]
    return bytes(changed)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_damaged_result_causes_at_most_a_failed_attempt(kind: str, tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 - reproducible, and not a secret
    path, failed = tmp_path / "file", 0
    for _ in range(ROUNDS):
        path.write_bytes(damaged(SAMPLES[kind], chance))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings, about metadata
            try:
                inspect(path, "image")
            except DeliveryFailure:
                failed += 1
    assert failed > 0


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_damaged_input_causes_at_most_a_clear_error(kind: str) -> None:
    chance = random.Random(8)  # noqa: S311 - reproducible, and not a secret
    refused = 0
    for _ in range(ROUNDS):
        try:
            images.check("human", damaged(SAMPLES[kind], chance))
        except InputError:
            refused += 1
    assert refused > 0
