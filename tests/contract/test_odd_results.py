"""The receiver's classification of results that the sandbox returns instead of a plain PNG."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from receiver.errors import ContentFailure
from receiver.hooks.content import inspect
from sandbox import try_on_picture
from sandbox.scenarios.faults import ResultFault
from sandbox.web.result_files import BODIES

KEPT = {
    ResultFault.AVIF: "avif",
    ResultFault.BMP: "bmp",
    ResultFault.TIFF: "tiff",
    ResultFault.HEIC: "heic",
    ResultFault.UNKNOWN_FORMAT: "bin",
    ResultFault.TWO_PICTURES: "jpg",
    ResultFault.METADATA: "png",
}
WITHOUT_THUMBNAIL = {ResultFault.HEIC, ResultFault.UNKNOWN_FORMAT}


@pytest.fixture(scope="module")
def result() -> bytes:
    images = resources.files("sandbox") / "images"
    return try_on_picture.dress(
        (images / "person.jpg").read_bytes(), (images / "garment.png").read_bytes()
    )


@pytest.mark.parametrize("fault", BODIES)
def test_binary_files_and_odd_metadata_are_accepted_and_the_rest_is_refused(
    result: bytes, tmp_path: Path, fault: ResultFault
) -> None:
    path = tmp_path / "draft"
    path.write_bytes(BODIES[fault](result))
    if fault in KEPT:
        found, thumbnail = inspect(path, "image")
        assert found.extension == KEPT[fault]
        assert (thumbnail is None) == (fault in WITHOUT_THUMBNAIL)
    else:
        with pytest.raises(ContentFailure):
            inspect(path, "image")
