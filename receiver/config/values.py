"""Readers of the receiver's own settings; see `receiver.environment.readers` for their errors."""

from __future__ import annotations

import os
import re
import shlex
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from receiver.config import durations
from receiver.environment import readers


def is_postgres(database_url: str) -> bool:
    """Return whether the URL names a PostgreSQL database; platforms use both schemes."""
    return database_url.startswith(("postgresql://", "postgres://"))


def public_url(text: str) -> str:
    """Return the URL without a final slash, and with an internationalised host as in DNS."""
    parts = readers.web_url(text)
    host = parts.hostname or ""
    if not host.isascii():
        import idna  # noqa: PLC0415 - slow to import, and rarely needed

        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            raise ValueError("is not a URL; its host name is not allowed in DNS") from None
        login, at, _ = parts.netloc.rpartition("@")
        port = f":{parts.port}" if parts.port else ""
        parts = parts._replace(netloc=f"{login}{at}{host}{port}")
    return parts.geturl().rstrip("/")


def database_url(text: str) -> str:
    if text.startswith("sqlite:///") and text not in ("sqlite:///", "sqlite:///:memory:"):
        return text
    if not is_postgres(text):
        scheme = text.partition(":")[0]  # the rest of the URL may contain a password
        kind = f" ({scheme})" if re.fullmatch(r"[a-z0-9+]{1,20}", scheme) else ""
        raise ValueError(
            f"is not the URL of a supported database{kind}; use sqlite:///data/receiver.db "
            "(three slashes: relative path, four: absolute path) "
            "or postgresql://user:password@host/database"
        )
    try:
        _ = urlsplit(text).port
    except ValueError:
        raise ValueError(
            "is not a URL, because its port or host cannot be read; use one like "
            "postgresql://user:password@host/database"
        ) from None
    return text


def origins(text: str) -> tuple[str, ...]:
    """Return the origins as browsers send them: scheme, host, and port unless it is the usual one.

    Raises ValueError for `*`, because every origin whose pages may use the token has to be listed.
    """
    found = []
    for part in readers.parts(text):
        try:
            parts = readers.web_url(part)
        except ValueError:
            parts = None
        if parts is None or parts.path not in ("", "/") or "@" in parts.netloc:
            raise ValueError(
                "is not a list of origins; use exact ones, separated by commas, such as "
                "https://shop.example.com or http://localhost:3000"
            )
        usual = {"http": ":80", "https": ":443"}[parts.scheme]
        found.append(f"{parts.scheme}://{parts.netloc.lower().removesuffix(usual)}")
    return tuple(found)


def hooks_file(text: str) -> Path:
    """Return the path of a readable file; `hooks_file` reports problems with its contents."""
    path = Path(text)
    try:
        exists, is_readable = path.exists(), os.access(path, os.R_OK) and not path.is_dir()
    except (OSError, ValueError):  # a path that no file can have
        exists = is_readable = False
    if not exists:
        raise ValueError(
            "does not exist; correct HOOKS_FILE, or create the file "
            "(an empty file means that there are no hooks)"
        )
    if not is_readable:
        raise ValueError("is not a readable file; correct HOOKS_FILE, or let this user read it")
    return path


def timezone(text: str) -> str:
    try:
        _ = zone(text)
    except (KeyError, ValueError, OSError):  # KeyError: ZoneInfoNotFoundError
        raise ValueError(
            "is not a time zone known here; use UTC, or one like Europe/Berlin (if that is "
            "unknown too, install the system's package tzdata)"
        ) from None
    return text


def zone(name: str) -> tzinfo:
    """Return a time zone. Raises KeyError, ValueError or OSError if it is unknown here."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - few installations need it

    return ZoneInfo(name)


def retention(text: str) -> int:
    try:
        return durations.parse(text)
    except ValueError:
        raise ValueError(f"is not a duration; {durations.REMEDY}") from None


def default_bind(port: int | None) -> str:
    """Return the address to listen on, given PORT, which hosting platforms set.

    Without it, only this machine is served.
    """
    return f"0.0.0.0:{port}" if port else "127.0.0.1:8000"


def gunicorn_arguments(text: str) -> str:
    """Return the text if gunicorn accepts it as command-line options."""
    try:
        from gunicorn.config import Config  # noqa: PLC0415 - rarely set
    except ValueError:  # from WEB_CONCURRENCY, whose errors are reported separately
        return text
    config = Config()
    parser = config.parser()

    def refuse(message: str) -> Any:
        raise ValueError(message)

    parser.error = refuse
    try:
        for name, value in vars(parser.parse_args(shlex.split(text))).items():
            if value is not None and name != "args":
                config.set(name, value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"is refused by gunicorn ({error}); see gunicorn --help") from None
    return text
