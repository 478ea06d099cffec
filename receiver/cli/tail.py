"""The command that follows the record: callbacks, status changes and attempts as they happen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from threading import Event as Signal
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from receiver.cli.database import check_hook, names_in_hooks_file, settings_and_store
from receiver.cli.options import as_json, hook_names, task_option
from receiver.config import table
from receiver.console import output
from receiver.console import records as tables
from receiver.console.find_task import find_task
from receiver.console.numbers import WholeNumber
from receiver.environment import Environment, readers
from receiver.processes.shutdown import stop_at
from receiver.providers import PROVIDERS
from receiver.serializers import records
from receiver.stores.base import Store
from receiver.stores.sql.activity import Activity, ActivityKind, Key
from receiver.text.display import redacted

if TYPE_CHECKING:
    from receiver.cli.remote_events import RemoteEvents

PAGE = 200  # rows of a kind that are read again, because a commit may be later than its row key
IDLE = 5.0  # seconds


class ActivityFollower:
    """Reads every row of the record once; `past` initially has the latest rows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[ActivityKind, set[Key]] = {kind: set() for kind in ActivityKind}
        self.past = self.read(first=True)  # oldest first

    def follow(self, stop: Signal) -> Iterator[list[Activity]]:
        """Yield new rows in batches until `stop` is set. Raises StoreUnavailable."""
        while not stop.is_set():
            if batch := self.read():
                yield batch
            self._store.database.wait_for_commit(IDLE, stop)

    def read(self, *, first: bool = False) -> list[Activity]:
        """Return the rows that were not read before, oldest first."""
        rows = [row for kind in ActivityKind for row in self._unseen(kind, first=first)]
        return sorted(rows, key=lambda row: row.at)

    def _unseen(self, kind: ActivityKind, *, first: bool) -> list[Activity]:
        """Return the rows of this kind that were not read before, oldest first."""
        seen, unseen = self._seen[kind], list[Activity]()
        page = latest = self._store.activity.newest(kind, limit=PAGE)
        while new := [row for row in page if row.key not in seen]:
            unseen += new
            if first or len(new) < PAGE:
                break
            page = self._store.activity.newest(kind, before=page[-1].key, limit=PAGE)
        self._seen[kind] = {row.key for row in latest}
        return unseen[::-1]


class _KindOption(click.Choice[str]):
    """A choice of the kinds by the words that are shown; it also accepts those of the JSON."""

    def __init__(self) -> None:
        super().__init__([tables.KIND_NAMES.get(kind, kind.value) for kind in ActivityKind])

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> ActivityKind:
        shown = super().convert(tables.KIND_NAMES.get(value, value), param, ctx)
        return next(kind for kind in ActivityKind if tables.KIND_NAMES.get(kind, kind) == shown)


@click.command()
@click.option(
    "--only",
    type=_KindOption(),
    multiple=True,
    help="Show only this kind of line; can be given several times.",
)
@task_option
@click.option("--hook", shell_complete=hook_names, help="Only attempts to deliver to this hook.")
@click.option("--provider", type=click.Choice(sorted(PROVIDERS)))
@click.option("--account", help="Only tasks of this account.")
@click.option("--reference", help="Only tasks with this reference.")
@click.option(
    "--lines",
    "-n",
    default=10,
    show_default=True,
    type=WholeNumber(0, 200),
    metavar="N",
    help="The number of earlier lines to begin with.",
)
@click.option(
    "--url", metavar="URL", help="Follow the status changes of the installation at this address."
)
@click.option(
    "--token-env",
    default=table.API_TOKEN.name,
    show_default=True,
    metavar="NAME",
    help="With --url: the environment variable that contains its API token.",
)
@as_json
@click.pass_context
def tail(
    ctx: click.Context,
    /,
    only: tuple[str, ...],
    lines: int,
    url: str | None,
    token_env: str,
    as_json: bool,
    **filters: str | None,
) -> None:
    """Follow callbacks, status changes and attempts as they happen, until Ctrl-C.

    With --json, each line is a JSON document. A byte-identical repeat of a callback is only
    counted, and is not shown. --url follows another receiver, whose API must be enabled: only new
    status changes are shown, and --task has to be a complete id.
    """
    if url is not None:
        _check_remote_options(ctx, only, filters)
        remote = _remote(url, token_env, filters)
        stop = stop_at(signal.SIGINT, signal.SIGTERM)
        if not as_json:
            tables.show_activity_header()
        for batch in remote.follow(stop):
            _show(batch, as_json=as_json)
        return
    chosen, record = settings_and_store()
    if filters["hook"] is not None:
        check_hook(record, names_in_hooks_file(chosen), filters["hook"])
    if filters["task_id"] is not None:
        filters["task_id"] = find_task(record, filters["task_id"]).id
    follower = ActivityFollower(record)
    stop = stop_at(signal.SIGINT, signal.SIGTERM)

    def selected(rows: Iterable[Activity]) -> list[Activity]:
        return [row for row in rows if _matches(row, only, filters)]

    if not as_json:
        tables.show_activity_header()
    _show(selected(follower.past)[-lines:] if lines else (), as_json=as_json)
    for batch in follower.follow(stop):
        _show(selected(batch), as_json=as_json)


def _show(rows: Iterable[Activity], *, as_json: bool) -> None:
    if as_json:
        output.as_json_lines(map(records.activity_json, rows))
    else:
        tables.show_activity(rows)


def _check_remote_options(
    ctx: click.Context, only: tuple[str, ...], filters: Mapping[str, str | None]
) -> None:
    """Raise UsageError for options about callbacks, attempts or earlier lines."""
    given = ctx.get_parameter_source("lines") is not ParameterSource.DEFAULT
    wrong = {
        "--hook": filters["hook"] is not None,
        "--lines": given,
        "--only": any(kind is not ActivityKind.MOVE for kind in only),
    }
    for option, is_given in wrong.items():
        if is_given:
            raise click.UsageError(
                f"{option} cannot be combined with --url, which shows only new status changes"
            )


def _remote(url: str, token_env: str, filters: Mapping[str, str | None]) -> RemoteEvents:
    """Return the events of a remote installation. Raises ClickException."""
    from receiver.cli.group import complain  # noqa: PLC0415
    from receiver.cli.remote_events import RemoteEvents  # noqa: PLC0415 - imports TLS

    try:
        readers.web_url(url)
    except ValueError as error:
        raise click.BadParameter(f"{redacted(url)} {error}", param_hint="--url") from None
    if token_env == table.API_TOKEN.name:
        token = Environment().value(table.API_TOKEN)
    else:
        token = os.environ.get(token_env, "").strip()
    if not token:
        raise click.ClickException(
            f"{token_env} is not set, or is not a token; set it to the API_TOKEN of "
            f"{redacted(url)}, or name another variable with --token-env"
        )
    names = {"task_id": "task"}
    query = {names.get(name, name): value for name, value in filters.items() if value is not None}
    return RemoteEvents(url, token, query, lambda text: complain([text]))


def _matches(row: Activity, only: tuple[str, ...], filters: dict[str, str | None]) -> bool:
    return (not only or row.kind in only) and all(
        value is None or getattr(row, name) == value for name, value in filters.items()
    )
