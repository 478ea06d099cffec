"""Finds the hooks whose outputs a hook uses, and the hook that it has to wait for; pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Set
from typing import Any

OUTPUTS = "outputs"  # the member of an event that contains the objects that hooks returned
# The built-in types whose hooks can return an object. Hook types of other packages can do so too.
RETURNING = ("command", "python")
METHODS = frozenset({"get", "items", "keys", "values"})  # of a dict, as opposed to hook names
_ENDS = {"{{": "}}", "{%": "%}", "{#": "#}"}  # of the parts of a template, by their beginnings
_BEGINNING = re.compile("|".join(map(re.escape, _ENDS)))
_RAW = re.compile(r"[-+]?\s*raw\b")
_END_OF_RAW = re.compile(r"\{%[-+]?\s*endraw\b")
# Strings are skipped, and so are members of other objects, such as `task.metadata.outputs`.
_USE = re.compile(
    r"""(?<![\w.])outputs\s*(?:
          (?:\.\s*get\s*\(|\[)\s*["']([A-Za-z0-9_-]{1,40})["']
        | \.\s*([A-Za-z_][A-Za-z0-9_]{0,39})
    ) | "(?:\\.|[^"\\])*+"? | '(?:\\.|[^'\\])*+'?""",
    re.VERBOSE | re.DOTALL,
)


class InvalidChain(ValueError):
    """A hook cannot use the output of another hook. `key` is the wrong key in its table."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def used_in_templates(options: Any) -> set[str]:
    """Return the names of the hooks whose outputs the templates in these options use.

    The templates are searched without being parsed, so that the web process does not need Jinja.
    """
    if isinstance(options, Mapping):
        options = list(options.values())
    if isinstance(options, list):
        return set().union(*map(used_in_templates, options))
    if not isinstance(options, str):
        return set()
    uses = [use for part in _evaluated(options) for use in _USE.finditer(part)]
    members = {use[2] for use in uses if use[2]} - METHODS
    return {use[1] for use in uses if use[1]} | members


def _evaluated(template: str) -> Iterator[str]:
    """Yield the parts of a template that Jinja evaluates: not its comments and raw blocks.

    A part without an end lasts to the end of the text, so the search takes linear time.
    """
    place = 0
    while found := _BEGINNING.search(template, place):
        beginning, start = found[0], found.end()
        end = template.find(_ENDS[beginning], start)
        end = len(template) if end < 0 else end
        place = end + len(beginning)
        if beginning == "{%" and _RAW.match(template, start):
            raw = _END_OF_RAW.search(template, place)
            place = raw.end() if raw else len(template)
        elif beginning != "{#":
            yield template[start:end]


def awaited(
    name: str,
    used: Set[str],
    after: str | None,
    ahead: Mapping[str, Collection[str]],
) -> str:
    """Return the hook that this one has to wait for in order to use the outputs of `used`.

    `after` is its key in the hooks file. `ahead` maps each hook to the hooks that it waits for
    directly. Raises InvalidChain.
    """
    for one in sorted(used - ahead.keys()):
        raise InvalidChain(OUTPUTS, f'there is no hook "{one}", so its output cannot be used')
    if name in used:
        raise InvalidChain(OUTPUTS, "a hook cannot use its own output")
    shown = " and ".join(f'"{one}"' for one in sorted(used))
    if after == "":
        raise InvalidChain("after", f"is empty, but the hook uses the output of {shown}; remove it")
    if after is not None:
        if not used <= _behind(after, ahead):
            raise InvalidChain(
                "after",
                f'is "{after}", but the hook uses the output of {shown}; name the hook that '
                "returns it, or a hook that waits for it",
            )
        return after
    last = [one for one in sorted(used) if used <= _behind(one, ahead)]
    if not last:
        raise InvalidChain(
            "after",
            f"the hook uses the outputs of {shown}; let one of these wait for the others, and "
            'name the last one in after = "…"',
        )
    return last[0]


def check_returns(types: Mapping[str, str], built_in: Collection[str]) -> None:
    """Check that these hooks can return an object. Raises InvalidChain.

    `types` maps the name of each hook to its type.
    """
    for name, type_ in types.items():
        if type_ in built_in and type_ not in RETURNING:
            raise InvalidChain(
                OUTPUTS,
                f'"{name}" is a hook of type {type_}, which returns no output; use a hook of type '
                f"{' or '.join(RETURNING)}",
            )


def _behind(name: str, ahead: Mapping[str, Collection[str]]) -> set[str]:
    """Return this hook and the hooks that it waits for, directly or through others."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += ahead.get(one, ())
    return found
