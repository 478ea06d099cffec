"""Runs all checks, each after the checks that it depends on, and checks the hooks itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, tzinfo
from typing import TypeVar

from receiver import hooks
from receiver.clock import now_ms
from receiver.config import settings
from receiver.config.hook_secrets import secrets
from receiver.config.hooks_file import HookEntry, load
from receiver.config.settings import Settings, sqlite_path
from receiver.config.values import is_postgres
from receiver.delivery import hook_tests
from receiver.doctor import clocks, directory, reach, record
from receiver.doctor.findings import Finding, Verdict, failed, ok, warning
from receiver.endpoints import Circuit
from receiver.errors import DeliveryFailure, SettingsError, StoreError
from receiver.hooks.base import Hook
from receiver.observability import logs
from receiver.processes import current_hooks
from receiver.providers import PROVIDERS, status_for
from receiver.stores import Store, open_store
from receiver.stores.sql.endpoint_status import endpoint_statuses
from receiver.stores.sql.metrics import without_hook
from receiver.text.display import hiding, one_line, redacted

T = TypeVar("T")
Hide = Callable[[str], str]
MAX_RESPONSE = 200  # characters
CORRECT = "correct the hooks file"


def examine(*, send: bool) -> Iterator[Finding]:
    """Yield the finding of each check as soon as it is finished; never raise."""
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
            yield from _hooks(None, send=send)
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
        yield from _hooks(usable_store, send=send, zone=chosen.zone)
        yield reach.check(chosen, usable_store)


def _clock(public_url: str | None) -> Finding:
    urls = clocks.reference_urls(PROVIDERS.values(), os.environ)
    return clocks.check([*urls, *([public_url] if public_url else [])])


def _hooks(store: Store | None, *, send: bool, zone: tzinfo = UTC) -> Iterator[Finding]:
    """Check each hook of the hooks file; with `send`, also send a test event through it.

    Without a store, the state of the endpoints is unknown.
    """
    for problem in hooks.check_installed_types():
        yield warning("hook types", problem, "upgrade or uninstall the package")
    yield from _rejected(store)
    source = settings.hooks_path()
    try:
        entries = load(source.path, status_for, PROVIDERS, must_exist=source.must_exist)
    except SettingsError as error:
        yield from (failed("hooks", problem, CORRECT) for problem in error.problems)
        return
    yield from _missing(entries, store)
    if not entries:
        todo = "add some to hooks.toml (HOOKS_FILE); docs/hooks.md has examples"
        yield warning("hooks", "there are none, so nothing happens when a task ends", todo)
    hide = hiding(secrets(entries, os.environ))
    if send:
        logs.configure(hide, settings.log_format())
    for entry in entries:
        name = f"hook {entry.name}"
        try:
            hook = hooks.build(entry, os.environ)
        except SettingsError as error:
            yield from (failed(name, problem, CORRECT) for problem in error.problems)
        else:
            yield _endpoint(name, store, entry, hide)
            if send:
                yield _test_event(name, hook, entry, zone, hide)


def _rejected(store: Store | None) -> Iterator[Finding]:
    """Yield a warning for each reason why processes rejected the hooks file."""
    found = _recorded(store, lambda store: current_hooks.rejections(store, now_ms())) or {}
    for problem, processes in current_hooks.processes_by_problem(found).items():
        yield warning(
            "hooks file",
            f"rejected at the last SIGHUP by {processes}; the previous one is used: {problem}",
            "correct it, check it with receiver hooks list, and send SIGHUP again",
        )


def _missing(entries: Sequence[HookEntry], store: Store | None) -> Iterator[Finding]:
    """Yield a warning for each hook that deliveries wait for, but that is not in the file."""
    counts = _recorded(store, lambda store: store.metrics.delivery_counts()) or []
    for hook, number in without_hook(counts, [entry.name for entry in entries]).items():
        yield warning(
            f"hook {hook}",
            f"it is not in the hooks file; deliveries that wait for it: {number}",
            f"add it and send SIGHUP, or drop them: receiver endpoints drop {hook}",
        )


def _endpoint(name: str, store: Store | None, entry: HookEntry, hide: Hide) -> Finding:
    """Report the endpoint of a hook whose options are valid."""
    found = _recorded(store, lambda store: endpoint_statuses(store, [entry.name], now_ms()))
    if not found or not found[0].has_problem:
        return ok(name, f"{entry.type}; its options can be used")
    (status,) = found
    is_closed = status.circuit is Circuit.CLOSED
    text = status.failure if is_closed else str(status.circuit)
    if status.last_response:
        text += f": {one_line(hide(status.last_response), MAX_RESPONSE)}"
    if is_closed:
        check = f"{status.advice}, then" if status.advice else "check the endpoint"
        return warning(name, text, f"{check}: receiver hooks test {entry.name}")
    todo = f"repair it, then: receiver endpoints resume {entry.name}"
    return (failed if status.circuit is Circuit.DISABLED else warning)(name, text, todo)


def _test_event(name: str, hook: Hook, entry: HookEntry, zone: tzinfo, hide: Hide) -> Finding:
    try:
        answer = hook_tests.send(hook, entry.subscription.test_status, zone)
    except DeliveryFailure as failure:
        return failed(name, f"the test event failed: {hide(str(failure))}", CORRECT)
    return ok(name, f"test event sent: {hide(answer)}")


def _recorded(store: Store | None, read: Callable[[Store], T]) -> T | None:
    """Return what `read` returns; None if there is no store, or if it fails.

    The check of the database reports a failure.
    """
    try:
        return read(store) if store else None
    except StoreError:
        return None
