"""The documentation of the settings, written from their table.

`python -m tests.support.settings_reference` writes it into `.env.example` and docs/settings.md.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from receiver.config.table import all_settings
from receiver.environment import Setting

ROOT = Path(__file__).parents[2]
EXAMPLE, PAGE = ROOT / ".env.example", ROOT / "docs" / "settings.md"
WIDTH = 100
SETTINGS = all_settings()


def example(settings: Iterable[Setting[Any]] = SETTINGS) -> str:
    """Return the paragraphs of `.env.example`: a setting with a default is active."""
    return "\n\n".join(_paragraph(setting) for setting in settings)


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


def rows(settings: Iterable[Setting[Any]] = SETTINGS) -> str:
    """Return the rows of the table in docs/settings.md."""
    return "\n".join(_row(setting) for setting in settings)


def _row(setting: Setting[Any]) -> str:
    default = f"`{setting.default_text}`" if setting.default_text else setting.unset
    summary = setting.summary[:1].lower() + setting.summary[1:].rstrip(".")
    return f"| `{setting.name}` | {default} | {summary} |"


def written(path: Path, text: str, settings: Iterable[Setting[Any]] = SETTINGS) -> str:
    """Return the text of this file with the present documentation of the settings."""
    names = [setting.name for setting in settings]
    first, last = names[0], names[-1]
    if path == PAGE:
        pattern, new = rf"\| `{first}` \|.*?\n\| `{last}` \|[^\n]*", rows(settings)
    else:
        pattern = rf"(?:#[^\n]*\n)+(?:# )?{first}=.*?\n(?:# )?{last}=[^\n]*"
        new = example(settings)
    found = re.search(pattern, text, re.DOTALL)
    assert found, f"{path.name} has no documentation from {first} to {last}"
    return text[: found.start()] + new + text[found.end() :]


if __name__ == "__main__":
    for path in (EXAMPLE, PAGE):
        path.write_text(written(path, path.read_text()))
