"""Parses a create request of Kling's virtual try-on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox.engine import CreateRequest
from sandbox.providers import request_fields
from sandbox.providers.kling_envelope import KlingError

if TYPE_CHECKING:
    from collections.abc import Mapping

MODELS = ("kolors-virtual-try-on-v1", "kolors-virtual-try-on-v1-5")


def read(body: Any, own_url: str) -> CreateRequest:
    """Return the request in a decoded JSON body; raise KlingError 1200, 1201 or 1203."""
    if not isinstance(body, dict):
        raise KlingError(1200, "the request body must be a JSON object")
    try:
        return _order(body, own_url)
    except request_fields.FieldError as wrong:
        raise KlingError(1201, str(wrong)) from None


def _order(body: Mapping[str, Any], own_url: str) -> CreateRequest:
    return CreateRequest(
        provider="kling",
        model=_model(body),
        callback_url=request_fields.web_address(body, "callback_url"),
        external_task_id=request_fields.text(body, "external_task_id"),
        human=request_fields.picture(body, "human_image", own_url),
        cloth=request_fields.picture(body, "cloth_image", own_url),
    )


def _model(body: Mapping[str, Any]) -> str:
    model = request_fields.text(body, "model_name") or MODELS[0]
    if model not in MODELS:
        raise KlingError(1203, f"model_name value '{model}' does not exist")
    return model
