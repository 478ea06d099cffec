"""Recognises messages of other providers that arrive at the callback URL of a Kling task.

The shapes are from the providers' documentation and recorded messages (2026-11). Some messages have
`id` and `status`, like Kling's new dialect, and share some statuses, above all `failed`. A message
is attributed to another provider only if Kling could not have sent it; a single key proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from receiver.errors import NotTheProtocol

Check = Callable[[object], bool]

# Keys of both dialects of Kling, and of the envelope of its responses.
_LEGACY = frozenset({"task_id", "task_status", "task_status_msg", "task_info", "task_result"})
_NEW_ALONE = frozenset({"create_time", "update_time", "external_id", "billing"})  # only Kling's
_NEW = _NEW_ALONE | {"id", "status", "message"}
_ENVELOPE = frozenset({"code", "message", "request_id", "data"})
KLING_KEYS = (_LEGACY | _NEW) - {"id"}  # without `id`: its format can show another provider
_AMBIGUOUS_KEYS = KLING_KEYS | _ENVELOPE | {"error"}  # do not identify the sender
MIN_KEYS = 2  # keys of a provider that a message has to contain


def _any(_: object) -> bool:
    return True


def _text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _object(value: object) -> bool:
    return value is None or isinstance(value, dict)


def _array(value: object) -> bool:
    return value is None or isinstance(value, list)


def _urls(value: object) -> bool:
    """Return whether the value is a list of URLs; Kling's `outputs` are objects."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _matching(pattern: re.Pattern[str]) -> Check:
    """Return a check for an id format; Kling's ids have 18 digits, or 22 letters and digits."""
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _one_of(*spellings: str) -> Check:
    return lambda value: isinstance(value, str) and value.lower() in spellings


# The keys of each provider's messages, with checks of their values. Statuses that Kling also uses
# are omitted.
SHAPES: Mapping[str, Mapping[str, Check]] = {
    "FASHN": {
        "id": _matching(re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-u[0-9]{1,3})?")),
        "status": _one_of("starting", "in_queue", "completed", "canceled", "time_out"),
        "output": _array,
        "error": _any,
    },
    "Replicate": {
        "id": _matching(re.compile(r"[a-z0-9]{26}")),
        "status": _one_of("starting", "canceled", "aborted"),
        "input": _object,
        "output": _any,
        "error": _text,
        "logs": _text,
        "metrics": _object,
        "model": _text,
        "version": _text,
        "urls": _object,
        "created_at": _text,
        "started_at": _text,
        "completed_at": _text,
        "data_removed": _any,
        "webhook": _text,
        "webhook_events_filter": _array,
    },
    "WaveSpeed": {
        "id": _matching(re.compile(r"pred_[A-Za-z0-9_-]{1,64}|[0-9a-f]{32}")),
        "status": _one_of("created", "completed"),
        "outputs": _urls,
        "error": _text,
        "input": _object,
        "model": _text,
        "urls": _object,
        "created_at": _text,
        "has_nsfw_contents": _any,
        "timings": _object,
        "executionTime": _number,
    },
    "Qiniu": {
        "id": _matching(re.compile(r"qvideo-[A-Za-z0-9_-]{1,128}")),
        "status": _one_of(
            "initializing",
            "queued",
            "in_progress",
            "downloading",
            "uploading",
            "completed",
            "cancelled",
        ),
        "object": _text,
        "model": _text,
        "mode": _text,
        "progress": _number,
        "created_at": _number,
        "updated_at": _number,
        "completed_at": _any,
        "expires_at": _any,
        "seconds": _any,
        "size": _text,
        "remixed_from_video_id": _text,
        "error": _object,
        "task_result": _object,
    },
    "fal": {
        "request_id": _text,
        "gateway_request_id": _text,
        "status": _one_of("ok", "error", "in_queue", "in_progress", "completed"),
        "payload": _any,
        "payload_error": _text,
        "error": _text,
        "response_url": _text,
        "status_url": _text,
        "cancel_url": _text,
        "queue_position": _any,
        "logs": _any,
        "metrics": _object,
    },
    "PiAPI": {
        "timestamp": _any,
        "data": _object,
        "task_id": _text,
        "status": _one_of("completed", "pending", "running", "staged"),
        "model": _text,
        "task_type": _text,
        "config": _object,
        "input": _object,
        "output": _any,
        "meta": _object,
        "detail": _any,
        "logs": _any,
        "error": _object,
    },
    "kie.ai": {
        "code": _number,
        "msg": _text,
        "data": _object,
        "taskId": _text,
        "state": _text,
        "model": _text,
        "param": _text,
        "resultJson": _text,
        "failCode": _any,
        "failMsg": _text,
        "costTime": _any,
        "completeTime": _any,
        "createTime": _any,
    },
    "Freepik": {
        "task_id": _text,
        "status": _one_of("created", "in_progress", "completed"),
        "generated": _array,
        "has_nsfw": _any,
    },
}


def refuse_foreign(document: Mapping[str, Any], statuses: Collection[str]) -> None:
    """Raise NotTheProtocol for a message of another provider, naming it.

    `statuses` are Kling's, in lower case.
    """
    provider = _foreign_provider(document, statuses)
    if provider is not None:
        raise NotTheProtocol(
            f"this looks like a message of {provider}, not of Kling; expected task_id and "
            "task_status, or id and status. Use the callback URL of a Kling task only for Kling"
        )


def _foreign_provider(document: Mapping[str, Any], statuses: Collection[str]) -> str | None:
    """Return the other provider that this message looks like; None for Kling or an unknown one."""
    keys = document.keys()
    if {"task_id", "task_status"} <= keys:
        return None
    is_kling_possible = {"id", "status"} <= keys and _one_of(*statuses)(document["status"])
    if is_kling_possible and _is_surely_kling(document):
        return None
    fitting = {
        provider: {key for key, fits in shape.items() if key in keys and fits(document[key])}
        for provider, shape in SHAPES.items()
    }
    provider = max(fitting, key=lambda one: len(fitting[one]))
    found = fitting[provider]
    if is_kling_possible:
        is_foreign = len(found - KLING_KEYS) >= MIN_KEYS
        return provider if is_foreign else "FASHN" if _is_failure_of_fashn(document) else None
    is_specific = bool(found - _AMBIGUOUS_KEYS) or ("status" in found)
    return provider if len(found) >= MIN_KEYS and is_specific else None


def _is_surely_kling(document: Mapping[str, Any]) -> bool:
    outputs = document.get("outputs")
    has_outputs = isinstance(outputs, list) and any(isinstance(one, dict) for one in outputs)
    return has_outputs or bool(document.keys() & _NEW_ALONE)


def _is_failure_of_fashn(document: Mapping[str, Any]) -> bool:
    """Return whether the message is a FASHN failure, which looks like a short one of Kling's."""
    error = document.get("error")
    return (
        isinstance(error, dict)
        and {"name", "message"} <= error.keys()
        and not document.keys() & {"message", "outputs"}
    )
