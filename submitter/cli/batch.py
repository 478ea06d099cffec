"""The command `submitter batch`."""

from __future__ import annotations

from pathlib import Path

import click

from receiver.console.numbers import WholeNumber
from submitter.batch.rows import Defaults, read
from submitter.batch.run import SUCCESSES, line_of, run
from submitter.batch.spreadsheet import check_encoding
from submitter.cli.group import EXIT_FAILED, EXIT_INTERRUPTED, print_errors, print_json, print_lines
from submitter.cli.options import account, as_json, model, provider
from submitter.cli.progress import batch_progress
from submitter.session import open_session


def _encoding(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    try:
        return None if name is None else check_encoding(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("batch")
@click.argument("file", type=click.Path(path_type=Path))
@provider
@account
@model
@click.option(
    "--concurrency",
    type=WholeNumber(1, 64),
    default=5,
    show_default=True,
    metavar="N",
    help="The number of rows to submit concurrently for each account.",
)
@click.option(
    "--encoding",
    callback=_encoding,
    help="Encoding of FILE, such as cp1251.  [default: UTF-8, UTF-16 or UTF-32, else Windows-1252]",
)
@as_json
@click.pass_context
def batch_(
    ctx: click.Context,
    file: Path,
    provider: str,
    account: str,
    model: str | None,
    concurrency: int,
    encoding: str | None,
    as_json: bool,
) -> None:
    """Submit every row of FILE, CSV with a header or JSONL; safe to run again.

    Columns: reference, human, cloth; optional: cloth2, model, account, provider,
    metadata. One cell may also contain two garments, separated by a semicolon. Paths are relative
    to the file. A reference that was submitted before is skipped. Spreadsheet exports work without
    changes, with any common separator, encoding and line ending.
    """
    defaults = Defaults(provider, account, model)
    rows, bad_rows = read(file, defaults, encoding, lambda line: print_errors([line]))
    with (
        open_session(with_accounts=True) as session,
        batch_progress(len(rows) + len(bad_rows)) as show_line,
    ):
        batch_report = run(
            rows,
            bad_rows,
            session,
            file.parent,
            concurrency,
            # The report lists the rows that did not succeed.
            on_result=lambda result: show_line(
                line_of(result) if result.outcome in SUCCESSES else ""
            ),
            on_interrupt=_say_interrupted,
        )
    if as_json:
        print_json(batch_report.document())
    else:
        print_lines(batch_report.lines())
    if batch_report.was_interrupted:
        ctx.exit(EXIT_INTERRUPTED)
    ctx.exit(0 if batch_report.has_succeeded else EXIT_FAILED)


def _say_interrupted() -> None:
    click.echo("interrupted: waiting for the rows in progress; no more are submitted", err=True)
