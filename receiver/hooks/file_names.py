"""Makes the names of downloaded files from a path template, and recognises them on disk.

The template is the option `path` of a download hook. Other programs may have put files of any name
there, so recognising a name takes linear time.
"""

from __future__ import annotations

import glob
import re
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from string import Formatter

from receiver.deliveries import Notice
from receiver.events import Media
from receiver.tasks import Task

PLACEHOLDERS = ("provider", "account", "task", "reference", "kind", "index", "extension")
EXTENSION = "{extension}"  # replaced when the content of the file is known
MAX_VALUE = 64  # characters of one value in a path
DIGITS = frozenset(string.digits)
ALPHANUMERIC = DIGITS | frozenset(string.ascii_letters)


@dataclass(frozen=True, slots=True)
class Literal:
    """This text."""

    text: str


@dataclass(frozen=True, slots=True)
class Characters:
    """One or more of the characters in `allowed`."""

    allowed: frozenset[str]


@dataclass(frozen=True, slots=True)
class OptionalNumber:
    """A hyphen and digits, or nothing."""


Part = Literal | Characters | OptionalNumber

# Values that only an attempt knows; the ids of tasks contain no full stop.
VALUES = {
    "extension": Characters(ALPHANUMERIC),
    "reference": Characters(ALPHANUMERIC | set("._-")),
}
ID = Characters(ALPHANUMERIC | set("_-"))


@dataclass(frozen=True, slots=True)
class NamePattern:
    """The names that consist of these parts."""

    parts: tuple[Part, ...]

    @property
    def pattern(self) -> str:
        """A glob pattern that matches these names, and possibly others."""
        return "".join(
            glob.escape(part.text) if isinstance(part, Literal) else "*" for part in self.parts
        )

    def matches(self, name: str) -> bool:
        """Return whether the whole name consists of the parts."""
        ends = {0}
        for part in self.parts:
            ends = _ends(name, ends, part)
        return len(name) in ends


@dataclass(frozen=True, slots=True)
class TaskPaths:
    """The paths in a storage at which files of one task can be.

    Each level of a path has a pattern, and says whether a directory that matches it belongs to the
    task or its customer alone.
    """

    levels: tuple[tuple[NamePattern, bool], ...]


def file_name(value: str) -> str:
    """Return the value as a part of a path. The value comes from outside, and may be hostile."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", value[:MAX_VALUE]).lstrip(".") or "_"


def folder_names(task: Task) -> frozenset[str]:
    """Return the names of directories that belong to this task or its customer."""
    return frozenset(file_name(value) for value in (task.id, task.reference) if value)


def output_names(template: str, notice: Notice) -> list[str]:
    """Return a unique path for each output, in which the extension is still a placeholder."""
    names: dict[str, None] = {}
    repeated: Counter[str] = Counter()
    for media in notice.media:
        name = wanted = _output_name(template, notice.task, media)
        while name in names:
            repeated[wanted] += 1
            name = _numbered(wanted, repeated[wanted] + 1)
        names[name] = None
    return list(names)


def task_paths(template: str, task: Task) -> TaskPaths | None:
    """Return the paths of this task; None if files of another task could have the same paths.

    `{task}-{index}`, for example, gives the same name to two tasks, `a` with the index `1-2` and
    `a-1` with the index `2`. Then only the files on record are known.
    """
    if re.search(r"[\w}-]\{task\}|\{task\}[\w{-]", template):
        return None
    known = {"provider": task.provider, "account": task.account, "task": task.id}
    if task.reference:  # a forgotten task has none
        known["reference"] = task.reference
    levels: list[tuple[NamePattern, bool]] = []
    for level in template.split("/"):
        parts: list[Part] = []
        placeholders = []
        for literal, placeholder, _, _ in Formatter().parse(level):
            parts.append(Literal(literal))
            if placeholder in known:
                parts.append(Literal(file_name(known[placeholder])))
            elif placeholder is not None:
                parts.append(VALUES.get(placeholder, ID))
            placeholders.append(placeholder)
        is_own = not {"task", "reference"}.isdisjoint(placeholders)
        levels.append((NamePattern(tuple(parts)), is_own))
    *folders, (last, is_own) = levels
    return TaskPaths((*folders, (_with_number(last, task), is_own)))


def _output_name(template: str, task: Task, media: Media) -> str:
    values = {
        "provider": task.provider,
        "account": task.account,
        "task": task.id,
        "reference": task.reference or "",
        "kind": media.kind,
        "index": media.index,
    }
    safe = {placeholder: file_name(value) for placeholder, value in values.items()}
    return template.format(**safe, extension=EXTENSION)


def _numbered(name: str, number: int) -> str:
    stem, dot, extension = name.rpartition(".")
    if dot and "/" not in extension:
        return f"{stem}-{number}.{extension}"
    return f"{name}-{number}"


def _with_number(name: NamePattern, task: Task) -> NamePattern:
    """Return the pattern with an optional number before the extension, as `_numbered` adds it.

    Directly after the id of the task, no number is accepted, because it could be part of another
    id.
    """
    for at in reversed(range(len(name.parts))):
        part = name.parts[at]
        if isinstance(part, Literal) and "." in part.text:
            stem, _, extension = part.text.rpartition(".")
            before = "".join(one.text for one in name.parts[:at] if isinstance(one, Literal)) + stem
            if before.endswith(file_name(task.id)):
                return name
            middle = (Literal(stem), OptionalNumber(), Literal(f".{extension}"))
            return NamePattern((*name.parts[:at], *middle, *name.parts[at + 1 :]))
    return name


def _ends(name: str, starts: Iterable[int], part: Part) -> set[int]:
    """Return where the part can end in the name if it begins at one of `starts`."""
    if isinstance(part, Literal):
        return {at + len(part.text) for at in starts if name.startswith(part.text, at)}
    if isinstance(part, OptionalNumber):
        return {*starts, *_ends(name, _ends(name, starts, Literal("-")), Characters(DIGITS))}
    ends: set[int] = set()
    begins = set(starts)
    for at, char in enumerate(name):
        if char in part.allowed and (at in begins or at in ends):
            ends.add(at + 1)
    return ends
