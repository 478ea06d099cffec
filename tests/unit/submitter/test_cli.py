"""Every usage mistake has its own message and exit code 2."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from submitter.cli import main

PICTURES = ("--human", "https://x.example/a.jpg", "--cloth", "https://x.example/b.jpg")
KEYLESS = {"KLING_API_KEY": None, "KLING_ACCESS_KEY": None, "KLING_SECRET_KEY": None}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("submit",), "Missing option '--human'"),
        (("submit", *PICTURES[:2]), "Missing option '--cloth'"),
        (("submit", *PICTURES, "--provider", "piapi"), "'piapi' is not"),
        (("submit", *PICTURES, "--timeout", "soon"), "'soon' is not a valid number."),
        (("submit", *PICTURES, "--timeout", "0"), "--timeout"),
        (("submit", *PICTURES, "--account", "Shop 2"), "--account: 'Shop 2' cannot be used"),
        (("status",), "Missing argument 'TASK'"),
        (("list", "--page", "one"), "'one' is not a valid integer"),
        (("fly",), "No such command 'fly'"),
    ],
)
def test_a_usage_mistake_exits_with_2(words: tuple[str, ...], complaint: str) -> None:
    result = CliRunner().invoke(main, words, env=KEYLESS)
    assert result.exit_code == 2
    assert complaint in result.stderr


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "KLING_API_KEY: not set; set it, or KLING_ACCESS_KEY and KLING_SECRET_KEY"),
        ({"KLING_ACCESS_KEY": "a"}, "KLING_SECRET_KEY: not set, and KLING_ACCESS_KEY needs it"),
        ({"KLING_SECRET_KEY": "a"}, "KLING_ACCESS_KEY: not set, and KLING_SECRET_KEY needs it"),
    ],
)
def test_missing_keys_are_named(given: dict[str, str], named: str) -> None:
    result = CliRunner().invoke(main, ["list"], env={**KEYLESS, **given})
    assert (result.exit_code, result.stderr) == (2, f"submitter: {named}\n")


def test_the_error_for_missing_keys_of_an_account_contains_its_name() -> None:
    result = CliRunner().invoke(main, ["list", "--account", "shop2"], env=KEYLESS)
    assert "KLING_SHOP2_API_KEY: not set" in result.stderr


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5


def test_the_submitter_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "submitter", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "submit" in done.stdout
