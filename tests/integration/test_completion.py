"""Shell completion: with bash itself, and the requests of other shells."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import receiver.cli
import submitter.cli
from receiver.console.completion import INSTRUCTIONS
from tests.support.patience import PATIENCE

HOOKS = """
[[hook]]
name = "mail"
type = "email"
host = "127.0.0.1"
from = "a@shop.example"
to = "b@shop.example"
"""
PROGRAM = (
    '#!/bin/sh\nexec {python} -c \'from {name}.cli import main; main(prog_name="{name}")\' "$@"\n'
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of an installation: both programs are on the PATH."""
    for name in ("receiver", "submitter"):
        program = tmp_path / name
        program.write_text(PROGRAM.format(python=sys.executable, name=name))
        program.chmod(0o755)
    (tmp_path / "hooks.toml").write_text(HOOKS)
    return {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOOKS_FILE": str(tmp_path / "hooks.toml"),
        "DATABASE_URL": f"sqlite:///{tmp_path}/none/receiver.db",
    }


def run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


MAIN = {"receiver": receiver.cli.main, "submitter": submitter.cli.main}


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (["receiver", "doctor", "--s"], ["--send"]),
        (["receiver", "tasks", "--status", "f"], ["failed"]),
        (["receiver", "hooks", "test", "m"], ["mail"]),
        (["receiver", "endpoints", "pause", ""], ["mail"]),
        (["receiver", "deliveries", "--hook", "x"], []),
    ],
)
def test_completions_for_bash(
    environment: dict[str, str], tmp_path: Path, words: list[str], completions: list[str]
) -> None:
    program = words[0]
    asked = {
        **environment,
        f"_{program.upper()}_COMPLETE": "bash_complete",
        "COMP_WORDS": shlex.join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = CliRunner().invoke(MAIN[program], env=asked, prog_name=program)
    assert done.stdout.split() == [f"plain,{word}" for word in completions]
    assert not (tmp_path / "none").exists()  # completion creates no database


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (["receiver", "ta"], ["tail", "tasks"]),
        (["submitter", "costs", "--by", "a"], ["account"]),
    ],
)
def test_bash_completes(
    environment: dict[str, str], tmp_path: Path, words: list[str], completions: list[str]
) -> None:
    program, last = words[0], len(words) - 1
    quoted = " ".join(f"'{word}'" for word in words)
    script = (
        f'eval "$({program} completion bash)"; COMP_WORDS=({quoted}); COMP_CWORD={last}; '
        f'_{program}_completion {program}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    found = run(environment, "bash", "-c", script).split()
    assert found == completions
    assert not (tmp_path / "none").exists()  # completion creates no database


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completions_for_other_shells(environment: dict[str, str], shell: str) -> None:
    script = run(environment, "receiver", "completion", shell)
    assert f"_RECEIVER_COMPLETE={shell}_complete" in script
    asked = {
        **environment,
        "_RECEIVER_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "receiver ta",
        "COMP_CWORD": "ta" if shell == "fish" else "1",
    }
    answer = run(asked, "receiver")
    assert "tasks" in answer
    assert "doctor" not in answer


def test_help_says_where_to_put_the_completion() -> None:
    done = CliRunner().invoke(submitter.cli.main, ["completion", "--help"], prog_name="submitter")
    for line in INSTRUCTIONS.values():
        assert line.format(program="submitter") in done.stdout


def test_an_unknown_shell_is_a_usage_error() -> None:
    done = CliRunner().invoke(receiver.cli.main, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert "'tcsh' is not one of" in done.stderr
