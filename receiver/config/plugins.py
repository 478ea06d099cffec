"""Hook types and provider adapters, also those that other packages add through entry points.

Finding those reads the metadata of the installed packages, which takes a few milliseconds. A
package is imported only when one of its entry points is loaded.
"""

from __future__ import annotations

from collections import UserDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from receiver.errors import SettingsError
from receiver.observability.logger import Logger, configure_now

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

HOOKS = "callback_receiver.hooks"
PROVIDERS = "callback_receiver.providers"

log = Logger()


class BuiltIn(UserDict[str, Any]):
    """Our own classes by name, each imported from its `module:Class` when it is used.

    Some of their libraries take long to import.
    """

    def __getitem__(self, name: str) -> Any:
        return resolve_name(self.data[name])


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point; `package` is the name and the version of the package that defines it."""

    name: str
    package: str
    entry_point: EntryPoint

    def load(self) -> Any:
        """Return the object that the entry point names. Raises SettingsError."""
        configure_now()  # the package may log
        try:
            return self.entry_point.load()
        except (Exception, SystemExit) as error:  # the package may raise anything
            raise self.error(f"cannot be loaded: {type(error).__name__}: {error}") from error

    def error(self, problem: str) -> SettingsError:
        """Return the error for a problem of the package, such as "is not a class"."""
        return SettingsError([f'"{self.name}" of the package {self.package} {problem}'])


@dataclass(frozen=True, slots=True)
class Plugins:
    """The entry points of a group by name, and the reason for each name that cannot be used."""

    usable: Mapping[str, Plugin]
    problems: Mapping[str, str]


@cache
def find(group: str, built_in: frozenset[str]) -> Plugins:
    """Return the entry points of a group. Built-in names cannot be replaced.

    If two packages define the same name, neither can be used. The result is cached: a package that
    is installed later is found after a restart.
    """
    usable: dict[str, Plugin] = {}
    problems: dict[str, str] = {}
    by_name: defaultdict[str, list[Plugin]] = defaultdict(list)
    for plugin in _installed(group):
        by_name[plugin.name].append(plugin)
    for name, plugins in sorted(by_name.items()):
        packages = " and ".join(plugin.package for plugin in plugins)
        if name in built_in:
            problems[name] = f'"{name}" is built in, and cannot be replaced by {packages}'
        elif len(plugins) > 1:
            problems[name] = f'"{name}" is defined by {packages}; uninstall all but one of them'
        else:
            usable[name] = plugins[0]
    return Plugins(usable, problems)


def _installed(group: str) -> Iterator[Plugin]:
    """Yield the entry points of all packages.

    Like Python's import system, this ignores a package that is hidden by one of the same name
    earlier on `sys.path`.
    """
    from importlib import metadata  # noqa: PLC0415 - it takes 25 ms, and few commands need it

    seen: set[str] = set()
    for distribution in metadata.distributions():
        plugins = _defined_by(distribution, group)
        key = plugins[0].package.rpartition(" ")[0].lower().replace("_", "-") if plugins else ""
        if key not in seen:
            seen.add(key)
            yield from plugins


def _defined_by(distribution: Distribution, group: str) -> list[Plugin]:
    """Return the entry points of a package; none if its metadata cannot be read."""
    try:
        found = distribution.entry_points.select(group=group)
        if not found:
            return []
        package = f"{distribution.metadata['Name']} {distribution.version}"
    except Exception as error:  # noqa: BLE001 - such as a file that is not UTF-8
        folder = str(distribution.locate_file(""))
        log.warning("the metadata of a package cannot be read", folder=folder, error=str(error))
        return []
    return [Plugin(entry_point.name, package, entry_point) for entry_point in found]
