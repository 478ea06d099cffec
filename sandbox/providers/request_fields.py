"""The fields of a create request, with the checks and the errors that all providers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sandbox.providers import input_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.providers.input_pictures import PictureSource

# The picture that replaces one of the vendors' samples in this field; a person in any other.
SAMPLES = {"cloth_image": input_pictures.GARMENT, "image_tail": input_pictures.GARMENT}


class ApiError(Exception):
    """An error response: the provider's error code, or the HTTP status if it has none."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class FieldError(ValueError):
    """The field is invalid. Each provider words the response in its own way."""

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(f"{field} {fault}")
        self.field = field
        self.fault = fault


def text(body: Mapping[str, Any], field: str) -> str | None:
    """Return the string; None when it is missing or empty."""
    value = body.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise FieldError(field, "must be a string")
    return value


def picture(body: Mapping[str, Any], field: str, source: PictureSource) -> bytes:
    """Return the picture, given as raw Base64 or as a URL."""
    value = text(body, field)
    if value is None:
        raise FieldError(field, "is required")
    try:
        return source.read(value, SAMPLES.get(field, input_pictures.PERSON))
    except input_pictures.InputError as fault:
        raise FieldError(field, str(fault)) from None


def web_address(body: Mapping[str, Any], field: str) -> str | None:
    """Return the URL; None when it is missing or empty."""
    url = text(body, field)
    if url is not None and not _is_web(url):
        raise FieldError(field, "must be an http or https URL")
    return url


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
