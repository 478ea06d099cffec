"""Reads the code blocks of the documentation."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One code block; `page` is the path of its page below the root."""

    page: str
    language: str
    text: str

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Return the commands of a console block, each with the output shown below it."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, shown = re.sub(r"\\\n\s*", "", part).partition("\n")
            yield command, shown.splitlines()


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, in order."""
    name = page.relative_to(ROOT).as_posix()
    found = FENCED.findall(page.read_text(encoding="utf-8"))
    return [Block(name, language, textwrap.dedent(text)) for _, language, text in found]
