"""Files in a bucket of S3, or of what speaks like it: whole or not there, and stored once.

Needs s3fs, an extra. Credentials come from the environment, as s3fs takes them. Every verb ends in
time and raises OSError that says what is wrong; what the store said is not repeated.
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
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
PART_SIZE = 8 * 2**20  # bytes in memory; larger files are uploaded in parts of this size
MAX_PARTS = 10_000
CONNECT, READ = 10, 30  # seconds for one connection, and of silence
FILE_TIMEOUT = 60.0  # seconds for reading or removing a file
CONFIG = {
    "connect_timeout": CONNECT,
    "read_timeout": READ,
    "retries": {"total_max_attempts": 2},  # a delivery is retried by its own policy
    # Newer checksums are unknown to many a store; the signature holds the sha256 of the content.
    "request_checksum_calculation": "when_required",
    "s3": {"payload_signing_enabled": True},
}
_REGION = "the bucket is in another region; set AWS_REGION"
_TOKEN = "AWS_SESSION_TOKEN has expired or is wrong; set a fresh one"  # noqa: S105 - a hint
HINTS = {
    "NoSuchBucket": 'there is no such bucket; create it, or mend "to" (or "endpoint_url")',
    "AccessDenied": "access is denied; allow these credentials s3:PutObject, s3:GetObject and "
    "s3:DeleteObject in the bucket",
    "AllAccessDisabled": "access is denied; ask the store's operator why the bucket is closed",
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is not known there; set the right one",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID; "
    "set the right one",
    "ExpiredToken": _TOKEN,
    "InvalidToken": _TOKEN,
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "SlowDown": "it asks for fewer requests",
}
# Everything else can be mended without losing a picture, so it is tried again: meanwhile the
# hook is paused, and people are told. These concern one file.
PERMANENT = {
    "EntityTooLarge": "the file is larger than the store takes; lower max_bytes",
    "KeyTooLongError": 'the file\'s name is longer than the store takes; shorten "to" or "path"',
}


@dataclass(frozen=True, slots=True)
class FileLocation:
    """Where a file lies; as text, `s3://bucket/key` and, if it is not AWS, at which endpoint."""

    bucket: str
    key: str
    endpoint_url: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError."""
        path, at, endpoint = url.partition("://")[2].rpartition(ENDPOINT_MARK)
        bucket, _, key = (path if at else endpoint).partition("/")
        if not NAME.fullmatch(bucket):
            raise ValueError("names no bucket; write s3://bucket/prefix")
        return cls(bucket, key.strip("/"), endpoint if at else None)

    def below(self, name: str) -> FileLocation:
        return replace(self, key=f"{self.key}/{name}".lstrip("/"))

    def __str__(self) -> str:
        at = f"{ENDPOINT_MARK}{self.endpoint_url}" if self.endpoint_url else ""
        return f"s3://{self.bucket}/{self.key}{at}"

    @property
    def called(self) -> str:
        """The store, for people."""
        return urlsplit(self.endpoint_url).netloc if self.endpoint_url else "S3"

    @property
    def named(self) -> dict[str, str]:
        """How S3's calls name it."""
        return {"Bucket": self.bucket, "Key": self.key}


def is_bucket_url(url: str) -> bool:
    return url.startswith(SCHEMES)


def put(draft: Path, place: FileLocation, within: float) -> None:
    """Store the file there within so many seconds, unless this very content lies there already.

    S3 shows an object once it is complete, so that a crash leaves nothing to be seen.
    """
    ends_at = time.monotonic() + within
    with draft.open("rb") as file:
        content_type = detect(file.read(HEAD)).content_type
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = draft.stat().st_size
    with _store(place) as store:
        if _holds(store, place, sha256, size, within):
            return
        store.put_file(
            str(draft),
            f"{place.bucket}/{place.key}",
            chunksize=max(PART_SIZE, -(-size // MAX_PARTS)),
            max_concurrency=1,
            Metadata={"sha256": sha256},
            ContentType=content_type,
            timeout=max(ends_at - time.monotonic(), 0.1),
        )


def read(place: FileLocation, limit: int) -> bytes:
    """The first bytes of the file, at most so many."""
    with _store(place) as store:
        path = f"{place.bucket}/{place.key}"
        return bytes(store.cat_file(path, start=0, end=limit, timeout=FILE_TIMEOUT))


def remove(place: FileLocation) -> None:
    """Delete the file; nothing happens if it is gone."""
    with _store(place) as store:
        store.call_s3("delete_object", **place.named, timeout=FILE_TIMEOUT)


@cache
def file_system(endpoint_url: str | None) -> Any:
    """s3fs's object, one for each store. Raises ImportError; connects at the first call."""
    try:
        import s3fs  # noqa: PLC0415 - an extra; without it folders and other hooks work
    except ImportError:
        raise ImportError(INSTALL) from None
    made = s3fs.S3FileSystem(
        endpoint_url=endpoint_url,
        config_kwargs=CONFIG,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    made.retries = 1
    return made


def _holds(store: Any, place: FileLocation, sha256: str, size: int, within: float) -> bool:
    """Did an earlier attempt store it? Whoever may not ask is told why by the storing."""
    try:
        found = store.call_s3("head_object", **place.named, timeout=within)
    except TimeoutError:
        raise
    except OSError:
        return False
    return bool(found["ContentLength"] == size and found["Metadata"].get("sha256") == sha256)


@contextmanager
def _store(place: FileLocation) -> Iterator[Any]:
    """The store; what it raises comes as OSError or PermanentFailure, in words of ours."""
    made = file_system(place.endpoint_url)
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - comes with s3fs

    try:
        yield made
    except (OSError, BotoCoreError) as error:
        code = _code(error)
        if code in PERMANENT:
            raise PermanentFailure(f"{place.called}: {PERMANENT[code]}") from error
        kind = TimeoutError if _is_timeout(error) else OSError
        raise kind(f"{place.called}: {HINTS.get(code) or _described(error, code)}") from error


def _code(error: Exception) -> str:
    """S3's word for the error, such as NoSuchBucket; empty if none was said."""
    response = getattr(error.__cause__, "response", None) or {}
    return re.sub(r"[^A-Za-z0-9]", "", str(response.get("Error", {}).get("Code", "")))[:60]


def _described(error: Exception, code: str) -> str:
    if code:
        return f"it answered {code}"
    name = type(error).__name__
    if "Credentials" in name:
        return "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if _is_timeout(error):
        return "no answer in time"
    return f"it cannot be reached ({name})"


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__
