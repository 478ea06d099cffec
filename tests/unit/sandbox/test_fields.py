"""The error names the wrong field of a request, whatever is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.providers import request_fields
from sandbox.providers.input_pictures import PictureSource
from sandbox.providers.request_fields import FieldError

SOURCE = PictureSource("http://127.0.0.1:8900")


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_field_and_an_empty_one_are_the_same(value: Any) -> None:
    body = {"callback_url": value}
    assert request_fields.web_address(body, "callback_url") is None
    assert request_fields.web_address({}, "callback_url") is None
    with pytest.raises(FieldError, match="human_image is required"):
        request_fields.picture({"human_image": value}, "human_image", SOURCE)


@pytest.mark.parametrize("url", ["http://x.example", "https://x.example:8443/a?b=c"])
def test_a_web_address_is_accepted_unchanged(url: str) -> None:
    assert request_fields.web_address({"callback_url": url}, "callback_url") == url


@pytest.mark.parametrize(
    "url", ["x.example", "ftp://x.example", "http://", "http://[", "http://x.example:port/", "/a"]
)
def test_anything_but_a_web_address_is_refused(url: str) -> None:
    with pytest.raises(FieldError, match="callback_url must be an http or https URL") as refused:
        request_fields.web_address({"callback_url": url}, "callback_url")
    assert (refused.value.field, refused.value.fault[:7]) == ("callback_url", "must be")


@pytest.mark.parametrize("value", [7, True, [], {}])
def test_another_type_is_refused(value: Any) -> None:
    with pytest.raises(FieldError, match="cloth_image must be a string"):
        request_fields.picture({"cloth_image": value}, "cloth_image", SOURCE)


def test_the_error_of_a_picture_is_passed_on() -> None:
    with pytest.raises(FieldError, match="human_image must be raw Base64"):
        request_fields.picture({"human_image": "data:image/png;base64,AA=="}, "human_image", SOURCE)
