"""`receiver init`: the files that it writes can be used, and nothing that exists is changed."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from receiver.cli import main
from receiver.config import env_example, env_file, settings
from receiver.hooks.command import INHERITED
from receiver.signing import standard_webhooks
from tests.support import processes
from tests.support.installation import ROOT

SECRETS = ("CALLBACK_SECRETS", "API_TOKEN", "DASHBOARD_PASSWORD", "SECRET_KEY", "WEBHOOK_SECRET")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings, and an empty working directory."""
    names = {*INHERITED, processes.SERVER} - {"LANG", "LC_ALL", "LC_CTYPE"}  # they prevent a fork
    kept = {name: os.environ[name] for name in names if name in os.environ}
    monkeypatch.setattr(os, "environ", kept)
    monkeypatch.setattr("receiver.cli.init.subprocess", SimpleNamespace(run=run_in_fork))
    monkeypatch.chdir(tmp_path)


def run_in_fork(
    command: list[str], *, timeout: float, **_: object
) -> subprocess.CompletedProcess[str]:
    """Run `python -m …` in a fork. The README's example in test_docs_examples.py executes it."""
    assert command[0] == sys.executable
    return processes.run(command[command.index("-m") + 1 :], os.environ, timeout=timeout)


def run(*arguments: str) -> Result:
    os.environ.pop(env_file.VARIABLE, None)  # each command is a new process
    return CliRunner().invoke(main, arguments)


def values() -> dict[str, str]:
    found = re.findall(r"^([A-Z][A-Z_]+)=(.*)$", Path(".env").read_text(), re.MULTILINE)
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize("options", [(), ("--sandbox",)])
def test_the_files_can_be_used_as_they_are(options: tuple[str, ...]) -> None:
    done = run("init", *options)
    assert done.exit_code == 0, done.output
    assert "wrote .env" in done.output
    assert "wrote hooks.toml" in done.output
    assert max(map(len, done.output.splitlines())) <= 80
    assert stat.S_IMODE(Path(".env").stat().st_mode) == 0o600
    assert sorted(path.name for path in Path().iterdir()) == [".env", "hooks.toml"]
    for name in SECRETS:
        assert values()[name] not in done.output
    assert standard_webhooks.key_of(values()["WEBHOOK_SECRET"])
    assert run("migrate").exit_code == 0
    assert not Path("data/callback-secret").exists()  # the one in .env is used
    chosen = settings.load()
    assert chosen.callback_secrets == (values()["CALLBACK_SECRETS"],)
    assert (chosen.api_token, chosen.secret_key) == (values()["API_TOKEN"], values()["SECRET_KEY"])
    assert run("hooks", "list").exit_code == 0


def test_secrets_differ_from_one_another_and_between_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init")
    first = values()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    run("init")
    assert len({*(first[name] for name in SECRETS), *(values()[name] for name in SECRETS)}) == 10


def test_running_it_again_changes_nothing() -> None:
    run("init", "--sandbox")
    before = {path: (path.read_bytes(), path.stat()) for path in Path().iterdir()}
    done = run("init", "--sandbox")
    assert done.exit_code == 0
    assert "\n.env exists and was not changed" in f"\n{done.output}"
    assert "Next steps" in done.output
    assert {path: (path.read_bytes(), path.stat()) for path in Path().iterdir()} == before


def test_an_existing_file_is_never_overwritten_and_a_missing_one_is_added() -> None:
    Path("hooks.toml").write_text("# mine\n")
    assert run("init").exit_code == 0
    assert Path("hooks.toml").read_text() == "# mine\n"
    assert values()["API_TOKEN"]
    Path(".env").unlink()
    Path(".env").symlink_to("nowhere")  # nor does it write through a link
    os.environ[env_file.VARIABLE] = os.devnull
    assert CliRunner().invoke(main, ["init"]).exit_code == 0
    assert not Path("nowhere").exists()


def test_a_directory_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    done = run("init")
    assert done.exit_code == 1
    assert done.stderr == "receiver: .env cannot be written: Permission denied\n"


def test_a_secret_of_an_earlier_migrate_stays_in_use() -> None:
    run("migrate")
    secret = Path("data/callback-secret").read_text()
    run("init")
    assert "CALLBACK_SECRETS" not in values()
    os.environ.pop(env_file.VARIABLE, None)
    env_file.load()
    assert settings.load().callback_secrets == (secret,)


def test_with_sandbox_both_files_point_at_the_sandbox() -> None:
    assert "sandbox serve" in run("init", "--sandbox").output
    assert values()["PUBLIC_URL"] == "http://127.0.0.1:8000"
    assert {url for name, url in values().items() if name.endswith("_BASE_URL")} == {
        "http://127.0.0.1:8900"
    }
    assert "${SANDBOX_SLACK_URL}" in Path("hooks.toml").read_text()


def test_with_sandbox_a_file_for_real_accounts_is_not_mistaken_for_one_of_the_sandbox() -> None:
    run("init")
    Path("hooks.toml").unlink()
    done = run("init", "--sandbox")
    assert done.exit_code == 1
    assert ".env is not for the sandbox" in done.stderr
    assert "Next steps" not in done.output
    assert not Path("hooks.toml").exists()


@pytest.mark.parametrize("options", [(), ("--sandbox",)])
def test_the_hooks_in_comments_can_be_used(options: tuple[str, ...]) -> None:
    run("init", *options)
    text = Path("hooks.toml").read_text()
    hooks = text[text.index("[[hook]]") :]
    enabled = re.sub(r"^# (?=\[|\w+ = )", "", hooks, flags=re.MULTILINE)
    Path("hooks.toml").write_text(enabled)
    os.environ |= {"SMTP_PASSWORD": "secret", "SLACK_WEBHOOK_URL": "https://hooks.slack.com/x"}
    done = run("hooks", "list")
    assert done.exit_code == 0, done.output
    assert [line.split("\t")[0] for line in done.stdout.splitlines()[1:]] == [
        *(["pictures", "mail", "chat", "shop"] if options else ["pictures", "shop", "mail", "chat"])
    ]


def test_in_a_clone_the_next_steps_are_those_of_the_readme() -> None:
    assert "receiver migrate && receiver serve" in run("init", "--sandbox").output
    Path("sandbox").symlink_to(ROOT / "sandbox")
    steps = " ".join(run("init", "--sandbox").output.replace("\\\n", "").split())
    readme = (ROOT / "README.md").read_text()
    (create,) = re.findall(r"^ *\$ (submitter submit .* ORDER-1 --wait)$", readme, re.MULTILINE)
    for command in (create, "sandbox serve", "make run", "receiver tasks show ORDER-1"):
        assert command in readme
        assert command in steps
    assert "receiver migrate" not in steps


def test_the_hook_the_readme_and_the_examples_use_one_secret_port_and_path() -> None:
    run("init", "--sandbox")
    readme, page = (ROOT / "README.md").read_text(), (ROOT / "docs/hooks.md").read_text()
    assert "WEBHOOK_SECRET" in values()
    assert 'url = "http://127.0.0.1:5001/events"' in Path("hooks.toml").read_text()
    for text in (readme, page):
        assert "flask --app shop_events run --port 5001" in text
        assert 'export "$(grep ^WEBHOOK_SECRET= .env)"' in text
    assert len(re.findall(r"127\.0\.0\.1:5001|5001, \"127\.0\.0\.1\"", page)) >= 3
    assert len(re.findall(r"(?:environ\[\"|process\.env\.|getenv\(')WEBHOOK_SECRET", page)) == 3
    assert set(re.findall(r"\w*WEBHOOK_SECRET\b", readme + page)) == {"WEBHOOK_SECRET"}


def test_the_example_in_the_checkout_is_that_of_the_package() -> None:
    """`python -m tests.support.settings_reference` writes the example."""
    assert (ROOT / ".env.example").read_text() == env_example.text()
