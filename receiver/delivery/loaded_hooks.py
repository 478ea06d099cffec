"""The hooks of a worker process, built from the hooks file that is in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import structlog

from receiver import hooks
from receiver.config.hooks_file import HookEntry
from receiver.hooks.base import Alerting, Hook
from receiver.processes.current_hooks import REJECTED, RELOADED, CurrentHooks
from receiver.text.redaction import hiding

log = structlog.get_logger()


class LoadedHooks(Mapping[str, Hook]):
    """The hooks by name; `reload` replaces all of them, or none.

    `secrets`: what `hide` hides beside the secrets of the hooks. May be used by several threads.
    Raises SettingsError if a hook cannot be built.
    """

    def __init__(
        self, current: CurrentHooks, environ: Mapping[str, str], secrets: Iterable[str] = ()
    ) -> None:
        self._environ = environ
        self.current = current
        self._built = hooks.build_all(current.entries, environ)
        self._alerting = _alerting(current.entries, self._built)
        self._secrets = hooks.secrets(current.entries, environ) | set(secrets)
        self._hiding = hiding(self._secrets)

    def reload(self) -> None:
        """Read the hooks file again; if it is invalid, log that, and keep the hooks."""
        built: dict[str, Hook] = {}
        found = self.current.reloaded(
            lambda entries: built.update(hooks.build_all(entries, self._environ))
        )
        if found.problem is not None:
            self.current = found
            log.error(REJECTED, problem=found.problem)
            return
        # An attempt that still runs may show what the previous hooks must not.
        self._secrets |= hooks.secrets(found.entries, self._environ)
        self._hiding = hiding(self._secrets)
        self._built, self.current = built, found
        self._alerting = _alerting(found.entries, built)
        log.info(RELOADED, hooks=list(built))

    def hide(self, text: str) -> str:
        """Return the text without secrets."""
        return self._hiding(text)

    def alerting(self) -> list[tuple[str, Alerting]]:
        """Return the hooks that report failing endpoints, by name."""
        return self._alerting

    def __getitem__(self, name: str) -> Hook:
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._built)

    def __len__(self) -> int:
        return len(self._built)


def _alerting(
    entries: Sequence[HookEntry], built: Mapping[str, Hook]
) -> list[tuple[str, Alerting]]:
    return [
        (entry.name, hook)
        for entry in entries
        if entry.alerts and isinstance(hook := built[entry.name], Alerting)
    ]
