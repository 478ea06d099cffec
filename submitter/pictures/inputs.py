"""The inputs of a try-on: checked before anything is sent, and optionally stored as thumbnails."""

from __future__ import annotations

import base64
import io
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from receiver.errors import NotFound, StoreError
from receiver.pictures.thumbnails import BROKEN, opened, thumbnail
from receiver.stores import Store
from submitter import metadata as own_data
from submitter.errors import InputError
from submitter.pictures import images
from submitter.pictures.garments import prepare_garments, select_garments
from submitter.providers import Provider
from submitter.providers.base import is_url

LONGEST_TEXT = 200  # characters of a reference or of the name of a model
# Without characters that control a terminal or the direction of text, that look like a space, or
# that no font has.
TEXT = (
    r"^[^\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f"
    r"\u205f-\u206f\u3000\ue000-\uf8ff\ufeff\ufff0-\uffff]+$"
)
PICTURE_NAMES = ("human", "cloth", "cloth2")
_TEXT = re.compile(TEXT.replace("\\ue000", "\\ud800"))  # no schema can name lone surrogates
UNUSABLE = (*BROKEN, Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)

# Not structlog, which would print to the output of programs that call `submitter.submit`.
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TryOnInputs:
    """The inputs of one try-on. Each picture is a URL or raw Base64."""

    human: str
    cloth: str
    reference: str | None = None
    model: str | None = None
    merged: tuple[bytes, ...] = ()  # the garments from which `cloth` was merged, if it was
    metadata: Mapping[str, Any] = field(default_factory=dict)


def prepare_inputs(
    adapter: Provider,
    human: str | os.PathLike[str],
    cloth: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    reference: str | None = None,
    model: str | None = None,
    folder: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> TryOnInputs:
    """Check the inputs for this provider and return them. Raises InputError.

    `human` is a path or a URL, and `cloth` is one or two of them, optionally with a label
    (`upper:shirt.png`). Relative paths start at `folder`.
    """
    check_texts(reference, model)
    check_model(adapter, model)
    checked_metadata = own_data.check(metadata)
    several = cloth if isinstance(cloth, Sequence) and not isinstance(cloth, str) else (cloth,)
    given = [_path_or_url("cloth", one) for one in several]
    garments = select_garments(given, adapter, model or adapter.default_model)
    person = images.prepare("human", images.resolve_path(_path_or_url("human", human), folder))
    picture = prepare_garments(garments, folder)
    adapter.pictures.check("human", person)
    adapter.pictures.check("cloth", picture.cloth)
    reference = without_blanks(reference)
    return TryOnInputs(person, picture.cloth, reference, model, picture.merged, checked_metadata)


def _path_or_url(field: str, given: object) -> str:
    """Return the path or URL as text. Raises InputError."""
    if isinstance(given, os.PathLike):
        given = os.fspath(given)
    if not isinstance(given, str):
        raise InputError(field, f"use a path or a URL, not {type(given).__name__}")
    return given


def without_blanks(reference: str | None) -> str | None:
    """Return the reference without the blanks around it, which nobody sees; None if it is blank.

    The rows of a batch are read in the same way.
    """
    return (reference or "").strip() or None


def check_texts(reference: str | None, model: str | None) -> None:
    """Raise InputError if a text is empty, too long or contains control characters."""
    for name, text in (("reference", reference), ("model", model)):
        if text is not None and not _is_printable(text):
            raise InputError(name, f"use 1 to {LONGEST_TEXT} printable characters")


def _is_printable(text: object) -> bool:
    return isinstance(text, str) and len(text) <= LONGEST_TEXT and bool(_TEXT.fullmatch(text))


def check_model(adapter: Provider, model: str | None) -> None:
    """Raise InputError if a model is given and the provider does not accept one."""
    if model is not None and adapter.default_model is None:
        raise InputError("model", f"{adapter.name} does not accept a model; omit it")


def store_thumbnails(store: Store, task_id: str, inputs: TryOnInputs) -> None:
    """Store a thumbnail of each picture beside the task; a failure is only logged."""
    small = thumbnails(inputs)
    if not small:
        return
    try:
        store.inbox.keep_inputs(task_id, small)
    except (StoreError, NotFound) as error:
        log.warning("the pictures of task %s could not be stored: %s", task_id, error)


def thumbnails(inputs: TryOnInputs) -> dict[str, bytes]:
    """Return the thumbnails by name. Pictures behind a URL are not fetched, and so left out."""
    small: dict[str, bytes] = {}
    cloths = inputs.merged or (inputs.cloth,)
    for name, picture in zip(PICTURE_NAMES, (inputs.human, *cloths), strict=False):
        if isinstance(picture, str) and is_url(picture):
            continue
        try:
            content = base64.b64decode(picture) if isinstance(picture, str) else picture
            with opened(io.BytesIO(content), images.FORMATS) as image:
                small[name] = thumbnail(image)
        except UNUSABLE as error:
            log.warning("the thumbnail of %s could not be made: %s", name, type(error).__name__)
    return small
