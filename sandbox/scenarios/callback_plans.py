"""What becomes of one callback on its way: a plan turns it into those that are really sent."""

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


def once(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (notice,)


def never(_: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return ()


def twice(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (notice, notice)


def at_once(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (replace(notice, copies=AT_ONCE),)


def backwards(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """What was to come before the end comes after it, last things first."""
    return (replace(notice, held=not notice.is_end),)


def with_a_late_one(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    if not notice.is_end:
        return (notice,)
    return (notice, notice.saying(task_status="processing", task_result={}))


def without_the_end(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return () if notice.is_end else (notice,)


def late(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (replace(notice, delay=5.0) if notice.is_end else notice,)


def truncated(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    half = replace(notice, body=notice.body[: len(notice.body) // 2], insisted=False)
    return (half.signed(), notice)


def broken_off(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (replace(notice, manner=Transmission.BROKEN_OFF, insisted=False), notice)


def impatient(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (replace(notice, manner=Transmission.HANGS_UP, insisted=False), notice)


def then_failed(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    if not notice.is_end:
        return (notice,)
    failed = {"task_status": "failed", "task_status_msg": RISK, "task_result": EMPTY}
    return (notice, notice.saying(**failed))


def without_media(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    return (notice.saying(task_result=EMPTY) if notice.is_end else notice,)


def without_the_last_output(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    if not notice.is_end:
        return (notice,)
    result = notice.document["task_result"]
    images = [*result["images"][:-1], None]
    return (notice.saying(task_result={**result, "images": images}),)


def with_a_foreign_message(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Send what Replicate sends for a failed prediction; Kling has some of the same keys."""
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


def with_an_unknown_status(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    if not notice.is_end:
        return (notice,)
    return (replace(notice.saying(task_status="upscaling"), insisted=False), notice)


def with_odd_fields(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """All fields except the id, the status and the URL of the result have unexpected types."""
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


def compressed(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Compress the last callback with gzip, and earlier ones with deflate (zlib or raw)."""
    if notice.is_end:
        return (notice.sending(gzip.compress(notice.body), Content_Encoding="gzip"),)
    window = zlib.MAX_WBITS if notice.status == "submitted" else -zlib.MAX_WBITS
    return (notice.sending(zlib.compress(notice.body, wbits=window), Content_Encoding="deflate"),)


def oddly_encoded(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Add a byte order mark, and change or remove the Content-Type."""
    charset = "utf-16" if notice.status == "processing" else "utf-8-sig"
    kind = "application/x-www-form-urlencoded" if notice.is_end else ""
    odd = notice.sending(notice.body.decode().encode(charset), Content_Type=kind)
    if not kind:
        headers = {name: value for name, value in odd.headers.items() if name != "Content-Type"}
        odd = replace(odd, headers=headers)
    return (odd,)


def to_an_altered_url(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Alter the URL as clients and proxies do: slashes, a space, a query."""
    parts = urlsplit(notice.url)
    path = parts.path.replace("/", "//") if notice.status == "submitted" else parts.path
    behind = "%20" if notice.is_end else "/"
    url = parts._replace(path=path + behind, query="source=sandbox").geturl()
    return (replace(notice, url=url),)


def probed(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Request the URL by HEAD and GET before the callback."""
    probe = replace(notice, method="HEAD", insisted=False).sending(b"")
    return (probe, replace(probe, method="GET"), notice)


def tested(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Send a signed message about no task to the URL without a token, like a console's test."""
    path = "/".join(urlsplit(notice.url).path.split("/")[:3])
    url = urlsplit(notice.url)._replace(path=path).geturl()
    test = replace(notice, url=url, insisted=False)
    return (test.sending(b'{"type":"test","message":"from the console"}'), notice)


def oversized(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Send a body that is too long first, then one that is too long when decompressed."""
    padded = notice.body[:-1] + b" " * TOO_LONG + b"}"
    once_only = replace(notice, insisted=False)
    packed = once_only.sending(gzip.compress(padded), Content_Encoding="gzip")
    return (once_only.sending(padded), packed, notice)


def with_another_task(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    """Another task of the provider has the same callback URL, and ends first."""
    other = str(int(notice.task_id) + 1)
    body = notice.body.replace(
        notice.task_id.encode(), other.encode()
    )  # also in the URL of the result
    told = replace(notice, body=body).saying(task_info={})
    return (told, notice) if notice.is_end else (notice, told)


def wrongly_signed(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    other = replace(notice, body=notice.body + b" ").signed()  # of another body
    return (replace(notice, headers=other.headers, insisted=False), notice)


def stale(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    old = notice.signed(int(time.time()) - STALE)
    return (replace(old, insisted=False), notice)


def with_a_forged_token(notice: OutgoingCallback) -> tuple[OutgoingCallback, ...]:
    forged = notice.url[:-1] + ("A" if notice.url[-1] != "A" else "B")
    return (replace(notice, url=forged, insisted=False), notice)
