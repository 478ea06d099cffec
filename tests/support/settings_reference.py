"""The documentation of the settings, written from their table.

`python -m tests.support.settings_reference` writes it into `.env.example` and docs/settings.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from receiver.config import env_example
from receiver.config.table import all_settings
from receiver.environment import Setting

ROOT = Path(__file__).parents[2]
EXAMPLE, PAGE = ROOT / ".env.example", ROOT / "docs" / "settings.md"
SETTINGS = all_settings()


def rows(settings: Iterable[Setting[Any]] = SETTINGS) -> str:
    """Return the rows of the table in docs/settings.md."""
    return "\n".join(_row(setting) for setting in settings)


def _row(setting: Setting[Any]) -> str:
    default = f"`{setting.default_text}`" if setting.default_text else setting.unset
    summary = setting.summary[:1].lower() + setting.summary[1:].rstrip(".")
    return f"| `{setting.name}` | {default} | {summary} |"


def written(path: Path, text: str, settings: Iterable[Setting[Any]] = SETTINGS) -> str:
    """Return the text of this file with the current documentation of the settings."""
    names = [setting.name for setting in settings]
    first, last = names[0], names[-1]
    if path == PAGE:
        pattern, new = rf"\| `{first}` \|.*?\n\| `{last}` \|[^\n]*", rows(settings)
    else:
        pattern = rf"(?:#[^\n]*\n)+(?:# )?{first}=.*?\n(?:# )?{last}=[^\n]*"
        new = env_example.paragraphs(settings)
    found = re.search(pattern, text, re.DOTALL)
    assert found, f"{path.name} has no documentation from {first} to {last}"
    return text[: found.start()] + new + text[found.end() :]


if __name__ == "__main__":
    EXAMPLE.write_text(env_example.text())
    PAGE.write_text(written(PAGE, PAGE.read_text()))
