"""The options that several commands have."""

from __future__ import annotations

from typing import Any

import click

from submitter import metadata as own_data
from submitter.errors import InputError
from submitter.providers import DEFAULT_PROVIDER, PROVIDERS
from submitter.settings import DEFAULT_ACCOUNT

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
provider = click.option(
    "--provider", type=click.Choice(list(PROVIDERS)), default=DEFAULT_PROVIDER, show_default=True
)
account = click.option(
    "--account",
    default=DEFAULT_ACCOUNT,
    metavar="NAME",
    help="The account whose keys are used: `shop2` reads KLING_SHOP2_API_KEY and so on.",
)
model = click.option("--model", help="The provider's model.  [default: the provider's first]")


def _read_metadata(_: click.Context, __: click.Parameter, text: str | None) -> dict[str, Any]:
    try:
        return {} if text is None else own_data.parse(text)
    except InputError as error:
        raise click.BadParameter(error.message) from None


metadata = click.option(
    "--metadata",
    callback=_read_metadata,
    metavar="JSON",
    help="Your own data about the task, an object of up to 4 kB; hooks receive it.",
)
