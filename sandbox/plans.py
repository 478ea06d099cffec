"""What becomes of one callback on its way: a plan turns it into those that are really sent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

from sandbox.notices import Manner, Notice

Plan = Callable[[Notice], tuple[Notice, ...]]

RISK = "Failure to pass the risk control system"
AT_ONCE = 20
STALE = 3600  # seconds
EMPTY: dict[str, list[str]] = {"images": [], "videos": [], "audios": []}


def once(notice: Notice) -> tuple[Notice, ...]:
    return (notice,)


def never(_: Notice) -> tuple[Notice, ...]:
    return ()


def twice(notice: Notice) -> tuple[Notice, ...]:
    return (notice, notice)


def at_once(notice: Notice) -> tuple[Notice, ...]:
    return (replace(notice, copies=AT_ONCE),)


def backwards(notice: Notice) -> tuple[Notice, ...]:
    """What was to come before the end comes after it, last things first."""
    return (replace(notice, held=not notice.is_end),)


def with_a_late_one(notice: Notice) -> tuple[Notice, ...]:
    if not notice.is_end:
        return (notice,)
    return (notice, notice.saying(task_status="processing", task_result={}))


def without_the_end(notice: Notice) -> tuple[Notice, ...]:
    return () if notice.is_end else (notice,)


def late(notice: Notice) -> tuple[Notice, ...]:
    return (replace(notice, delay=5.0) if notice.is_end else notice,)


def truncated(notice: Notice) -> tuple[Notice, ...]:
    half = replace(notice, body=notice.body[: len(notice.body) // 2], insisted=False)
    return (half.signed(), notice)


def broken_off(notice: Notice) -> tuple[Notice, ...]:
    return (replace(notice, manner=Manner.BROKEN_OFF, insisted=False), notice)


def impatient(notice: Notice) -> tuple[Notice, ...]:
    return (replace(notice, manner=Manner.HANGS_UP, insisted=False), notice)


def then_failed(notice: Notice) -> tuple[Notice, ...]:
    if not notice.is_end:
        return (notice,)
    failed = {"task_status": "failed", "task_status_msg": RISK, "task_result": EMPTY}
    return (notice, notice.saying(**failed))


def without_media(notice: Notice) -> tuple[Notice, ...]:
    return (notice.saying(task_result=EMPTY) if notice.is_end else notice,)


def without_the_last_output(notice: Notice) -> tuple[Notice, ...]:
    if not notice.is_end:
        return (notice,)
    result = notice.document["task_result"]
    images = [*result["images"][:-1], None]
    return (notice.saying(task_result={**result, "images": images}),)


def with_a_foreign_message(notice: Notice) -> tuple[Notice, ...]:
    """What Replicate sends when a prediction failed; some of its keys are Kling's as well."""
    if not notice.is_end:
        return (notice,)
    prediction = {
        "id": "aaaaaaaaaaaaaaaaaaaaaaaaaa",
        "model": "cuuupid/idm-vton",
        "version": "hidden",
        "input": {"garment_des": "white shirt"},
        "output": None,
        "logs": "",
        "error": "CUDA out of memory",
        "status": "failed",
        "created_at": "2026-11-18T11:06:15.127Z",
        "completed_at": "2026-11-18T11:06:20Z",
        "urls": {"get": "https://api.replicate.com/v1/predictions/aaaaaaaaaaaaaaaaaaaaaaaaaa"},
    }
    foreign = replace(notice, body=json.dumps(prediction).encode(), status="failed").signed()
    return (replace(foreign, insisted=False), notice)


def with_an_unknown_status(notice: Notice) -> tuple[Notice, ...]:
    if not notice.is_end:
        return (notice,)
    return (replace(notice.saying(task_status="upscaling"), insisted=False), notice)


def with_odd_fields(notice: Notice) -> tuple[Notice, ...]:
    """Every field but the id, the status and the URL of the result has an unexpected type."""
    document = notice.document
    odd: dict[str, object] = {"note": "\ud83d cut off", "trace": {"tags": [None, 1e400]}}
    if "task_status" in document:
        result = {**document["task_result"], "videos": {}, "audios": None}
        odd |= {"task_result": result if notice.is_end else [], "task_info": []}
        odd["task_status_msg"] = 0
        odd |= {"created_at": "yesterday", "updated_at": None, "final_unit_deduction": 1}
    else:
        odd |= {"message": [], "create_time": "", "update_time": None, "billing": ""}
    return (notice.saying(**odd),)


def wrongly_signed(notice: Notice) -> tuple[Notice, ...]:
    other = replace(notice, body=notice.body + b" ").signed()  # of another body
    return (replace(notice, headers=other.headers, insisted=False), notice)


def stale(notice: Notice) -> tuple[Notice, ...]:
    old = notice.signed(int(time.time()) - STALE)
    return (replace(old, insisted=False), notice)


def with_a_forged_token(notice: Notice) -> tuple[Notice, ...]:
    forged = notice.url[:-1] + ("A" if notice.url[-1] != "A" else "B")
    return (replace(notice, url=forged, insisted=False), notice)
