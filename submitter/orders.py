"""What a user wants made, checked as far as it can be without the provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from submitter import garments, images
from submitter.errors import InputError
from submitter.providers import Provider

LONGEST_TEXT = 200  # characters of a reference or a model's name


@dataclass(frozen=True, slots=True)
class Order:
    """One try-on: pictures as a URL or raw Base64."""

    human: str
    cloth: str
    reference: str | None = None
    model: str | None = None
    merged: tuple[bytes, ...] = ()  # the garments that `cloth` was made of, if it was


def prepare(
    room: Provider,
    human: str,
    cloth: str | Sequence[str],
    reference: str | None = None,
    model: str | None = None,
    folder: Path | None = None,
) -> Order:
    """The order for this provider. Nothing is sent and nothing paid for; raises InputError.

    `human` is a path or a URL, `cloth` one or two, each perhaps with a label (`upper:shirt.png`).
    Relative paths start at `folder`.
    """
    check_texts(reference, model)
    if model is not None and room.default_model is None:
        raise InputError("model", f"{room.name} takes no model; leave it off")
    given = (cloth,) if isinstance(cloth, str) else tuple(cloth)
    chosen = garments.chosen(given, room, model or room.default_model)
    person = images.prepare("human", images.located(human, folder))
    sent = garments.prepare(chosen, folder)
    room.pictures.check("human", person)
    room.pictures.check("cloth", sent.cloth)
    return Order(person, sent.cloth, reference, model, sent.merged)


def check_texts(reference: str | None, model: str | None) -> None:
    """Raises InputError for what is too long, empty or steers a terminal."""
    for field, text in (("reference", reference), ("model", model)):
        if text is not None and not (0 < len(text) <= LONGEST_TEXT and text.isprintable()):
            raise InputError(field, f"use 1 to {LONGEST_TEXT} printable characters")
