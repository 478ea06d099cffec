"""The `submitter batch` command: every row of a file."""

from __future__ import annotations

from pathlib import Path

import click

from submitter.batch.rows import Defaults, read
from submitter.batch.run import line_of, run
from submitter.batch.spreadsheet import check_encoding
from submitter.cli.group import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    account,
    as_json,
    model,
    print_errors,
    print_json,
    print_lines,
    provider,
)
from submitter.cli.progress import batch_progress
from submitter.session import open_session


@click.command("batch")
@click.argument("file", type=click.Path(path_type=Path))
@provider
@account
@model
@click.option(
    "--concurrency",
    type=click.IntRange(1, 64),
    default=5,
    show_default=True,
    metavar="N",
    help="How many to submit at once for each account.",
)
@click.option(
    "--encoding",
    callback=lambda _, __, name: _encoding(name),
    help="Encoding of FILE, such as cp1251.  [default: UTF-8, UTF-16 or UTF-32, else Windows-1252]",
)
@as_json
@click.pass_context
def batch(
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

    Columns: reference, human, cloth; optional: cloth2, model, account, provider. One cell may also
    contain two garments, separated by a semicolon. Paths are relative to the file. A reference that
    was submitted before is skipped. Spreadsheet exports work without changes, with any common
    separator, encoding and line ending.
    """
    rows, bad = read(
        file,
        Defaults(provider, account, model),
        encoding,
        lambda line: print_errors([line]),
    )
    with open_session() as record, batch_progress(len(rows) + len(bad)) as told:
        outcome = run(
            rows, bad, record, file.parent, concurrency, lambda row: told(line_of(row)), _stopping
        )
    if as_json:
        print_json(outcome.document())
    else:
        print_lines(outcome.lines())
    ctx.exit(EXIT_INTERRUPTED if outcome.interrupted else 0 if outcome.is_fine else EXIT_FAILED)


def _encoding(name: str | None) -> str | None:
    try:
        return None if name is None else check_encoding(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _stopping() -> None:
    click.echo("interrupted: no more rows are sent; those that were sent are waited for", err=True)
