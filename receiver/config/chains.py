"""Finds the hooks whose outputs a hook uses, and resolves for which hook it has to wait; pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

OUTPUTS = "outputs"  # the member of an event that contains the objects that hooks returned
# The built-in types whose hooks can return an object. Those of other packages may return one, too.
RETURNING = ("command", "python")
# Methods of an object, which are no names of hooks.
METHODS = frozenset({"get", "items", "keys", "values"})
_NAME = "[A-Za-z0-9_-]{1,40}"
_USE = re.compile(rf"""\boutputs(?:\.([A-Za-z_][A-Za-z0-9_]{{0,39}})|\[["']({_NAME})["']\])""")
_MARKS = ("{{", "{%")


class InvalidChain(ValueError):
    """A hook that uses the output of a hook for which it does not wait. `key` is the wrong key."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def used_in_templates(options: Any) -> set[str]:
    """Return the names of the hooks whose outputs the templates in these options use.

    The templates are only searched, so that the web process does not need Jinja.
    """
    if isinstance(options, Mapping):
        return set().union(*map(used_in_templates, options.values()))
    if isinstance(options, list):
        return set().union(*map(used_in_templates, options))
    if not isinstance(options, str) or not any(mark in options for mark in _MARKS):
        return set()
    return {found[1] or found[2] for found in _USE.finditer(options)} - METHODS


def awaited(
    name: str, used: Collection[str], after: str | None, waits: Mapping[str, str | None]
) -> str:
    """Return the hook for which this one has to wait, in order to use the outputs of `used`.

    `after` is the one that the hooks file names, and `waits` those of all hooks. Raises
    InvalidChain.
    """
    missing = sorted(used - waits.keys())
    if missing:
        raise InvalidChain(OUTPUTS, f'there is no hook "{missing[0]}" whose output could be used')
    if name in used:
        raise InvalidChain(OUTPUTS, "a hook cannot use its own output")
    shown = " and ".join(f'"{one}"' for one in sorted(used))
    if after == "":
        raise InvalidChain("after", f'"" does not wait, but the output of {shown} is used')
    if after is not None:
        if not used <= {after, *_ahead(after, waits)}:
            raise InvalidChain(
                "after", f'waits for "{after}", but the output of {shown} is used; name that hook'
            )
        return after
    last = [one for one in used if used <= {one, *_ahead(one, waits)}]
    if not last:
        raise InvalidChain(
            "after",
            f"the outputs of {shown} are used; let one of these hooks wait for the other, and "
            'name the last one with after = "…"',
        )
    return last[0]


def _ahead(name: str, waits: Mapping[str, str | None]) -> Iterator[str]:
    """Yield the hooks for which this one waits, directly or through others."""
    seen = {name}
    following = waits.get(name)
    while following and following not in seen:
        yield following
        seen.add(following)
        following = waits.get(following)
