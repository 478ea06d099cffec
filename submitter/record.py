"""Opens what a command works with: settings, record and provider room, all mistakes at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from receiver import hooks_file, settings
from receiver.clock_watch import ClockWatch
from receiver.errors import SettingsError
from receiver.hooks_file import HookEntry
from receiver.ingest import Ingest
from receiver.meter import Meter
from receiver.providers import PROVIDERS, spelling
from receiver.settings import Settings
from receiver.stores import Store, open_store
from submitter.errors import ConfigurationError
from submitter.providers import Provider, open_room
from submitter.settings import DEFAULT_ACCOUNT

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """The system of record, and the way in."""

    settings: Settings
    store: Store
    ingest: Ingest
    downloads: frozenset[str]  # the hooks that bring the pictures


@contextmanager
def opened() -> Iterator[Record]:
    """The record alone. Raises ConfigurationError, SchemaMismatch or StoreUnavailable."""
    problems: list[str] = []
    chosen, entries = _read_settings(problems)
    with _record(problems, chosen, entries) as record:
        yield record


@contextmanager
def opened_with(provider: str, account: str = DEFAULT_ACCOUNT) -> Iterator[tuple[Record, Provider]]:
    """The record and the provider's room, as `opened`; also raises InputError."""
    problems: list[str] = []
    room = _tried(problems, lambda: open_room(provider, account))
    chosen, entries = _read_settings(problems)
    with _record(problems, chosen, entries) as record:
        if room is None:
            raise ConfigurationError(problems)
        yield record, room


def _read_settings(
    problems: list[str],
) -> tuple[Settings | None, tuple[HookEntry, ...] | None]:
    chosen = _tried(problems, settings.load)
    # Its mistakes are told also where another setting is wrong.
    path = chosen.hooks_file if chosen else Path(os.environ.get("HOOKS_FILE") or "hooks.toml")
    return chosen, _tried(problems, lambda: hooks_file.load(path, spelling, PROVIDERS))


@contextmanager
def _record(
    problems: list[str], chosen: Settings | None, entries: tuple[HookEntry, ...] | None
) -> Iterator[Record]:
    if problems or chosen is None or entries is None:
        raise ConfigurationError(problems)
    store = open_store(chosen.database_url)
    try:
        store.check_schema()
        ClockWatch(store).follow()
        yield Record(
            settings=chosen,
            store=store,
            ingest=Ingest(
                store,
                [entry.subscription for entry in entries],
                chosen.confirm,
                Meter("poller"),
            ),
            downloads=frozenset(e.name for e in entries if e.type == hooks_file.DOWNLOAD),
        )
    finally:
        store.close()


def _tried(problems: list[str], read: Callable[[], T]) -> T | None:
    """What `read` returns; or None, and what is wrong is added to `problems`."""
    try:
        return read()
    except (SettingsError, ConfigurationError) as error:
        problems.extend(error.problems)
        return None
