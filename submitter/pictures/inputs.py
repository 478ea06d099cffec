"""The inputs of a try-on: checked before anything is sent, and optionally stored as thumbnails."""

from __future__ import annotations

import base64
import io
import logging
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
    human: str,
    cloth: str | Sequence[str],
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
    given = (cloth,) if isinstance(cloth, str) else tuple(cloth)
    garments = select_garments(given, adapter, model or adapter.default_model)
    person = images.prepare("human", images.resolve_path(human, folder))
    picture = prepare_garments(garments, folder)
    adapter.pictures.check("human", person)
    adapter.pictures.check("cloth", picture.cloth)
    return TryOnInputs(person, picture.cloth, reference, model, picture.merged, checked_metadata)


def check_texts(reference: str | None, model: str | None) -> None:
    """Raise InputError if a text is empty, too long or contains control characters."""
    for name, text in (("reference", reference), ("model", model)):
        if text is not None and not (len(text) <= LONGEST_TEXT and _TEXT.fullmatch(text)):
            raise InputError(name, f"use 1 to {LONGEST_TEXT} printable characters")


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
