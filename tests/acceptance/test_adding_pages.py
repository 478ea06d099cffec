"""The pages about adding a provider and a hook are complete: following their steps works."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.docs_pages import ROOT, Block, blocks
from tests.support.patience import PATIENCE

OF_THE_PROJECT = ("receiver", "submitter", "sandbox", "tests", "docs")
OF_MANY_TESTS = 3 * PATIENCE  # seconds
FILES = ("pyproject.toml", "README.md", ".env.example", "wsgi.py")
NEEDED = {  # the minimum number of tests of the additions
    "adding-a-provider.md": 90,
    "adding-a-hook.md": 26,
}
SOURCES = 5  # the minimum number of Python files that a page creates or changes
HERE = re.compile(r"^# (\S+/\S+\.py)$")  # the first line of a new file states its path


def copy_of_the_project(folder: Path) -> Path:
    for name in OF_THE_PROJECT:
        shutil.copytree(ROOT / name, folder / name)  # with the compiled modules, which stay valid
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


def follow(block: Block, tree: Path) -> list[Path]:
    """Do what a block of the page describes: create a file, or change one. Return the file."""
    place = HERE.match(block.first_line)
    if block.language == "python":
        assert place, f"does not state its file: {block.first_line}"
        path = tree / place[1]
        assert not path.exists()
        path.write_text(block.text.partition("\n")[2])
    elif block.language == "diff":
        path = tree / block.first_line.removeprefix("--- ")
        change(path, block.text.partition("\n")[2])
    else:
        return []
    return [path]


def change(path: Path, diff: str) -> None:
    """Apply a diff without line numbers, whose old lines must occur exactly once."""
    text = path.read_text()
    for part in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = part.splitlines(keepends=True)
        assert all(line[0] in " +-\n" for line in lines), part
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        if not old.strip():
            raise AssertionError(f"does not state its place:\n{part}")
        begins_a_line = re.compile("^" + re.escape(old.rstrip("\n")), re.MULTILINE)
        found = begins_a_line.findall(text) or re.findall(re.escape(old.rstrip("\n")), text)
        assert len(found) == 1, f"{path.name}: occurs {len(found)} times:\n{old}"
        text = text.replace(old.rstrip("\n"), new.rstrip("\n"), 1)
    path.write_text(text)


def run(tree: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=OF_MANY_TESTS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", NEEDED)
def test_the_steps_of_the_page_are_complete(page: str, tmp_path: Path) -> None:
    tree = copy_of_the_project(tmp_path)
    found = blocks(ROOT / "docs" / page)
    touched = [path for block in found for path in follow(block, tree)]
    (console,) = [block for block in found if block.language == "console"]
    ((command, _),) = console.commands()
    python, *words = shlex.split(command)
    assert (python, words[:2]) == (".venv/bin/python", ["-m", "pytest"])
    # The steps are the same for both databases, and a server would take a third of the time.
    output = run(tree, *words[1:], "-q", "-p", "no:cacheprovider", "--without-postgres")
    passed = re.search(r"(\d+) passed", output)
    assert passed, output
    assert int(passed[1]) >= NEEDED[page], output
    sources = sorted({str(path) for path in touched if path.suffix == ".py"})
    assert len(sources) >= SOURCES, sources
    run(tree, "ruff", "check", *sources)
    run(tree, "ruff", "format", "--check", *sources)
