"""Provider adapters by name: the built-in ones, and those of other installed packages."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

from receiver.config import plugins
from receiver.config.plugins import Plugin
from receiver.errors import SettingsError
from receiver.signing.callback_urls import DOCTOR

T = TypeVar("T")
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Registry(Mapping[str, T]):
    """The adapters of one kind. Other packages add theirs through an entry point.

    Those packages are imported when the registry is first searched for a name that is not built in.
    An adapter that cannot be used is left out; `problems` says why.
    """

    def __init__(
        self,
        group: str,
        built_in: Mapping[str, T],
        members: Collection[str],
        make: Callable[[Any], T],
    ) -> None:
        """`members`: the required attributes. `make` returns the adapter of a class."""
        self._group = group
        self._built_in = built_in
        self._members = members
        self._make = make

    def __getitem__(self, name: str) -> T:
        adapter = self._built_in.get(name)
        return self._added[0][name] if adapter is None else adapter

    def __iter__(self) -> Iterator[str]:
        return iter([*self._built_in, *self._added[0]])

    def __len__(self) -> int:
        return len(self._built_in) + len(self._added[0])

    @property
    def problems(self) -> list[str]:
        """One line for each adapter of another package that cannot be used."""
        return self._added[1]

    @cached_property
    def _added(self) -> tuple[dict[str, T], list[str]]:
        found = plugins.find(self._group, frozenset(self._built_in) | {DOCTOR})
        adapters: dict[str, T] = {}
        problems = [f"{self._group}: {problem}" for problem in found.problems.values()]
        for name, plugin in found.usable.items():
            try:
                adapters[name] = self._adapter(plugin)
            except SettingsError as error:
                problems += [f"{self._group}: {problem}" for problem in error.problems]
        return adapters, problems

    def _adapter(self, plugin: Plugin) -> T:
        if not NAME.fullmatch(plugin.name):
            raise plugin.error("has a name that cannot be used; use lower-case letters, 32 at most")
        loaded = plugin.load()
        try:
            adapter = self._make(loaded)
        except Exception as error:  # the package may raise anything
            raise plugin.error(f"cannot be created: {type(error).__name__}: {error}") from error
        absent = sorted(name for name in self._members if not hasattr(adapter, name))
        if absent:
            raise plugin.error(f"lacks {', '.join(absent)}; see docs/adding-a-provider.md")
        name = getattr(adapter, "name", None)
        if name != plugin.name:
            raise plugin.error(f"calls itself {name!r}; give its entry point the same name")
        return adapter


def members_of(contract: type) -> frozenset[str]:
    """Return the names of the attributes and methods that a Protocol declares."""
    methods = {name for name, value in vars(contract).items() if callable(value)}
    public = {name for name in methods | set(contract.__annotations__) if name[0] != "_"}
    return frozenset(public)
