"""A process configures its logs at its first line, even if a library writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
START = """
import logging, sys
from receiver.observability.logger import Logger, configure_at_first_line
def configure():
    from receiver.observability import logs
    logs.configure(lambda line: line.replace("secret", "…"), "json")
configure_at_first_line(configure)
assert "structlog" not in sys.modules
"""
OURS = 'Logger().warning("the secret")'
OF_A_LIBRARY = 'logging.getLogger("urllib3").warning("the %s", "secret")'
EXPLICIT = """
from receiver.observability import logs
logs.configure(lambda line: line.replace("secret", "hidden"), "json")
"""


def events(program: str) -> list[str]:
    """Return the events of the lines that the program logs."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == ""
    return [json.loads(line)["event"] for line in done.stderr.splitlines()]


@pytest.mark.parametrize("first", [OURS, OF_A_LIBRARY])
def test_the_first_line_is_formatted_and_hides_secrets(first: str) -> None:
    assert events(f"{START}\n{first}\n{OURS}\n{OF_A_LIBRARY}") == ["the …"] * 3


@pytest.mark.parametrize("first", [OURS, OF_A_LIBRARY])
def test_an_earlier_configuration_replaces_that_of_the_first_line(first: str) -> None:
    assert events(f"{START}{EXPLICIT}\n{first}\n{OURS}") == ["the hidden"] * 2
