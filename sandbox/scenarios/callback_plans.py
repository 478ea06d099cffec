"""Plans: each turns one callback into the callbacks that are actually sent."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from sandbox.outgoing_callbacks import OutgoingCallback, Transmission

Plan = Callable[[OutgoingCallback], tuple[OutgoingCallback, ...]]

RISK = "Failure to pass the risk control system"
AT_ONCE = 20
STALE = 3600  # seconds
TOO_LONG = 300_000  # bytes; this receiver accepts less than 256 KB
EMPTY: dict[str, list[str]] = {"images": [], "videos": [], "audios": []}


def once(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (callback,)


def never(_: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return ()


def twice(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (callback, callback)


def at_once(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (replace(callback, copies=AT_ONCE),)


def backwards(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Send the final callback first, and the earlier ones after it in reverse order."""
    return (replace(callback, held=not callback.is_end),)


def with_a_late_one(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    if not callback.is_end:
        return (callback,)
    return (callback, callback.with_fields(task_status="processing", task_result={}))


def without_the_end(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return () if callback.is_end else (callback,)


def late(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (replace(callback, delay=5.0) if callback.is_end else callback,)


def truncated(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    half = replace(callback, body=callback.body[: len(callback.body) // 2], insisted=False)
    return (half.signed(), callback)


def broken_off(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (replace(callback, transmission=Transmission.BROKEN_OFF, insisted=False), callback)


def impatient(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (replace(callback, transmission=Transmission.HANGS_UP, insisted=False), callback)


def then_failed(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    if not callback.is_end:
        return (callback,)
    failed = {"task_status": "failed", "task_status_msg": RISK, "task_result": EMPTY}
    return (callback, callback.with_fields(**failed))


def without_media(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (callback.with_fields(task_result=EMPTY) if callback.is_end else callback,)


def without_the_last_output(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    if not callback.is_end:
        return (callback,)
    result = callback.document["task_result"]
    images = [*result["images"][:-1], None]
    return (callback.with_fields(task_result={**result, "images": images}),)


def with_a_foreign_message(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Send what Replicate sends for a failed prediction; Kling has some of the same keys."""
    if not callback.is_end:
        return (callback,)
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
    foreign = replace(callback, body=json.dumps(prediction).encode(), status="failed").signed()
    return (replace(foreign, insisted=False), callback)


def with_an_unknown_status(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    if not callback.is_end:
        return (callback,)
    return (replace(callback.with_fields(task_status="upscaling"), insisted=False), callback)


def with_odd_fields(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Give all fields except the id, the status and the result URL unexpected types."""
    document = callback.document
    odd: dict[str, object] = {"note": "\ud83d cut off", "trace": {"tags": [None, 1e400]}}
    if "task_status" in document:
        result = {**document["task_result"], "videos": {}, "audios": None}
        odd |= {"task_result": result if callback.is_end else [], "task_info": []}
        odd["task_status_msg"] = 0
        odd |= {"created_at": "yesterday", "updated_at": None, "final_unit_deduction": 1}
    else:
        odd |= {"message": [], "create_time": "", "update_time": None, "billing": ""}
    return (callback.with_fields(**odd),)


def compressed(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Compress the last callback with gzip, and earlier ones with deflate (zlib or raw)."""
    if callback.is_end:
        return (callback.with_body(gzip.compress(callback.body), Content_Encoding="gzip"),)
    window = zlib.MAX_WBITS if callback.status == "submitted" else -zlib.MAX_WBITS
    return (
        callback.with_body(zlib.compress(callback.body, wbits=window), Content_Encoding="deflate"),
    )


def oddly_encoded(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Add a byte order mark, and change or remove the Content-Type."""
    charset = "utf-16" if callback.status == "processing" else "utf-8-sig"
    kind = "application/x-www-form-urlencoded" if callback.is_end else ""
    odd = callback.with_body(callback.body.decode().encode(charset), Content_Type=kind)
    if not kind:
        headers = {name: value for name, value in odd.headers.items() if name != "Content-Type"}
        odd = replace(odd, headers=headers)
    return (odd,)


def to_an_altered_url(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Alter the URL as clients and proxies do: slashes, a space, a query."""
    parts = urlsplit(callback.url)
    path = parts.path.replace("/", "//") if callback.status == "submitted" else parts.path
    behind = "%20" if callback.is_end else "/"
    url = parts._replace(path=path + behind, query="source=sandbox").geturl()
    return (replace(callback, url=url),)


def probed(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Request the URL by HEAD and GET before the callback."""
    probe = replace(callback, method="HEAD", insisted=False).with_body(b"")
    return (probe, replace(probe, method="GET"), callback)


def tested(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Send a signed message about no task to the URL without a token, like a console's test."""
    path = "/".join(urlsplit(callback.url).path.split("/")[:3])
    url = urlsplit(callback.url)._replace(path=path).geturl()
    test = replace(callback, url=url, insisted=False)
    return (test.with_body(b'{"type":"test","message":"from the console"}'), callback)


def oversized(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Send a body that is too long first, then one that is too long when decompressed."""
    padded = callback.body[:-1] + b" " * TOO_LONG + b"}"
    once_only = replace(callback, insisted=False)
    packed = once_only.with_body(gzip.compress(padded), Content_Encoding="gzip")
    return (once_only.with_body(padded), packed, callback)


def with_another_task(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Send the final callback of another task to the same callback URL first."""
    other = str(int(callback.task_id) + 1)
    # also in the result URL
    body = callback.body.replace(callback.task_id.encode(), other.encode())
    changed = replace(callback, body=body).with_fields(task_info={})
    return (changed, callback) if callback.is_end else (callback, changed)


def wrongly_signed(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    other = replace(callback, body=callback.body + b" ").signed()  # the signature of another body
    return (replace(callback, headers=other.headers, insisted=False), callback)


def stale(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    old = callback.signed(int(time.time()) - STALE)
    return (replace(old, insisted=False), callback)


def with_a_forged_token(callback: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    forged = callback.url[:-1] + ("A" if callback.url[-1] != "A" else "B")
    return (replace(callback, url=forged, insisted=False), callback)
