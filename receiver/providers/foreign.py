"""Recognises messages of other providers whose callback URL was pointed at Kling's.

Sources of the shapes: the providers' pages and recorded messages (seen 2026-11). Some of them have
`id` and `status` as Kling's new dialect does, and spell some statuses alike, above all `failed`.
A message is another provider's only if Kling's cannot have its shape: a single key is decoration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

Check = Callable[[object], bool]

# Keys of both dialects of Kling, and of the envelope of its responses.
_LEGACY = frozenset({"task_id", "task_status", "task_status_msg", "task_info", "task_result"})
_NEW_ALONE = frozenset({"create_time", "update_time", "external_id", "billing"})  # of Kling alone
_NEW = _NEW_ALONE | {"id", "status", "message"}
_ENVELOPE = frozenset({"code", "message", "request_id", "data"})
KLINGS = (_LEGACY | _NEW) - {"id"}  # an id in the form of another provider is not Kling's
_COMMON = KLINGS | _ENVELOPE | {"error"}  # say nothing about who sent the message
ENOUGH = 2  # keys of another provider


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
    """Kling's `outputs` are objects."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _written(pattern: str) -> Check:
    """An id of the provider's own form; Kling's are 18 digits, or 22 letters and digits."""
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _one_of(*spellings: str) -> Check:
    return lambda value: isinstance(value, str) and value.lower() in spellings


# The keys of each provider's messages, and what they hold. Kling's own spellings of a status are
# left out.
SHAPES: Mapping[str, Mapping[str, Check]] = {
    "FASHN": {
        "id": _written(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-u[0-9]{1,3})?"),
        "status": _one_of("starting", "in_queue", "completed", "canceled", "time_out"),
        "output": _array,
        "error": _any,
    },
    "Replicate": {
        "id": _written(r"[a-z0-9]{26}"),
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
        "id": _written(r"pred_[A-Za-z0-9_-]{1,64}|[0-9a-f]{32}"),
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
        "id": _written(r"qvideo-[A-Za-z0-9_-]{1,128}"),
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


def foreign_provider(document: Mapping[str, Any], statuses: Collection[str]) -> str | None:
    """The provider whose message this looks like; None for Kling's and for an unknown sender's.

    `statuses`: Kling's, in lower case.
    """
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
        is_theirs = len(found - KLINGS) >= ENOUGH
        return provider if is_theirs else "FASHN" if _is_failure_of_fashn(document) else None
    is_telling = bool(found - _COMMON) or ("status" in found)
    return provider if len(found) >= ENOUGH and is_telling else None


def _is_surely_kling(document: Mapping[str, Any]) -> bool:
    outputs = document.get("outputs")
    has_outputs = isinstance(outputs, list) and any(isinstance(one, dict) for one in outputs)
    return has_outputs or bool(document.keys() & _NEW_ALONE)


def _is_failure_of_fashn(document: Mapping[str, Any]) -> bool:
    """FASHN's failure has one key more than the shortest message of Kling, and no text of Kling."""
    error = document.get("error")
    return (
        isinstance(error, dict)
        and {"name", "message"} <= error.keys()
        and not document.keys() & {"message", "outputs"}
    )
