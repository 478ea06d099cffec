"""Opens what a command works with: settings, record and provider room, all mistakes at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from receiver.config import hooks_file, settings
from receiver.config.hooks_file import HooksPath
from receiver.config.settings import Settings
from receiver.errors import SettingsError
from receiver.ingest import Ingest
from receiver.observability.metrics import MetricBuffer
from receiver.processes.clock_watch import ClockWatch
from receiver.processes.current_hooks import CurrentHooks, source_of
from receiver.stores import Store, check_schema_when_reachable, open_store
from submitter.errors import ConfigurationError
from submitter.providers import Provider, open_provider
from submitter.settings import DEFAULT_ACCOUNT

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """The system of record, and the way in."""

    settings: Settings
    store: Store
    ingest: Ingest
    downloads: frozenset[str]  # the hooks that bring the pictures
    hooks: CurrentHooks | None = None


@contextmanager
def opened(*, waits: bool = False) -> Iterator[Record]:
    """The record alone. With `waits`, wait for a database server that is down.

    Raises ConfigurationError, SchemaMismatch or StoreUnavailable.
    """
    problems: list[str] = []
    chosen, hooks = _read_settings(problems)
    with _record(problems, chosen, hooks, waits=waits) as record:
        yield record


@contextmanager
def opened_with(provider: str, account: str = DEFAULT_ACCOUNT) -> Iterator[tuple[Record, Provider]]:
    """The record and the provider's room, as `opened`; also raises InputError."""
    problems: list[str] = []
    room = _tried(problems, lambda: open_provider(provider, account))
    chosen, hooks = _read_settings(problems)
    with _record(problems, chosen, hooks) as record:
        if room is None:
            raise ConfigurationError(problems)
        yield record, room


def _read_settings(problems: list[str]) -> tuple[Settings | None, CurrentHooks | None]:
    chosen = _tried(problems, lambda: settings.load(creates_secret=False))
    # The mistakes in the hooks file are reported also if another setting is wrong.
    source = HooksPath.named(os.environ.get("HOOKS_FILE"))
    if chosen:
        source = source_of(chosen)
    return chosen, _tried(problems, lambda: CurrentHooks.load(source))


@contextmanager
def _record(
    problems: list[str],
    chosen: Settings | None,
    hooks: CurrentHooks | None,
    *,
    waits: bool = False,
) -> Iterator[Record]:
    if problems or chosen is None or hooks is None:
        raise ConfigurationError(problems)
    store = open_store(chosen.database_url)
    try:
        if waits:
            check_schema_when_reachable(store)
        else:
            store.check_schema()
        ClockWatch(store).follow()
        yield Record(
            settings=chosen,
            store=store,
            ingest=Ingest(
                store,
                [entry.subscription for entry in hooks.entries],
                chosen.confirm,
                MetricBuffer("poller"),
            ),
            hooks=hooks,
            downloads=frozenset(e.name for e in hooks.entries if e.type == hooks_file.DOWNLOAD),
        )
    finally:
        store.close()


def _tried(problems: list[str], read: Callable[[], T]) -> T | None:
    """What `read` returns; or None, and what is wrong is added to `problems`."""
    try:
        return read()
    except (SettingsError, ConfigurationError) as error:
        problems.extend(line for line in error.problems if line not in problems)
        return None
