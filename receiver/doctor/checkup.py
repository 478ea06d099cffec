"""Runs all checks in an order in which each one has what it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, tzinfo

from receiver.config import settings
from receiver.config.hooks_file import HooksPath, load
from receiver.config.settings import Settings, sqlite_path
from receiver.config.values import is_postgres
from receiver.doctor import clocks, directory, hooks, reach, record
from receiver.doctor.findings import Finding, Verdict, failed, ok, warning
from receiver.errors import SettingsError
from receiver.processes.current_hooks import source_of
from receiver.providers import PROVIDERS, status_for
from receiver.stores import Store, open_store
from receiver.text.display import redacted


def examine(*, send: bool) -> Iterator[Finding]:
    """Yield the finding of every check as soon as it is finished; raise nothing."""
    try:
        chosen = settings.load(creates_secret=False)
    except SettingsError as error:
        yield from (failed("settings", problem) for problem in error.problems)
        yield warning(
            "settings",
            "disk, database and public URL cannot be checked without them",
            "correct them, then run this again",
        )
        yield _clock(None)
        if not any(problem.startswith("HOOKS_FILE") for problem in error.problems):
            yield from _hooks(settings.hooks_path(), None, send=send)
        return
    yield ok("settings", f"they can be used; the database is {redacted(chosen.database_url)}")
    yield _clock(chosen.public_url)
    yield from _with_store(chosen, send=send)


def _with_store(chosen: Settings, *, send: bool) -> Iterator[Finding]:
    try:
        store = open_store(chosen.database_url)
    except SettingsError as error:
        yield from (failed(record.CHECK, problem) for problem in error.problems)
        return
    with closing(store):
        if not is_postgres(chosen.database_url):
            yield from directory.check(sqlite_path(chosen.database_url))
        is_usable = True
        for finding in record.check(store):
            is_usable &= finding.verdict is not Verdict.FAILED
            yield finding
        usable_store = store if is_usable else None
        yield from _hooks(source_of(chosen), usable_store, send=send, zone=chosen.zone)
        yield reach.check(chosen, usable_store)


def _hooks(
    source: HooksPath, store: Store | None, *, send: bool, zone: tzinfo = UTC
) -> Iterator[Finding]:
    yield from hooks.installed_types()
    try:
        entries = load(source.path, status_for, PROVIDERS, must_exist=source.must_exist)
    except SettingsError as error:
        yield from (failed("hooks", problem, hooks.CORRECT) for problem in error.problems)
        yield from hooks.rejected(store)
    else:
        yield from hooks.check(entries, store, send=send, zone=zone)


def _clock(public_url: str | None) -> Finding:
    urls = clocks.reference_urls(PROVIDERS.values(), os.environ)
    return clocks.check([*urls, *([public_url] if public_url else [])])
