"""Personal words are found in every form in which a text repeats them; other words are not."""

from __future__ import annotations

import html
import json
import unicodedata
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from receiver.stores.sql.echoes import LONGEST, ErasedTerms
from tests.support.steps import refusing_long_runs

NAME = "Zoë O'Hara/42 & Söhne"
ESCAPES: list[Callable[[str], str]] = [
    str,
    str.upper,
    str.lower,
    quote,
    quote_plus,
    lambda text: quote(text, safe=""),
    lambda text: quote(quote(text, safe=""), safe="").lower(),
    html.escape,
    json.dumps,
    lambda text: json.dumps(json.dumps(text)),
    lambda text: json.dumps(text).replace("/", "\\/"),
    lambda text: "".join(f"\\u{ord(letter):04X}" for letter in text),
    lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    lambda text: quote(json.dumps(text)),
    lambda text: f"  {text.replace(' ', chr(10))}  ",
    lambda text: "".join(one if one.isascii() and one.isalnum() else "_" for one in text),
]


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("around", ["{}", "no customer {}!", '{{"error": "<b>{}</b>"}}'])
def test_a_word_is_found_in_every_form(escape: Callable[[str], str], around: str) -> None:
    text = around.format(escape(NAME))
    assert ErasedTerms.of([NAME]).are_in(text)
    assert ErasedTerms.of([None, "another word", NAME]).are_in(text.encode())
    assert not ErasedTerms.of(["another word"]).are_in(text)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("order-1", "order-12 is unknown"),
        ("order-12", "order-123 is unknown"),
        ("anna", "Annabel is unknown"),
        ("anna", "Johanna is unknown"),
        ("200", "answered 200"),  # too short to identify anything
        ("", "answered 200"),
        ("   ", "answered 200"),
        (None, "None"),
    ],
)
def test_a_part_of_another_word_is_not_found(word: str | None, text: str) -> None:
    assert not ErasedTerms.of([word]).are_in(text)


@pytest.mark.parametrize("text", ["order-1", "(order-1)", "order_1: order-1.", "a/order-1/b.png"])
def test_a_word_is_found_whatever_surrounds_it(text: str) -> None:
    assert ErasedTerms.of(["order-1"]).are_in(text)


@pytest.mark.parametrize("piece", ["%25", "\\u005c", "&amp;", "order-", "%", "\\", "&#", "\ud800"])
def test_a_hostile_text_is_decoded_in_a_limited_number_of_rounds(piece: str) -> None:
    text = piece * (LONGEST // len(piece))
    assert not ErasedTerms.of(["order-1", "Anna of Example Street"]).are_in(text)
    assert not ErasedTerms.of(["order-1"]).are_in(text.encode("utf-8", "surrogatepass"))


def test_a_number_of_any_length_causes_no_error() -> None:
    """Python refuses to convert more than 4,300 digits."""
    for digits in ("1" * 5000, "0" * 5000 + "65"):
        assert ErasedTerms.of(["order-1"]).are_in(f"&#{digits}; order-1")
        assert not ErasedTerms.of(["order-1"]).are_in(f"&#{digits}")


@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u0f73", "\u0344\u0334"])
def test_combining_characters_are_normalized_in_short_runs(
    marks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are sorted, which takes quadratic time: a body of 120 kB took 38 s."""
    monkeypatch.setattr(unicodedata, "normalize", refusing_long_runs(unicodedata.normalize))
    text = f"Zoë {marks * 1000} Zoe\u0308 M\u00fcller {marks * 1000}"
    assert ErasedTerms.of(["zoë müller"]).are_in(text)
    assert not ErasedTerms.of(["zoe muller"]).are_in(text)
