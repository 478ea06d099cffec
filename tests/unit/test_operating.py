"""The quotations in docs/operating.md are texts of the programs, and the commands in it exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from receiver.cli import main as receiver
from submitter.cli import main as submitter

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "operating.md").read_text()
SOURCE = "\n".join(
    path.read_text()
    for package in ("receiver", "submitter")
    for path in sorted((ROOT / package).rglob("*.py"))
).replace("{age}", "old")
QUOTED = sorted(
    {
        quoted.rstrip("… ")
        for line in DOCS.splitlines()
        if line.startswith("|")
        for quoted in re.findall(r'"([^"]+)"', line)
    }
)
COMMANDS: dict[str, click.Group] = {"receiver": receiver, "submitter": submitter}
SCALING = (ROOT / "docs" / "scaling.md").read_text()
TOLD = sorted(set(re.findall(r"`(receiver|submitter) ([a-z]+)([^`]*)`", DOCS + SCALING)))


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quotation_is_a_text_of_the_programs(quoted: str) -> None:
    assert " ".join(quoted.split()[:4]) in SOURCE


@pytest.mark.parametrize(("program", "command", "rest"), TOLD)
def test_a_command_exists(program: str, command: str, rest: str) -> None:
    found = COMMANDS[program].commands[command]
    options = {option for param in found.params for option in param.opts}
    assert set(re.findall(r"--[a-z-]+", rest)) <= options


def test_the_checks_find_something() -> None:
    assert len(QUOTED) > 8
    assert len(TOLD) > 8
