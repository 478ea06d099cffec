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

# Permitted differences: omissions, ids, numbers and spaces. Each key is a pattern for a part of the
# page's line, and each value one for the printed line.
VARIES = {
    r"[0-9a-f]*\d[0-9a-f]{7,}…?": r"[0-9a-f]+",
    r"…": r".*",
    r"\d[\d.,:]*": r"[\d.,:]+",
    r"\s+": r"\s+",
}


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


def looks_like(shown: str, printed: str) -> bool:
    """Return whether the output contains this line of the page, with permitted differences."""
    pattern = ""
    for part in re.split(f"({'|'.join(VARIES)})", shown.strip()):
        stands_for = (
            like for pattern_of_page, like in VARIES.items() if re.fullmatch(pattern_of_page, part)
        )
        pattern += next(stands_for, re.escape(part))
    return re.search(pattern, printed) is not None


def missing(shown: list[str], printed: str) -> list[str]:
    return [line for line in shown if not looks_like(line, printed)]
