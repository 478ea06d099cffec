"""The settings of the receiver, read from the environment; all problems are reported together."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from pathlib import Path
from urllib.parse import urlsplit

from receiver.config import private_files, table
from receiver.config.hooks_file import HooksPath
from receiver.config.table import Confirm
from receiver.config.values import is_postgres, zone
from receiver.environment import Environment, readers
from receiver.errors import SettingsError
from receiver.providers import PROVIDERS


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the settings, named as in the environment; `table` describes them."""

    database_url: str
    callback_secrets: tuple[str, ...]  # empty until a secret is created; see `with_secret`
    public_url: str | None = None
    hooks_file: Path = Path("hooks.toml")
    needs_hooks_file: bool = False  # HOOKS_FILE is set, so the file must exist
    confirm: Confirm = Confirm.NEVER
    reconcile_after: float | None = None  # seconds
    webhook_secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by provider
    worker_concurrency: int = 4
    trusted_proxies: int = 0
    api_token: str | None = None
    retention: int | None = None  # seconds
    dashboard_password: str | None = None
    secret_key: str | None = None
    timezone: str = "UTC"
    keep_inputs: bool = False
    cors_origins: tuple[str, ...] = ()

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
        """The time zone as an object."""
        return zone(self.timezone)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must never be shown."""
        password = urlsplit(self.database_url).password if is_postgres(self.database_url) else None
        optional = (self.api_token, self.dashboard_password, self.secret_key, password)
        return (
            *self.callback_secrets,
            *(secret for signing in self.webhook_secrets.values() for secret in signing),
            *(secret for secret in optional if secret),
        )

    @property
    def session_key(self) -> str:
        """The key that signs sessions: SECRET_KEY, or else a key derived from a callback secret."""
        if self.secret_key is not None:
            return self.secret_key
        return hmac.digest(self.callback_secrets[0].encode(), b"sessions:v1", "sha256").hex()


def load(*, creates_secret: bool = True) -> Settings:
    """Return the settings, including those that only other processes use, if all are valid.

    Without CALLBACK_SECRETS, the secret next to the SQLite file is used. If there is none, it is
    created; with `creates_secret` False nothing is created, and `callback_secrets` is empty.

    Raises SettingsError with one line for each problem.
    """
    env = Environment()
    values = {setting.name.lower(): env.value(setting) for setting in table.SETTINGS}
    webhook_secrets = {
        provider: env.value(setting) for provider, setting in table.webhook_secrets().items()
    }
    if not env.is_set(table.CALLBACK_SECRETS) and is_postgres(values["database_url"]):
        env.problems.append(NEEDED)
    if problems := PROVIDERS.problems + env.problems:
        raise SettingsError(sorted(problems))
    if not values["callback_secrets"]:
        values["callback_secrets"] = own_secret(values["database_url"], creates=creates_secret)
    values["needs_hooks_file"] = values["hooks_file"] is not None
    values["hooks_file"] = values["hooks_file"] or Path("hooks.toml")
    values["webhook_secrets"] = {
        provider: found for provider, found in webhook_secrets.items() if found
    }
    names = Settings.__dataclass_fields__
    return Settings(**{name: value for name, value in values.items() if name in names})


def log_format() -> str:
    """Return the format of log lines, which is needed even if other settings are wrong."""
    return Environment().value(table.LOG_FORMAT)


def hooks_path() -> HooksPath:
    """Return the path of the hooks file, which is needed even if other settings are wrong."""
    path = Environment().value(table.HOOKS_FILE)
    return HooksPath(path, must_exist=True) if path else HooksPath()


def sqlite_path(database_url: str) -> Path:
    """Return the file of a URL: `sqlite:///` is followed by a relative path or an absolute one."""
    return Path(database_url.removeprefix("sqlite:///"))


def secret_path(database: Path) -> Path:
    """Return the file with the callback secret that belongs to an SQLite database."""
    return database.parent / "callback-secret"


def own_secret(database_url: str, *, creates: bool = True) -> tuple[str, ...]:
    """Return the secret in the file next to the SQLite file, which only its owner may read.

    If there is none, it is created; with `creates` False, the result is empty instead. Several
    processes may start concurrently: the file appears together with its contents, and the first
    file counts. With PostgreSQL, each machine would create a secret of its own, so the setting is
    required.

    Raises SettingsError.
    """
    if is_postgres(database_url):
        raise SettingsError([NEEDED])
    path = secret_path(sqlite_path(database_url))
    try:
        if not path.exists():
            if not creates:
                return ()
            _create_secret(path)
        return table.CALLBACK_SECRETS.read(path.read_text(encoding="utf-8"))
    except ValueError as error:
        problem = f"{path}: it contains no secret; restore the file, or remove it"
        raise SettingsError([problem]) from error
    except OSError as error:
        problem = (
            f"CALLBACK_SECRETS: not set, and {path} cannot be used: {error.strerror}; "
            "set it, or make the directory of the database writable"
        )
        raise SettingsError([problem]) from error


def _create_secret(path: Path) -> None:
    private_files.create_folder(path.parent)
    # If another process created the file first, its secret counts.
    private_files.create_with(path, secrets.token_urlsafe(32))


NEEDED = (
    "CALLBACK_SECRETS: required with PostgreSQL, and must be the same on every machine; "
    f"make one with: {readers.GENERATOR}"
)
