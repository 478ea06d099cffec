"""Opens a command's resources: the settings, the store and the adapter of a provider account."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from receiver.config import hooks_file
from receiver.config.settings import Settings
from receiver.errors import SettingsError
from receiver.ingest import Ingest
from receiver.observability.metrics import MetricBuffer
from receiver.processes.clock_watch import ClockWatch
from receiver.processes.current_hooks import CurrentHooks, load_configuration
from receiver.stores import Store, check_schema_when_reachable, open_store
from submitter.errors import ConfigurationError
from submitter.providers import Provider, open_provider
from submitter.settings import DEFAULT_ACCOUNT


@dataclass(frozen=True, slots=True)
class Session:
    """The settings and the open store of a command."""

    settings: Settings
    store: Store
    ingest: Ingest
    download_hooks: frozenset[str]  # the names of the hooks that download results
    hooks: CurrentHooks


@contextmanager
def open_session_with(
    provider: str, account: str = DEFAULT_ACCOUNT
) -> Iterator[tuple[Session, Provider]]:
    """Open the store and the adapter of the account.

    Raises InputError and everything that `open_session` raises.
    """
    adapter = None
    problems: Sequence[str] = ()
    try:
        adapter = open_provider(provider, account)
    except ConfigurationError as error:
        problems = error.problems
    with open_session(problems) as session:
        if adapter is None:
            raise ConfigurationError(problems)
        yield session, adapter


@contextmanager
def open_session(
    problems: Sequence[str] = (), *, with_accounts: bool = False, waits: bool = False
) -> Iterator[Session]:
    """Open the store; with `waits`, wait until its database server is reachable.

    Raises ConfigurationError with these problems and those of all settings, `with_accounts` also
    those of all provider accounts; SchemaMismatch; or StoreUnavailable.
    """
    try:
        chosen, hooks = load_configuration(with_accounts=with_accounts)
    except SettingsError as error:
        raise ConfigurationError([*problems, *error.problems]) from None
    if problems:
        raise ConfigurationError(problems)
    store = open_store(chosen.database_url)
    try:
        if waits:
            check_schema_when_reachable(store)
        else:
            store.check_schema()
        ClockWatch(store).follow()
        subscriptions = [entry.subscription for entry in hooks.entries]
        ingest = Ingest(store, subscriptions, chosen.confirm, MetricBuffer("poller"))
        downloads = (entry.name for entry in hooks.entries if entry.type == hooks_file.DOWNLOAD)
        yield Session(chosen, store, ingest, frozenset(downloads), hooks)
    finally:
        store.close()
