"""Stores files in a bucket of S3 or of a compatible service.

Needs s3fs, an extra. It takes credentials from the environment. Every function ends in time, and
raises OSError with a message of our own; the text of the service's response is not repeated.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from receiver.errors import PermanentFailure
from receiver.pictures.file_types import HEAD, detect

INSTALL = "s3fs is not installed: pip install 's3fs>=2026.1'"
SCHEMES = ("s3://", "s3a://")
ENDPOINT_MARK = "?endpoint_url="
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
PART_SIZE = 8 * 2**20  # bytes in memory; larger files are uploaded in parts of this size
MAX_PARTS = 10_000
CONNECT, READ = 10, 30  # seconds to connect, and to wait for more data
FILE_TIMEOUT = 60.0  # seconds for reading or removing a file
CONFIG = {
    "connect_timeout": CONNECT,
    "read_timeout": READ,
    "retries": {"total_max_attempts": 2},  # a delivery has its own retries
    # Many services do not support the newer checksums; the signature covers the content's SHA-256.
    "request_checksum_calculation": "when_required",
    "s3": {"payload_signing_enabled": True},
}
_REGION = "the bucket is in another region; set AWS_REGION"
_TOKEN = "AWS_SESSION_TOKEN has expired or is wrong; set a fresh one"  # noqa: S105 - a hint
HINTS = {
    "NoSuchBucket": 'there is no such bucket; create it, or correct "to" (or "endpoint_url")',
    "AccessDenied": "access is denied; allow these credentials s3:PutObject, s3:GetObject and "
    "s3:DeleteObject in the bucket",
    "AllAccessDisabled": "access is denied; ask the operator of the service why the bucket is "
    "disabled",
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is unknown to the service; set the right one",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID; "
    "set the right one",
    "ExpiredToken": _TOKEN,
    "InvalidToken": _TOKEN,
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "SlowDown": "the service limits the rate of requests; retry later",
}
# These errors concern one file. All others can be corrected without losing a file, so they are
# retried; meanwhile the hook is paused, and an alert is sent.
PERMANENT = {
    "EntityTooLarge": "the file is larger than the service accepts; lower max_bytes",
    "KeyTooLongError": 'the name of the file is longer than the service accepts; shorten "to" or '
    '"path"',
}


@dataclass(frozen=True, slots=True)
class FileLocation:
    """The location of a file. As text: `s3://bucket/key`, and the endpoint unless it is AWS's."""

    bucket: str
    key: str
    endpoint_url: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the location with this text. Raises ValueError."""
        path, mark, endpoint = url.partition("://")[2].rpartition(ENDPOINT_MARK)
        bucket, _, key = (path if mark else endpoint).partition("/")
        if not BUCKET.fullmatch(bucket):
            raise ValueError("names no bucket; write s3://bucket/prefix")
        return cls(bucket, key.strip("/"), endpoint if mark else None)

    def below(self, name: str) -> FileLocation:
        """Return the location of a file below this one."""
        return replace(self, key=f"{self.key}/{name}".lstrip("/"))

    def __str__(self) -> str:
        endpoint = f"{ENDPOINT_MARK}{self.endpoint_url}" if self.endpoint_url else ""
        return f"s3://{self.bucket}/{self.key}{endpoint}"

    @property
    def service(self) -> str:
        """The name of the service, for people."""
        return urlsplit(self.endpoint_url).netloc if self.endpoint_url else "S3"

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of S3's operations that identify the object."""
        return {"Bucket": self.bucket, "Key": self.key}


def is_bucket_url(url: str) -> bool:
    return url.startswith(SCHEMES)


def put(draft: Path, location: FileLocation, within: float) -> None:
    """Store the file within this many seconds, unless the same content is already stored there.

    S3 shows an object only when it is complete, so a crash leaves nothing visible.
    """
    ends_at = time.monotonic() + within
    with draft.open("rb") as file:
        content_type = detect(file.read(HEAD)).content_type
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = draft.stat().st_size
    with _service(location) as service:
        if _is_stored(service, location, sha256, size, within):
            return
        service.put_file(
            str(draft),
            f"{location.bucket}/{location.key}",
            chunksize=max(PART_SIZE, -(-size // MAX_PARTS)),
            max_concurrency=1,
            Metadata={"sha256": sha256},
            ContentType=content_type,
            timeout=max(ends_at - time.monotonic(), 0.1),
        )


def read(location: FileLocation, limit: int) -> bytes:
    """Return the first `limit` bytes of the file."""
    with _service(location) as service:
        path = f"{location.bucket}/{location.key}"
        return bytes(service.cat_file(path, start=0, end=limit, timeout=FILE_TIMEOUT))


def remove(location: FileLocation) -> None:
    """Delete the file. A missing file is ignored."""
    with _service(location) as service:
        service.call_s3("delete_object", **location.parameters, timeout=FILE_TIMEOUT)


@cache
def file_system(endpoint_url: str | None) -> Any:
    """Return s3fs's object for this service; it connects at the first call. Raises ImportError."""
    try:
        import s3fs  # noqa: PLC0415 - an extra; without it folders and other hooks work
    except ImportError:
        raise ImportError(INSTALL) from None
    system = s3fs.S3FileSystem(
        endpoint_url=endpoint_url,
        config_kwargs=CONFIG,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    system.retries = 1
    return system


def _is_stored(service: Any, location: FileLocation, sha256: str, size: int, within: float) -> bool:
    """Return whether an earlier attempt stored this content.

    If the credentials do not allow this check, storing the file reports the reason.
    """
    try:
        found = service.call_s3("head_object", **location.parameters, timeout=within)
    except TimeoutError:
        raise
    except OSError:
        return False
    return bool(found["ContentLength"] == size and found["Metadata"].get("sha256") == sha256)


@contextmanager
def _service(location: FileLocation) -> Iterator[Any]:
    """Give s3fs's object. Its errors become OSError or PermanentFailure, with our own messages."""
    system = file_system(location.endpoint_url)
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - comes with s3fs

    try:
        yield system
    except (OSError, BotoCoreError) as error:
        code = _code(error)
        if code in PERMANENT:
            raise PermanentFailure(f"{location.service}: {PERMANENT[code]}") from error
        kind = TimeoutError if _is_timeout(error) else OSError
        reason = HINTS.get(code) or _description(error, code)
        raise kind(f"{location.service}: {reason}") from error


def _code(error: Exception) -> str:
    """Return S3's code for the error, such as NoSuchBucket; empty if there is none."""
    response = getattr(error.__cause__, "response", None) or {}
    return re.sub(r"[^A-Za-z0-9]", "", str(response.get("Error", {}).get("Code", "")))[:60]


def _description(error: Exception, code: str) -> str:
    if code:
        return f"the service answered {code}"
    name = type(error).__name__
    if "Credentials" in name:
        return "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if _is_timeout(error):
        return "the service did not answer in time"
    return f"the service cannot be reached ({name})"


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__
