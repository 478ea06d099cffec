"""The order of the checks: what a later one needs is looked at before it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, tzinfo

from receiver.config import settings
from receiver.config.hooks_file import HooksPath, load
from receiver.config.settings import Settings, sqlite_path
from receiver.doctor import clocks, disk, hooks, permissions, reach, record
from receiver.doctor.findings import Finding, Verdict, failed, ok, warning
from receiver.errors import SettingsError
from receiver.providers import PROVIDERS, status_for
from receiver.stores import Store, open_store
from receiver.text.display import redacted


def examine(*, send: bool) -> Iterator[Finding]:
    """Every check, each as soon as it is done. Raises nothing: what is broken is a finding."""
    try:
        chosen = settings.load(creates_secret=False)
    except SettingsError as error:
        yield from (failed("settings", line) for line in error.problems)
        yield warning("settings", "disk, database and public URL need them", "then run this again")
        yield _clock(None)
        if not any(line.startswith("HOOKS_FILE:") for line in error.problems):
            yield from _hooks(HooksPath.named(os.environ.get("HOOKS_FILE")), None, send=send)
        return
    yield ok("settings", f"they can be used; the record is {redacted(chosen.database_url)}")
    yield _clock(chosen.public_url)
    yield from _with_record(chosen, send=send)


def _with_record(chosen: Settings, *, send: bool) -> Iterator[Finding]:
    try:
        store = open_store(chosen.database_url)
    except SettingsError as error:
        yield from (failed(record.CHECK, line) for line in error.problems)
        return
    try:
        if chosen.database_url.startswith("sqlite:"):
            path = sqlite_path(chosen.database_url)
            yield from disk.check(path.parent)
            yield from permissions.check(path)
        found = list(record.check(store))
        yield from found
        usable = all(finding.verdict is not Verdict.FAILED for finding in found)
        usable_store = store if usable else None
        named = HooksPath(chosen.hooks_file, must_exist=chosen.needs_hooks_file)
        yield from _hooks(named, usable_store, send=send, zone=chosen.zone)
        yield reach.check(chosen, usable_store)
    finally:
        store.close()


def _hooks(
    named: HooksPath, store: Store | None, *, send: bool, zone: tzinfo = UTC
) -> Iterator[Finding]:
    yield from hooks.installed_types()
    try:
        entries = load(named.path, status_for, PROVIDERS, must_exist=named.must_exist)
    except SettingsError as error:
        yield from (failed("hooks", line, "correct the hooks file") for line in error.problems)
        yield from hooks.rejected(store)
    else:
        yield from hooks.check(entries, store, send=send, zone=zone)


def _clock(public_url: str | None) -> Finding:
    urls = clocks.reference_urls(PROVIDERS.values(), os.environ)
    return clocks.check([*urls, *([public_url] if public_url else [])])
