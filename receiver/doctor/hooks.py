"""Checks whether each hook can be built and whether its endpoint works."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, tzinfo
from typing import TypeVar

from receiver import hooks
from receiver.clock import now_ms
from receiver.config import settings
from receiver.config.hooks_file import HookEntry
from receiver.delivery import hook_tests
from receiver.doctor.findings import Finding, failed, ok, warning
from receiver.endpoints import Circuit
from receiver.errors import DeliveryFailure, SettingsError, StoreError
from receiver.observability import logs
from receiver.processes import current_hooks
from receiver.stores import Store
from receiver.stores.sql.metrics import without_hook
from receiver.text.display import hiding

T = TypeVar("T")
Hide = Callable[[str], str]
CORRECT = "correct the hooks file"


def check(
    entries: Sequence[HookEntry], store: Store | None, *, send: bool, zone: tzinfo = UTC
) -> Iterator[Finding]:
    """Check each hook of the hooks file; with `send`, also send a test event through it.

    Without a store, the state of the endpoints is unknown.
    """
    yield from rejected(store)
    yield from _missing(entries, store)
    if not entries:
        todo = "add some to hooks.toml (HOOKS_FILE); docs/hooks.md has examples"
        yield warning("hooks", "there are none, so nothing happens when a task ends", todo)
    hide = hiding(hooks.secrets(entries, os.environ))
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


def installed_types() -> Iterator[Finding]:
    """Yield a warning for each hook type of another package that cannot be used."""
    for problem in hooks.check_installed_types():
        yield warning("hook types", problem, "upgrade or uninstall the package")


def rejected(store: Store | None) -> Iterator[Finding]:
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
    """Report the circuit breaker of a hook whose options can be used."""
    endpoint = _recorded(store, lambda store: store.endpoints.of(entry.name))
    if endpoint is None or (circuit := endpoint.circuit(now_ms())) is Circuit.CLOSED:
        return ok(name, f"{entry.type}; its options can be used")
    text = f"{circuit}: {hide(endpoint.said)}" if endpoint.said else str(circuit)
    todo = f"repair it, then: receiver endpoints resume {entry.name}"
    return (failed if circuit is Circuit.DISABLED else warning)(name, text, todo)


def _test_event(name: str, hook: hooks.Hook, entry: HookEntry, zone: tzinfo, hide: Hide) -> Finding:
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
