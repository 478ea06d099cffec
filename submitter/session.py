"""Opens what a command needs: the settings, the store and the adapter of a provider account."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from receiver.config import hooks_file, settings
from receiver.config.hooks_file import HooksPath
from receiver.config.settings import Settings
from receiver.errors import SettingsError
from receiver.ingest import Ingest
from receiver.observability.metric_buffer import MetricBuffer
from receiver.processes.clock_watch import ClockWatch
from receiver.processes.current_hooks import CurrentHooks, source_of
from receiver.stores import Store, check_schema_when_reachable, open_store
from submitter.errors import ConfigurationError
from submitter.providers import Provider, open_room
from submitter.settings import DEFAULT_ACCOUNT

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """The settings and the open store of a command."""

    settings: Settings
    store: Store
    ingest: Ingest
    download_hooks: frozenset[str]  # the names of the hooks that download results
    hooks: CurrentHooks | None = None


@contextmanager
def open_session_with(
    provider: str, account: str = DEFAULT_ACCOUNT
) -> Iterator[tuple[Session, Provider]]:
    """Open the store and the adapter of the account.

    Raises InputError and everything that `open_session` raises.
    """
    problems: list[str] = []
    adapter = _collect(problems, lambda: open_room(provider, account))
    with open_session(problems) as session:
        if adapter is None:
            raise ConfigurationError(problems)
        yield session, adapter


@contextmanager
def open_session(problems: Sequence[str] = (), *, waits: bool = False) -> Iterator[Session]:
    """Open the store; with `waits`, wait until its database server is reachable.

    Raises ConfigurationError with these and all other problems, SchemaMismatch or StoreUnavailable.
    """
    problems = list(problems)
    chosen = _collect(problems, lambda: settings.load(creates_secret=False))
    # The problems of the hooks file are reported even if another setting is invalid.
    source = source_of(chosen) if chosen else HooksPath.named(os.environ.get("HOOKS_FILE"))
    hooks = _collect(problems, lambda: CurrentHooks.load(source))
    if problems or chosen is None or hooks is None:
        raise ConfigurationError(problems)
    store = open_store(chosen.database_url)
    try:
        if waits:
            check_schema_when_reachable(store)
        else:
            store.check_schema()
        ClockWatch(store).follow()
        yield Session(
            settings=chosen,
            store=store,
            ingest=Ingest(
                store,
                [entry.subscription for entry in hooks.entries],
                chosen.confirm,
                MetricBuffer("poller"),
            ),
            download_hooks=frozenset(
                entry.name for entry in hooks.entries if entry.type == hooks_file.DOWNLOAD
            ),
            hooks=hooks,
        )
    finally:
        store.close()


def _collect(problems: list[str], read: Callable[[], T]) -> T | None:
    """Return the result of `read`, or add its problems to the list and return None."""
    try:
        return read()
    except (SettingsError, ConfigurationError) as error:
        problems.extend(line for line in error.problems if line not in problems)
        return None
