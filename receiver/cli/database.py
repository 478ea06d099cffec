"""Opens the database for a command, and reads the hooks file that belongs to it."""

from __future__ import annotations

from collections.abc import Collection

import click

from receiver.cli.group import complain
from receiver.config import settings
from receiver.config.settings import Settings
from receiver.console import output
from receiver.errors import SettingsError
from receiver.processes.clock_watch import ClockWatch
from receiver.processes.current_hooks import entries_for, known_secrets
from receiver.stores import Store, check_schema_when_reachable, open_store
from receiver.text.display import hiding_values, plain


def settings_and_store() -> tuple[Settings, Store]:
    """Return the settings and the store, which is closed when the running command ends.

    Known secrets are hidden in the output from now on. Raises SettingsError, and StoreError, also
    if the schema of the database does not match this code.
    """
    chosen = settings.load(creates_secret=False)
    opened = _opened(chosen)
    output.hide_secrets(hiding_values(known_secrets(chosen)))
    click.get_current_context().call_on_close(lambda: output.hide_secrets(str))
    opened.check_schema()
    ClockWatch(opened).follow()
    return chosen, opened


def store() -> Store:
    """Return the store for a command that needs no settings; see `settings_and_store`."""
    return settings_and_store()[1]


def store_when_reachable(chosen: Settings) -> Store:
    """Return the store for a process; wait for a database server that is down."""
    opened = _opened(chosen)
    check_schema_when_reachable(opened)
    return opened


def _opened(chosen: Settings) -> Store:
    opened = open_store(chosen.database_url)
    click.get_current_context().call_on_close(opened.close)
    return opened


def names_in_hooks_file(chosen: Settings) -> list[str] | None:
    """Return the names of the hooks; None, after printing the problems, if the file is wrong."""
    try:
        return [entry.name for entry in entries_for(chosen)]
    except SettingsError as error:
        complain(error.problems)
        return None


def check_hook(record: Store, names: Collection[str] | None, hook: str | None) -> None:
    """Raise BadParameter if this hook is neither among `names` nor on record.

    `names` are the hooks in the hooks file; without them, and without a hook, nothing is checked.
    """
    if hook is None or names is None or hook in names:
        return
    on_record = {endpoint.hook for endpoint in record.endpoints.all()}
    on_record |= {count.hook for count in record.metrics.delivery_counts() if count.value}
    if hook not in on_record:
        known = ", ".join(plain(name) for name in sorted(on_record.union(names))) or "none"
        raise click.BadParameter(f"{hook!r} is not in the hooks file; known hooks are: {known}")


def print_missing_hooks(record: Store, names: Collection[str]) -> None:
    """Print on standard error which deliveries wait for a hook that is not in the hooks file."""
    from receiver.stores.sql.metrics import without_hook  # noqa: PLC0415 - few commands need it

    complain(
        f"deliveries that wait, because the hook {hook} is not in the hooks file: {number}; add it "
        f"and send SIGHUP, or drop them: receiver endpoints drop {hook}"
        for hook, number in without_hook(record.metrics.delivery_counts(), names).items()
    )
