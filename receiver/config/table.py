"""The table of settings: everything that the receiver reads from its environment.

The provider adapters declare settings of their own, and so does the submitter. A test compares all
of them with `.env.example` and docs/settings.md.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from receiver.config import values
from receiver.environment import Setting, readers
from receiver.observability import logger
from receiver.providers import PROVIDERS

DEFAULT_DATABASE_URL = "sqlite:///data/receiver.db"
SHORTEST_SECRET = 16  # characters
SHORTEST_PASSWORD = 8  # characters; a failed login delays the next one


class Confirm(StrEnum):
    """The final statuses that count only after the provider has confirmed them in a query."""

    NEVER = "never"
    UNSIGNED = "unsigned"  # those of callbacks without the provider's signature
    ALWAYS = "always"  # those of signed callbacks too


PUBLIC_URL = Setting[str | None](
    name="PUBLIC_URL",
    read=values.public_url,
    default=None,
    summary="The address at which providers reach this machine.",
    details="If it is unset, tasks are created without a callback URL, and the poller queries the "
    "provider instead.",
    example="https://callbacks.example.com",
)
DATABASE_URL = Setting(
    name="DATABASE_URL",
    read=values.database_url,
    default=DEFAULT_DATABASE_URL,
    summary="The database; `postgresql://…` for several machines.",
    details="sqlite:/// is followed by a relative path, sqlite://// by an absolute one. Several "
    "machines share postgresql://user:password@host/database (docs/scaling.md); postgres:// is "
    "the same.",
    is_secret=True,
)
CALLBACK_SECRETS = Setting[tuple[str, ...]](
    name="CALLBACK_SECRETS",
    read=readers.secrets(SHORTEST_SECRET),
    default=(),
    unset="created by `receiver migrate`",
    summary="Comma-separated secrets of the callback URLs: the first one signs new URLs, all are "
    "accepted when verifying.",
    details="If it is unset, `receiver migrate` creates a secret next to the SQLite database. With "
    "PostgreSQL it is required, and must be the same on every machine.",
    is_secret=True,
)
HOOKS_FILE = Setting[Path | None](
    name="HOOKS_FILE",
    read=values.hooks_file,
    default=None,
    summary="The file with the hooks that run when a task changes; if this is set, the file must "
    "exist.",
    unset="`hooks.toml`",
    details="It is read again at SIGHUP. If it is unset and the working directory contains no "
    "hooks.toml, no hook runs.",
    example="hooks.toml",
)
WORKER_CONCURRENCY = Setting(
    name="WORKER_CONCURRENCY",
    read=readers.number(int, 1, 64),
    default=4,
    summary="The number of deliveries that one worker attempts at the same time; if it is 2 or "
    "more, a single hook never uses all of them.",
)
CONFIRM = Setting(
    name="CONFIRM",
    read=readers.choice(Confirm, tuple(Confirm)),
    default=Confirm.NEVER,
    summary="Which final statuses count only after the provider has confirmed them in a query: "
    "`never`, `unsigned` (those of callbacks without the provider's signature) or `always`.",
)
RECONCILE_AFTER = Setting[float | None](
    name="RECONCILE_AFTER",
    read=readers.number(float, 0.1, 86_400),
    default=None,
    unset="learnt from earlier tasks",
    summary="The maximum number of seconds until the poller first queries a task, whoever created "
    "it.",
    details="If it is unset, this time is learnt from how long tasks take; it is 90 s for tasks "
    "that became known from a callback, and 600 s for tasks from `receiver url`.",
)
RETENTION = Setting[int | None](
    name="RETENTION",
    read=values.retention,
    default=None,
    unset="for ever",
    summary="How long the payloads of ended tasks are kept, such as `30d`.",
    example="30d",
)
KEEP_INPUTS = Setting(
    name="KEEP_INPUTS",
    read=readers.switch,
    default=False,
    summary="`1` stores thumbnails of the pictures that are sent, next to their task.",
    details="They show people: `receiver forget` and RETENTION erase them too. A picture that is "
    "given as a URL is not downloaded for this.",
)
TIMEZONE = Setting(
    name="TIMEZONE",
    read=values.timezone,
    default="UTC",
    summary="The time zone of the dashboard, e-mail, Slack and apprise messages, such as "
    "`Europe/Berlin`.",
    details="The commands, the API and stored times are in UTC.",
)
TRUSTED_PROXIES = Setting(
    name="TRUSTED_PROXIES",
    read=readers.number(int, 0, 10),
    default=0,
    summary="The number of proxies in front of the web process; they are trusted to state the "
    "address of a client.",
)
API_TOKEN = Setting[str | None](
    name="API_TOKEN",
    read=readers.secret(SHORTEST_SECRET, sendable=True),
    default=None,
    unset="disabled",
    summary="The token that callers of `/api` and `/metrics` send, with at least "
    f"{SHORTEST_SECRET} characters.",
    details="They send it as `Authorization: Bearer …`. If it is unset, both are disabled.",
    is_secret=True,
)
CORS_ORIGINS = Setting[tuple[str, ...]](
    name="CORS_ORIGINS",
    read=values.origins,
    default=(),
    summary="Comma-separated origins whose pages may use `/api` from a browser, such as "
    "`https://shop.example.com`.",
    details="Each origin has to match exactly, so `*` is not accepted. Cookies are never allowed.",
    example="https://shop.example.com",
)
LOG_FORMAT = Setting(
    name="LOG_FORMAT",
    read=readers.choice(str, logger.FORMS),
    default=logger.AUTO,
    summary="The format of log lines: `json`, `console` (for people), or `auto`, which means "
    "`console` on a terminal and otherwise `json`.",
)
DASHBOARD_PASSWORD = Setting[str | None](
    name="DASHBOARD_PASSWORD",
    read=readers.secret(SHORTEST_PASSWORD),
    default=None,
    unset="disabled",
    summary=f"The password of `/dashboard`, with at least {SHORTEST_PASSWORD} characters.",
    details="If it is unset, the dashboard is disabled.",
    is_secret=True,
)
SECRET_KEY = Setting[str | None](
    name="SECRET_KEY",
    read=readers.secret(SHORTEST_SECRET),
    default=None,
    unset="derived",
    summary="The key that signs the sessions of the dashboard, with at least "
    f"{SHORTEST_SECRET} characters; if it is unset, the key is derived from the first callback "
    "secret.",
    is_secret=True,
)
WEB_CONCURRENCY = Setting(
    name="WEB_CONCURRENCY",
    read=readers.number(int, 1, 64),
    default=2,
    summary="The number of web processes.",
    may_be_file=False,
)
PORT = Setting[int | None](
    name="PORT",
    read=readers.number(int, 1, 65_535),
    default=None,
    summary="The port on which the web process listens, at every address of the machine; if it is "
    "unset, the web process listens at `127.0.0.1:8000`.",
    example="8000",
    may_be_file=False,
)
GUNICORN_CMD_ARGS = Setting(
    name="GUNICORN_CMD_ARGS",
    read=values.gunicorn_arguments,
    default="",
    summary="More options of gunicorn, which override those of this project.",
    example="--timeout=90",
    may_be_file=False,
)

# All of the above, in their order.
SETTINGS: tuple[Setting[Any], ...] = tuple(
    value for value in globals().values() if isinstance(value, Setting)
)


def webhook_secrets() -> dict[str, Setting[tuple[str, ...]]]:
    """Return, by provider, the setting with which its adapter verifies callbacks."""
    return {
        provider: adapter.verification.setting
        for provider, adapter in PROVIDERS.items()
        if adapter.verification is not None
    }


def all_settings() -> tuple[Setting[Any], ...]:
    """Return the receiver's settings, and those that the provider adapters declare."""
    return (*SETTINGS, *webhook_secrets().values())
