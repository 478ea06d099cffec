"""Every link in the documentation has a target, and README links to every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.docs_pages import PAGES, ROOT

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
LONGEST_README = 180  # lines
NAMED = re.compile(r"`((?:docs|tests|receiver|submitter|sandbox)/[\w./-]+)`")


def prose(page: Path) -> str:
    return CODE.sub("", COMMENT.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub creates for the headings."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_has_a_target(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_in_the_text_exists(page: Path) -> None:
    examples = ("tailor.py", "ntfy.py", "NAME.py", "NAME/")
    for name in NAMED.findall(prose(page)):
        if not name.endswith(examples):
            assert (ROOT / name).exists(), name


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_README


def test_readme_links_to_every_page() -> None:
    links = set(LINK.findall(prose(ROOT / "README.md")))
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}
    assert pages - links == set()
