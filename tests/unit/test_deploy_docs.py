"""Commands, settings and links in docs/deploy.md are valid."""

from __future__ import annotations

import io
import re
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import click
import pytest

from receiver.cli import main as receiver
from receiver.config import settings
from receiver.hooks.webhook import Webhook
from submitter.cli import main as submitter
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$", "", DOCS, flags=re.MULTILINE | re.DOTALL)
SPANS = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", PROSE)]
CODE = "\n".join([*BLOCKS, *SPANS]).replace("\\\n", " ")
PROGRAMS: dict[str, click.Group] = {"receiver": receiver, "submitter": submitter}
TOLD = sorted(
    set(
        re.findall(
            r"(?:^|python -m |&& )(receiver|submitter) ([a-z]+)([^&`\n\"]*)", CODE, re.MULTILINE
        )
    )
)
LINKS = sorted(set(re.findall(r"\]\(([a-z./]*)(?:#([a-z0-9-]+))?\)", DOCS)))
SETTINGS = sorted(
    set(re.findall(r"`([A-Z]+_[A-Z_]+)`", DOCS)) | set(re.findall(r"\b([A-Z]+_[A-Z_]+)=", CODE))
)


@pytest.mark.parametrize(("program", "word", "rest"), TOLD)
def test_a_command_exists(program: str, word: str, rest: str) -> None:
    found: click.Command = PROGRAMS[program].commands[word]
    arguments = rest.split()
    while isinstance(found, click.Group) and arguments and not arguments[0].startswith("-"):
        found = found.commands[arguments.pop(0)]
    options = {option for param in found.params for option in param.opts}
    assert set(re.findall(r"--[a-z-]+", rest)) <= options


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0][:40])
def test_a_code_block_is_valid_shell(block: str) -> None:
    done = subprocess.run(["/bin/sh", "-n"], input=block, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(("page", "section"), LINKS)
def test_a_link_has_a_target(page: str, section: str) -> None:
    text = (ROOT / "docs" / (page or "deploy.md")).read_text()
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    sections = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert not section or section in sections


def test_the_files_that_it_names_exist() -> None:
    named = set(re.findall(r"\bdeploy/[A-Za-z./-]*[a-z]", CODE))
    assert {
        str(path.relative_to(ROOT)) for path in (ROOT / "deploy").rglob("*.service")
    } - named == {
        "deploy/systemd/callback-receiver-worker.service",  # named by their extensions
        "deploy/systemd/callback-receiver-poller.service",
    }
    assert all((ROOT / name).exists() for name in named), named


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_exists(name: str) -> None:
    known = (ROOT / ".env.example").read_text() + (ROOT / "deploy/backup/backup.env").read_text()
    in_hooks = (ROOT / "docs" / "hooks.md").read_text() + (ROOT / "README.md").read_text()
    assert name in known or f"${{{name}}}" in in_hooks


# Those of secrets that a person sets; the password of PostgreSQL is written to a file.
RECIPE = r"python3 -c [\"'](import secrets; print\(secrets\.\w+\(\d+\)\))[\"']"
RECIPES = sorted(set(re.findall(RECIPE, DOCS)))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("_", range(10))
def test_a_secret_that_a_recipe_makes_is_accepted_everywhere(
    recipe: str, _: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.StringIO()
    with redirect_stdout(output):
        exec(recipe, {})  # noqa: S102 - our own page
    secret = output.getvalue().strip()
    options = {"url": "https://shop.example/events", "secrets": [secret]}
    Webhook("shop", options)
    names = ("CALLBACK_SECRETS", "KLING_WEBHOOK_SECRETS", "API_TOKEN", "SECRET_KEY")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOOKS_FILE", raising=False)
    for name in (*names, "DASHBOARD_PASSWORD"):
        monkeypatch.setenv(name, secret)
    assert secret in settings.load(creates_secret=False).secrets


def test_there_are_recipes_for_secrets() -> None:
    assert RECIPES == ["import secrets; print(secrets.token_hex(32))"]
    assert sum(DOCS.count(recipe) for recipe in RECIPES) == 2


def test_the_checks_find_something() -> None:
    assert len(TOLD) > 12
    assert len(BLOCKS) > 12
    assert len(LINKS) > 8
    assert len(SETTINGS) > 12
