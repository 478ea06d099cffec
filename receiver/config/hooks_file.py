"""Reads hooks.toml, which defines the hooks and their events; reports all problems together.

This module does not import the hook types, so that the web process can use it. The `options` of an
entry are checked when the hook is built.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from marshmallow import INCLUDE, ValidationError, fields, validate

from receiver.config import chains, durations, pacing, plugins
from receiver.config.plugins import Plugins
from receiver.deliveries import GIVEN_UP, Subscription
from receiver.endpoints import Limits
from receiver.errors import SettingsError
from receiver.filters.where import EventFilter, InvalidFilter
from receiver.filters.where import parse as parse_filter
from receiver.tasks import Status

TYPES = ("apprise", "command", "download", "email", "python", "queue", "slack", "webhook")
DOWNLOAD = "download"
# Notifications wait for the download, unless `after` names another hook or is empty, but not longer
# than NOTIFICATION_WAIT, unless `wait_for_files` is set.
NOTIFICATIONS = frozenset({"apprise", "email", "slack"})
NOTIFICATION_WAIT = 120  # seconds
HEARABLE = (*(status.value for status in Status if status is not Status.CREATED), GIVEN_UP)
EVERY = "*"  # in `on`: every status
ON = (*HEARABLE, EVERY)  # the values of `on`
DEFAULT_ON = (Status.SUCCEEDED.value, Status.FAILED.value)

Table = Mapping[str, Any]
Spelling = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class HookEntry:
    """One `[[hook]]` table. `options` are the keys of its type, with `${NAME}` not yet replaced."""

    name: str
    type: str
    subscription: Subscription
    options: Table
    alerts: bool = False  # also notify people when another hook's endpoint fails
    # Seconds after each failed attempt, or in total; if both are None, the default delays apply.
    retry: tuple[float, ...] | None = None
    retry_for: float | None = None
    limits: Limits = field(default_factory=Limits)
    file: str = "hooks.toml"  # the name of the hooks file, for error messages


@dataclass(frozen=True, slots=True)
class HooksPath:
    """The path of the hooks file. Only a file that no setting names may be missing."""

    path: Path = Path("hooks.toml")
    must_exist: bool = False

    def read(self) -> str:
        """Return the text of the file. Raises SettingsError.

        A missing file has the same meaning as an empty one, unless the file `must_exist` or a link
        to it exists.
        """
        try:
            return self.path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            is_link = self.path.is_symlink()
            if not self.must_exist and not is_link:
                return ""
            wrong = f"the link {self.path}" if is_link else "HOOKS_FILE"
            problem = (
                f"{wrong}: {self.path.resolve()} does not exist; correct {wrong}, or create the "
                "file (an empty file means that there are no hooks)"
            )
        except OSError as error:
            problem = f"hooks file: {self.path} cannot be read: {error.strerror}"
        except UnicodeDecodeError as error:
            reason = f"{error.reason} at byte {error.start}"
            problem = f"{self.path.name}: is not TOML: it is not UTF-8 ({reason})"
        except ValueError:  # a path that no file can have
            problem = f"HOOKS_FILE: {str(self.path)!r} is not a path"
        raise SettingsError([problem])


def load(
    path: Path, spelling: Spelling, providers: Collection[str] = (), *, must_exist: bool = True
) -> tuple[HookEntry, ...]:
    """Read and parse the hooks file. Raises SettingsError with a line for each mistake."""
    return parse(HooksPath(path, must_exist).read(), path, spelling, providers)


def parse(
    text: str, path: Path, spelling: Spelling, providers: Collection[str] = ()
) -> tuple[HookEntry, ...]:
    """Return the hooks of the file, in its order.

    `spelling` gives our status for a provider's spelling of one. `providers`, if given, are the
    only names that `providers = […]` may contain. Raises SettingsError with a line for each
    mistake, each of which names the file.
    """
    try:
        tables = _tables(text)
        entries = _entries([_translated(table, spelling) for table in tables], providers)
    except SettingsError as error:
        raise SettingsError([f"{path.name}: {line}" for line in error.problems]) from None
    return tuple(replace(entry, file=path.name) for entry in entries)


def lines(messages: Any, key: str = "") -> Iterator[str]:
    """Yield marshmallow's messages as lines `key: problem`."""
    if isinstance(messages, Mapping):
        for part, below in messages.items():
            # The message names the item, so its number is omitted, and so is whether the name or
            # the value in a table is wrong.
            is_named = isinstance(part, int) or ("." in key and part in ("key", "value"))
            yield from lines(below, key if is_named else f"{key}.{part}".strip("."))
    elif isinstance(messages, str):
        yield f"{key}: {messages}" if key else messages
    else:
        for message in messages:
            yield from lines(message, key)


def either(choices: Collection[str]) -> str:
    """Return the choices as `a, b or c`."""
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


def one_of(choices: Collection[str], kind: str) -> Callable[[str], None]:
    """Return a marshmallow validator whose message names the choices; `kind` is "a status"."""

    def check(value: str) -> None:
        if value not in choices:
            raise ValidationError(f'"{value}" is not {kind}; use {either(choices)}')

    return check


def limits_of(entries: Sequence[HookEntry]) -> dict[str, Limits]:
    """Return the limits of each hook that has any."""
    return {entry.name: entry.limits for entry in entries if entry.limits}


def installed_types() -> Plugins:
    """Return the hook types of other installed packages, without importing them."""
    return plugins.find(plugins.HOOKS, frozenset(TYPES))


def _check_type(value: str) -> None:
    """Raise ValidationError for an unknown type, or one that two packages define.

    Other packages are considered only for a type that is not built in.
    """
    if value in TYPES:
        return
    installed = installed_types()
    if value in installed.problems:
        raise ValidationError(installed.problems[value])
    one_of((*TYPES, *installed.usable), "a hook type")(value)


class _Keys(pacing.PacingKeys):
    """The keys that every hook has. All others belong to its type."""

    class Meta:
        unknown = INCLUDE

    def __init__(self, providers: Collection[str]) -> None:
        super().__init__()
        self._providers = providers

    def _read_filter(self, value: Any) -> EventFilter:
        try:
            return parse_filter(value, self._providers)
        except InvalidFilter as error:
            raise ValidationError(
                {name: [problem] for name, problem in error.problems.items()}
            ) from None

    name = fields.String(
        required=True,
        validate=validate.Regexp(
            r"[A-Za-z0-9_-]{1,40}\Z", error="use 1 to 40 letters, digits, '-' and '_'"
        ),
    )
    type = fields.String(required=True, validate=_check_type)
    on = fields.List(
        fields.String(validate=one_of(ON, "a status")),
        load_default=lambda: list(DEFAULT_ON),
        validate=validate.Length(min=1, error=f"is empty; use {either(ON)}"),
    )
    providers = fields.List(fields.String(), load_default=list)
    match = fields.String(load_default="*", validate=validate.Length(min=1, error="is empty"))
    after = fields.String(load_default=None)
    where = fields.Method(deserialize="_read_filter", load_default=None)
    wait_for_files = pacing.Seconds(
        durations.LONGEST,
        'is not a duration; use one like "90s" or "2m"; after = "" does not wait',
        load_default=None,
    )
    alerts = fields.Boolean(load_default=False)


HOOK_KEYS = tuple(_Keys(()).fields)


def _tables(text: str) -> Sequence[Table]:
    """Return the `[[hook]]` tables of the file. Raises SettingsError."""
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise SettingsError([f"is not TOML: {error}"]) from error
    except RecursionError:
        raise SettingsError(["is nested too deeply"]) from None
    tables = document.pop("hook", [])
    problems = [f'"{key}" is unknown here; every hook is a [[hook]] table' for key in document]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append("hook: write [[hook]], with two brackets")
    if problems:
        raise SettingsError(problems)
    return list(tables)


def _translated(table: Table, spelling: Spelling) -> Table:
    """Return the table with each status in `on` replaced by our name for it."""
    statuses = table.get("on")
    if not isinstance(statuses, list):
        return table
    return {**table, "on": [_status(item, spelling) for item in statuses]}


def _status(item: Any, spelling: Spelling) -> Any:
    if not isinstance(item, str) or item in ON:
        return item
    return spelling(item) or item


def _entries(tables: Sequence[Table], providers: Collection[str]) -> tuple[HookEntry, ...]:
    problems, entries = [], []
    names: list[str] = []
    keys = _Keys(providers)
    for number, table in enumerate(tables, 1):
        name = table.get("name")
        where = f'hook "{name}"' if isinstance(name, str) else f"hook {number}"
        try:
            entry = _entry(keys.load(table))
        except ValidationError as error:
            problems += [f"{where}: {line}" for line in lines(error.messages)]
        else:
            entries.append(entry)
            problems += [f"{where}: {line}" for line in _unknown_providers(entry, providers)]
        if name in names:
            problems.append(f"{where}: name: is used twice; give every hook a name of its own")
        names.append(str(name))
    names += [DOWNLOAD for table in tables if table.get("type") == DOWNLOAD]  # an alias
    resolved = _resolved(entries, problems)
    problems += [*_dangling(resolved, names), *_cycles(resolved), *_wrong_waits(tables, resolved)]
    if problems:
        raise SettingsError(problems)
    after = {entry.name: entry.subscription.after for entry in resolved}
    return tuple(
        replace(entry, subscription=replace(entry.subscription, ahead=_ahead(entry, after)))
        for entry in resolved
    )


def _ahead(entry: HookEntry, after: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return the hooks for which it waits through its `after`. There are no cycles."""
    ahead = []
    awaited = after.get(entry.subscription.after or "")
    while awaited is not None:
        ahead.append(awaited)
        awaited = after[awaited]
    return tuple(ahead)


def _entry(keys: dict[str, Any]) -> HookEntry:
    name, type_, alerts = keys.pop("name"), keys.pop("type"), keys.pop("alerts")
    # The maximum wait for the hook named by `after`; None: until its delivery ends.
    wait = keys.pop("wait_for_files")
    if wait is None and type_ in NOTIFICATIONS:
        wait = NOTIFICATION_WAIT
    subscription = Subscription(
        hook=name,
        on=frozenset(HEARABLE if EVERY in keys["on"] else keys["on"]),
        providers=frozenset(keys.pop("providers")),
        match=keys.pop("match"),
        after=keys.pop("after"),
        wait_ms=None if wait is None else round(wait * 1000),
        where=keys.pop("where"),
    )
    del keys["on"]
    retry, retry_for = keys.pop("retry"), keys.pop("retry_for")
    limits = Limits(keys.pop("rate"), keys.pop("concurrency"))
    retry = None if retry is None else tuple(retry)
    return HookEntry(name, type_, subscription, keys, alerts, retry, retry_for, limits)


def _unknown_providers(entry: HookEntry, providers: Collection[str]) -> Iterator[str]:
    for name in sorted(entry.subscription.providers - set(providers) if providers else ()):
        yield f'providers: "{name}" is not a provider; use {either(sorted(providers))}'


def _resolved(entries: Sequence[HookEntry], problems: list[str]) -> list[HookEntry]:
    """Return the hooks, with `after` set to the hook that each waits for; add any problems.

    A hook that uses the output of another one waits for it without a limit.
    """
    resolved = [_after(entry, entries) for entry in entries]
    used = {entry.name: _used_outputs(entry) for entry in entries}
    ahead = {name: set(names) for name, names in used.items()}
    for entry, default in zip(entries, resolved, strict=True):
        after = default.subscription.after
        if after and (entry.subscription.after or not used[entry.name]):
            ahead[entry.name].add(after)
    for index, entry in enumerate(entries):
        names = used[entry.name]
        # The resolved name replaces the type `download`.
        after = entry.subscription.after and resolved[index].subscription.after
        if not names:
            continue
        try:
            after = chains.awaited(entry.name, names, after, ahead)
            chains.check_returns(
                {one.name: one.type for one in entries if one.name in names}, TYPES
            )
        except chains.InvalidChain as error:
            problems.append(f'hook "{entry.name}": {error.key}: {error}')
        else:
            subscription = replace(entry.subscription, after=after, wait_ms=None)
            resolved[index] = replace(entry, subscription=subscription)
    return resolved


def _used_outputs(entry: HookEntry) -> set[str]:
    """Return the names of the hooks whose outputs the hook's templates and its filter use."""
    where = entry.subscription.where
    return chains.used_in_templates(entry.options) | (where.hooks if where else set())


def _after(entry: HookEntry, entries: Sequence[HookEntry]) -> HookEntry:
    """Return the entry with the name of the hook that it waits for, or None, in `after`."""
    after = entry.subscription.after
    if after is None and entry.type in NOTIFICATIONS:
        after = _first_download(entries)
    elif after == DOWNLOAD and all(other.name != DOWNLOAD for other in entries):
        after = _first_download(entries) or DOWNLOAD
    return replace(entry, subscription=replace(entry.subscription, after=after or None))


def _first_download(entries: Sequence[HookEntry]) -> str | None:
    return next((entry.name for entry in entries if entry.type == DOWNLOAD), None)


def _dangling(entries: Sequence[HookEntry], names: Sequence[str]) -> Iterator[str]:
    for entry in entries:
        after = entry.subscription.after
        if after is not None and after not in names:
            yield f'hook "{entry.name}": after: there is no hook "{after}"'


def _wrong_waits(tables: Sequence[Table], entries: Sequence[HookEntry]) -> Iterator[str]:
    """Yield an error for each hook that sets `wait_for_files` although it has no effect.

    Notifications may set it, because they wait for a download hook by default.
    """
    limited = {table.get("name") for table in tables if "wait_for_files" in table}
    for entry in (one for one in entries if one.name in limited):
        if used := _used_outputs(entry):
            shown = " and ".join(f'"{name}"' for name in sorted(used))
            yield (
                f'hook "{entry.name}": wait_for_files: the hook uses the output of {shown}, so it '
                "waits without a limit; remove this key"
            )
        elif entry.subscription.after is None and entry.type not in NOTIFICATIONS:
            yield (
                f'hook "{entry.name}": wait_for_files: it waits for no hook; '
                'name one with after = "…", or leave this out'
            )


def _cycles(entries: Sequence[HookEntry]) -> Iterator[str]:
    """Yield an error for each cycle of hooks that wait for each other."""
    waits = {entry.name: entry.subscription.after for entry in entries}
    reported: set[str] = set()
    for start, after in waits.items():
        cycle, following = [start], after
        while following in waits and following not in cycle:
            cycle.append(following)
            following = waits[following]
        if following == start and start not in reported:
            reported.update(cycle)
            yield (
                f'hook "{start}": after: waits for itself'
                + "".join(f' through "{other}"' for other in cycle[1:])
                + '; after = "" does not wait'
            )
