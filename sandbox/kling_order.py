"""Reads a create request for Kling's virtual try-on, or names the field that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sandbox import inputs
from sandbox.engine import Order
from sandbox.kling_envelope import KlingError

if TYPE_CHECKING:
    from collections.abc import Mapping

MODELS = ("kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5")


def read(body: Any, own_url: str) -> Order:
    """Return the order in a decoded JSON body; raise KlingError 1200, 1201 or 1203."""
    if not isinstance(body, dict):
        raise KlingError(1200, "the request body must be a JSON object")
    return Order(
        provider="kling",
        model=_model(body),
        callback_url=_callback_url(body),
        external_task_id=_text(body, "external_task_id"),
        human=_picture(body, "human_image", own_url),
        cloth=_picture(body, "cloth_image", own_url),
    )


def _text(body: Mapping[str, Any], field: str) -> str | None:
    value = body.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise KlingError(1201, f"{field} must be a string")
    return value


def _model(body: Mapping[str, Any]) -> str:
    model = _text(body, "model_name") or MODELS[0]
    if model not in MODELS:
        raise KlingError(1203, f"model_name value '{model}' does not exist")
    return model


def _callback_url(body: Mapping[str, Any]) -> str | None:
    url = _text(body, "callback_url")
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_web = False
    if not is_web:
        raise KlingError(1201, "callback_url must be an http or https URL")
    return url


def _picture(body: Mapping[str, Any], field: str, own_url: str) -> bytes:
    value = _text(body, field)
    if value is None:
        raise KlingError(1201, f"{field} is required")
    try:
        return inputs.read(value, own_url)
    except inputs.InputError as fault:
        raise KlingError(1201, f"{field} {fault}") from None
