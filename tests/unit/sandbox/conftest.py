"""A fixture that creates pictures of a given size."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from PIL import Image

MakePicture = Callable[..., bytes]


@pytest.fixture
def make_picture() -> MakePicture:
    """Return a function that makes a plain picture of a size, colour and format."""

    def make(width: int, height: int, kind: str = "PNG", colour: str = "navy") -> bytes:
        output = io.BytesIO()
        Image.new("RGB", (width, height), colour).save(output, kind)
        return output.getvalue()

    return make
