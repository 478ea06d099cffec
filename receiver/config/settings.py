"""Every setting of the receiver, read from the environment, all mistakes reported at once."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import tempfile
import zoneinfo
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from environs import EnvError, EnvValidationError, FileAwareEnv
from marshmallow import ValidationError

from receiver.config import durations, private_files
from receiver.environment import Setting
from receiver.errors import SettingsError
from receiver.observability import logs
from receiver.providers import PROVIDERS

DEFAULT_DATABASE_URL = "sqlite:///data/receiver.db"
SHORTEST_SECRET = 16  # characters
ON, OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
MAKE_ONE = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
SHORTEST_PASSWORD = 8  # characters; wrong ones have to wait


class Confirm(StrEnum):
    """Which ends count only once the provider, asked by us, has said the same."""

    NEVER = "never"
    UNSIGNED = "unsigned"  # those of callbacks without the provider's signature
    ALWAYS = "always"  # those of signed callbacks too


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator decided. Names in the environment are these in capitals."""

    database_url: str
    callback_secrets: tuple[str, ...]  # the first mints tokens, all of them verify
    public_url: str | None = None  # where providers reach us; None: behind NAT
    hooks_file: Path = Path("hooks.toml")
    needs_hooks_file: bool = False  # HOOKS_FILE names it, so it must exist
    confirm: Confirm = Confirm.NEVER
    reconcile_after: float | None = None  # seconds; a bound on the first question about a task
    webhook_secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by provider
    worker_concurrency: int = 4  # deliveries attempted at the same time
    trusted_proxies: int = 0  # how many proxies in front of us may name the client
    api_token: str | None = None  # what /api wants to hear; None: it is closed
    retention: int | None = None  # seconds that payloads of ended tasks are kept; None: for ever
    dashboard_password: str | None = None  # what /dashboard wants to hear; None: it is closed
    secret_key: str | None = None  # signs the sessions of /dashboard; None: see `session_key`
    timezone: str = "UTC"  # in which people are shown times
    keep_inputs: bool = False  # small copies of the pictures that are sent

    def with_secret(self) -> Settings:
        """Return the settings with a callback secret; create one if none was given or created yet.

        Call this only once the database is known to exist: a command that is run in the wrong
        directory must not leave a secret there. Raises SettingsError.
        """
        if self.callback_secrets:
            return self
        return replace(self, callback_secrets=own_secret(self.database_url))

    @property
    def zone(self) -> tzinfo:
        """The time zone itself."""
        return UTC if self.timezone == "UTC" else zoneinfo.ZoneInfo(self.timezone)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must never be shown."""
        signing = (secret for found in self.webhook_secrets.values() for secret in found)
        own = (self.api_token, self.dashboard_password, self.secret_key)
        password = urlsplit(self.database_url).password if is_postgres(self.database_url) else None
        return (*self.callback_secrets, *signing, *(one for one in (*own, password) if one))

    @property
    def session_key(self) -> str:
        """The key that signs sessions: the given one, or one that follows from a secret we have."""
        if self.secret_key is not None:
            return self.secret_key
        return hmac.digest(self.callback_secrets[0].encode(), b"sessions:v1", "sha256").hex()


def load(*, creates_secret: bool = True) -> Settings:
    """Read the settings from the environment; each may also be given as a file in `NAME_FILE`.

    Without CALLBACK_SECRETS, the secret beside the SQLite file is used. If there is none, it is
    created; with `creates_secret` False nothing is created, and `callback_secrets` is empty.

    Raises SettingsError with one line for each mistake.
    """
    # environs' own readers say "Not a valid integer." without the name: ours name it in `seal`.
    env = FileAwareEnv(eager=False, strip_whitespace=True)
    problems = unreadable_files() + PROVIDERS.problems
    if problems:
        raise SettingsError(problems)
    database_url = env.str("DATABASE_URL", DEFAULT_DATABASE_URL, validate=_database_url)
    public_url = env.str("PUBLIC_URL", None, validate=_public_url)
    given = env.str("CALLBACK_SECRETS", None, validate=_callback_secrets)
    concurrency = env.int("WORKER_CONCURRENCY", 4, validate=_between(1, 64))
    env.int("WEB_CONCURRENCY", 2, validate=_between(1, 64))  # gunicorn's settings read these two
    env.int("PORT", 8000, validate=_between(1, 65_535))
    proxies = env.int("TRUSTED_PROXIES", 0, validate=_between(0, 10))
    hooks_file = env.str("HOOKS_FILE", "", validate=_hooks_file)
    reconcile_after = env.float("RECONCILE_AFTER", None, validate=_between(0.1, 86_400))
    confirm = env.str("CONFIRM", "never", validate=_confirm)
    verification = _verification_settings()
    signing = {
        provider: env.str(setting.name, "", validate=_read_by(setting))
        for provider, setting in verification.items()
    }
    api_token = env.str("API_TOKEN", "", validate=_api_token)
    retention = env.str("RETENTION", "", validate=_duration)
    timezone = env.str("TIMEZONE", "UTC", validate=_timezone)
    keep_inputs = env.str("KEEP_INPUTS", "", validate=_switch)
    env.str("LOG_FORMAT", logs.AUTO, validate=_log_format)  # `log_format` reads it
    password = env.str("DASHBOARD_PASSWORD", "", validate=_password)
    secret_key = env.str("SECRET_KEY", "", validate=_secret_key)
    try:
        env.seal()
    except EnvValidationError as error:
        messages = cast("Mapping[str, list[str]]", error.error_messages)
        lines = [f"{name}: {' '.join(texts)}" for name, texts in sorted(messages.items())]
        raise SettingsError(lines) from error
    return Settings(
        database_url=database_url,
        callback_secrets=split_secrets(given)
        if given
        else own_secret(database_url, creates=creates_secret),
        public_url=_with_ascii_host(public_url.strip().rstrip("/")) if public_url else None,
        hooks_file=Path(hooks_file.strip() or "hooks.toml"),
        needs_hooks_file=bool(hooks_file.strip()),
        confirm=Confirm(confirm),
        reconcile_after=reconcile_after,
        webhook_secrets={
            provider: setting.read(signing[provider])
            for provider, setting in verification.items()
            if signing[provider]
        },
        worker_concurrency=concurrency,
        trusted_proxies=proxies,
        api_token=api_token or None,
        retention=durations.parse(retention) if retention else None,
        dashboard_password=password or None,
        secret_key=secret_key or None,
        timezone=timezone,
        keep_inputs=keep_inputs.lower() in ON,
    )


def log_format() -> str:
    """How log lines look, also before the other settings are read, which tells what is wrong."""
    env = FileAwareEnv(strip_whitespace=True)
    try:
        return env.str("LOG_FORMAT", logs.AUTO, validate=_log_format)
    except (EnvError, OSError, UnicodeDecodeError, ValueError):
        return logs.AUTO


def unreadable_files() -> list[str]:
    """A line for each `NAME_FILE` in the environment that names no readable file.

    Only names that we know are looked at: other programs have settings of the same form.
    """
    known = (
        "API_TOKEN",
        "DATABASE_URL",
        "PUBLIC_URL",
        "CALLBACK_SECRETS",
        "CONFIRM",
        "DASHBOARD_PASSWORD",
        "HOOKS_FILE",
        "KEEP_INPUTS",
        "LOG_FORMAT",
        "RECONCILE_AFTER",
        "RETENTION",
        "SECRET_KEY",
        "TIMEZONE",
        "TRUSTED_PROXIES",
        "WORKER_CONCURRENCY",
        *(setting.name for setting in _verification_settings().values()),
    )
    return [
        f"{name}_FILE: {os.environ[f'{name}_FILE']} is not a readable file"
        for name in known
        if os.environ.get(f"{name}_FILE") and not _is_text(Path(os.environ[f"{name}_FILE"]))
    ]


def _is_text(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return True


def is_postgres(database_url: str) -> bool:
    """Does it name PostgreSQL? Hosts write the scheme either way."""
    return database_url.startswith(("postgresql://", "postgres://"))


def sqlite_path(database_url: str) -> Path:
    """The file of a `sqlite:///` URL: three slashes for a relative path, four for an absolute."""
    return Path(database_url.removeprefix("sqlite:///"))


def split_secrets(text: str) -> tuple[str, ...]:
    """The secrets of a comma-separated list."""
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


def own_secret(database_url: str, *, creates: bool = True) -> tuple[str, ...]:
    """Return the secret in the file beside the SQLite file, which only its owner may read.

    If there is none, it is created; with `creates` False, the result is empty instead. Several
    processes may start at once: the file appears whole, and the first one wins. Beside PostgreSQL
    there is no such place: each machine would make its own. Raises SettingsError.
    """
    if is_postgres(database_url):
        line = (
            "CALLBACK_SECRETS: needed with PostgreSQL, the same on every machine; make one with: "
        )
        raise SettingsError([line + MAKE_ONE])
    path = sqlite_path(database_url).parent / "callback-secret"
    try:
        if not path.exists():
            if not creates:
                return ()
            private_files.create_folder(path.parent)
            descriptor, draft = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(descriptor, "w") as file:
                os.fchmod(descriptor, private_files.FILE)  # the umask may have taken more away
                file.write(secrets.token_urlsafe(32))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first; its secret counts
                path.hardlink_to(draft)
            Path(draft).unlink()
        kept = path.read_text(encoding="utf-8")
        _callback_secrets(kept)
        return split_secrets(kept)
    except (ValidationError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: holds no secret; restore it, or remove it"]) from error
    except OSError as error:
        line = (
            f"CALLBACK_SECRETS: not set, and none could be kept in {path}: {error.strerror}; "
            "set it, or make the data directory writable"
        )
        raise SettingsError([line]) from error


def _database_url(value: str) -> None:
    if value.startswith("sqlite:///") and value not in ("sqlite:///", "sqlite:///:memory:"):
        return
    if is_postgres(value):
        try:
            _ = urlsplit(value).port
        except ValueError:
            raise ValidationError("this is not a URL: its port or host cannot be read") from None
        return
    scheme = value.partition(":")[0]
    shown = scheme if re.fullmatch(r"[a-z0-9+]{1,20}", scheme) else "this"  # it may hold a password
    raise ValidationError(
        f"{shown} is not a database this version serves; "
        "use sqlite:///data/receiver.db (three slashes: relative, four: absolute) "
        "or postgresql://user:password@host/database"
    )


def _public_url(value: str) -> None:
    value = value.strip()
    try:
        parts = urlsplit(value)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
        _with_ascii_host(value)
    except ValueError:
        raise ValidationError(f"{value!r} is not a URL") from None
    if re.search(r"\s", value):
        raise ValidationError(f"{value!r} contains a space")
    if not is_web:
        raise ValidationError(f"{value!r} is not a URL; use one like https://callbacks.example.com")
    if parts.query or parts.fragment:
        raise ValidationError(f"{value!r} has a query or a fragment; leave it off")


def _with_ascii_host(url: str) -> str:
    """The URL with an internationalised host name as it stands in DNS. Raises ValueError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host.isascii():
        return url
    import idna  # noqa: PLC0415 - it takes long to import, and few need it

    login = parts.netloc.rpartition("@")[0]
    port = f":{parts.port}" if parts.port else ""
    netloc = f"{login}@" if login else ""
    netloc += idna.encode(host, uts46=True).decode() + port
    return parts._replace(netloc=netloc).geturl()


def _hooks_file(value: str) -> None:
    """A file that is there but cannot be used is reported by `hooks_file`, with its mistakes."""
    value = value.strip()
    try:
        is_missing = bool(value) and not Path(value).exists()
    except (OSError, ValueError):  # reported when the file is read
        return
    if is_missing:
        raise ValidationError(
            f"{value} does not exist; correct HOOKS_FILE, or create the file "
            "(an empty file means that there are no hooks)"
        )


def _callback_secrets(value: str) -> None:
    found = split_secrets(value)
    if not found or any(len(secret) < SHORTEST_SECRET for secret in found):
        raise ValidationError(
            f"each secret needs at least {SHORTEST_SECRET} characters; make one with: " + MAKE_ONE
        )


def _api_token(value: str) -> None:
    """Unset is fine; what is set must be long, and sendable in a header."""
    if value and not re.fullmatch(rf"[!-~]{{{SHORTEST_SECRET},}}", value):
        raise ValidationError(
            f"use at least {SHORTEST_SECRET} characters, none of them a space; make one with: "
            + MAKE_ONE
        )


def _password(value: str) -> None:
    if value and len(value) < SHORTEST_PASSWORD:
        raise ValidationError(f"use at least {SHORTEST_PASSWORD} characters")


def _secret_key(value: str) -> None:
    if value and len(value) < SHORTEST_SECRET:
        raise ValidationError(f"use at least {SHORTEST_SECRET} characters, chosen at random")


def _timezone(value: str) -> None:
    try:
        _ = value == "UTC" or zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValidationError(
            f"{value!r} is not a time zone known here; use UTC, or one like Europe/Berlin "
            "(where even that is unknown, the system's package tzdata is missing)"
        ) from None


def _switch(value: str) -> None:
    if value.lower() not in ON + OFF:
        raise ValidationError(f"{value!r} is neither on nor off; use 1 or 0")


def _duration(value: str) -> None:
    try:
        _ = durations.parse(value) if value else 0
    except ValueError as error:
        raise ValidationError(str(error)) from None


def _log_format(value: str) -> None:
    if value not in logs.FORMS:
        raise ValidationError(f"{value!r} is not known; use {', '.join(logs.FORMS)}")


def _confirm(value: str) -> None:
    if value not in tuple(Confirm):
        raise ValidationError(f"{value!r} is not known; use {', '.join(Confirm)}")


def _verification_settings() -> dict[str, Setting[tuple[str, ...]]]:
    """Return the settings with which callbacks are verified, by provider."""
    return {
        provider: adapter.verification.setting
        for provider, adapter in PROVIDERS.items()
        if adapter.verification is not None
    }


def _read_by(setting: Setting[Any]) -> Callable[[str], None]:
    def check(value: str) -> None:
        try:
            setting.read(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None

    return check


def _between(low: float, high: float) -> Callable[[float], None]:
    def check(value: float) -> None:
        if not low <= value <= high:
            raise ValidationError(f"{value} is not between {low} and {high}")

    return check
