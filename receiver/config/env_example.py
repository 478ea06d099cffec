"""Writes `.env.example`, and the `.env` of `receiver init`, from the table of settings."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from receiver.config.table import all_settings
from receiver.environment import Setting

HEADER = """\
# The settings of all programs. `receiver` and `submitter` read them from the environment, and from
# the file .env in the working directory; a variable that is set in the environment takes
# precedence. An empty setting is unset. Instead of NAME=value, NAME_FILE=/run/secrets/name names a
# file with the value, and takes precedence; this does not apply to WEB_CONCURRENCY, PORT and
# GUNICORN_CMD_ARGS.
"""
WIDTH = 100  # characters
_ASSIGNMENT = re.compile(r"(?:# )?([A-Z][A-Z0-9_]*)=")


def text(values: Mapping[str, str] | None = None) -> str:
    """Return a file with every setting. Names in `values` are set, even if they are not declared.

    A setting with a default is set to it, and any other is a comment.
    """
    # The keys of the providers' accounts are settings of the submitter, which is not imported here.
    accounts = resources.files("receiver.config") / "accounts.env"
    example = "\n".join([HEADER, f"{paragraphs()}\n", accounts.read_text(encoding="utf-8")])
    unused = dict(values or {})
    lines = []
    for line in example.splitlines():
        assignment = _ASSIGNMENT.match(line)
        name = assignment[1] if assignment else ""
        lines.append(f"{name}={unused.pop(name)}" if name in unused else line)
    if unused:
        lines += ["", "# Used by hooks.toml.", *(f"{name}={unused[name]}" for name in unused)]
    return "\n".join([*lines, ""])


def paragraphs(settings: Iterable[Setting[Any]] | None = None) -> str:
    """Return the description and the assignment of each of the receiver's settings."""
    return "\n\n".join(_paragraph(one) for one in settings or all_settings())


def _paragraph(setting: Setting[Any]) -> str:
    comment = textwrap.fill(
        f"{setting.summary} {setting.details}",
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    value = setting.default_text
    assignment = f"{setting.name}={value}" if value else f"# {setting.name}={setting.example}"
    return f"{comment}\n{assignment}"
