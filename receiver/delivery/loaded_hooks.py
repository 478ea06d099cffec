"""The hooks of a worker process, built from the hooks file in use."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterable, Mapping, Sequence

import structlog

from receiver import hooks
from receiver.config.hook_secrets import secrets as secrets_of
from receiver.config.hooks_file import HookEntry, limits_of
from receiver.filters.where import EventFilter
from receiver.hooks.base import Alerting, Hook
from receiver.outgoing.retry import RetryPolicy
from receiver.processes.current_hooks import REJECTED, RELOADED, CurrentHooks
from receiver.text.display import hiding

log = structlog.get_logger()


class LoadedHooks(UserDict[str, Hook]):
    """The hooks by name; `reload` replaces either all of them or none. Thread-safe.

    `hide` removes the secrets of the hooks and `secrets` from a text. Raises SettingsError if a
    hook cannot be built.
    """

    def __init__(
        self, current: CurrentHooks, environ: Mapping[str, str], secrets: Iterable[str] = ()
    ) -> None:
        self._environ = environ
        self.current = current
        self.data = hooks.build_all(current.entries, environ)
        self.alerting = _alerting(current.entries, self.data)
        self.policies, self.limits = _policies(current.entries), limits_of(current.entries)
        self.filters = _filters(current.entries)
        self.hide = hiding(secrets_of(current.entries, environ) | set(secrets))

    def reload(self) -> None:
        """Read the hooks file again. If it is invalid, log the problem and keep the hooks."""
        built: dict[str, Hook] = {}
        reloaded = self.current.reloaded(
            lambda entries: built.update(hooks.build_all(entries, self._environ))
        )
        if reloaded.problem is not None:
            self.current = reloaded
            log.error(REJECTED, process="worker", problem=reloaded.problem)
            return
        # Secrets of the previous hooks stay hidden: an attempt that still runs may repeat them.
        self.hide.add(secrets_of(reloaded.entries, self._environ))
        self.data, self.current = built, reloaded
        self.alerting = _alerting(reloaded.entries, built)
        self.policies, self.limits = _policies(reloaded.entries), limits_of(reloaded.entries)
        self.filters = _filters(reloaded.entries)
        log.info(RELOADED, process="worker", hooks=list(built))


def _policies(entries: Sequence[HookEntry]) -> dict[str, RetryPolicy]:
    """Return the retry policy of each hook that has its own."""
    policies = {}
    for entry in entries:
        if entry.retry is not None:
            policies[entry.name] = RetryPolicy(entry.retry)
        elif entry.retry_for is not None:
            policies[entry.name] = RetryPolicy.lasting(entry.retry_for)
    return policies


def _filters(entries: Sequence[HookEntry]) -> dict[str, EventFilter]:
    """Return the filters with conditions for outputs of other hooks, by hook."""
    filters = {entry.name: entry.subscription.where for entry in entries}
    return {
        name: where
        for name, where in filters.items()
        if where is not None and where.of_hook_outputs
    }


def _alerting(
    entries: Sequence[HookEntry], built: Mapping[str, Hook]
) -> list[tuple[str, Alerting]]:
    """Return the hooks that send alerts about endpoints, with their names."""
    return [
        (entry.name, hook)
        for entry in entries
        if entry.alerts and isinstance(hook := built[entry.name], Alerting)
    ]
