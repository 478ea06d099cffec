"""The commands in README and docs are run here, with a sandbox and real processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from sandbox.server import Sandbox
from tests.support import processes
from tests.support.docs_pages import PAGES, ROOT, Block, blocks, missing
from tests.support.installation import Installation
from tests.support.patience import PATIENCE, wait_until

EVERY_BLOCK = [block for page in PAGES for block in blocks(page)]
TO_BE_RUN = ("console", "sh", "toml", "python")
BLOCKS = [block for block in EVERY_BLOCK if block.language in TO_BE_RUN]
# Commands that are not run here, with reasons. An entry that is no longer on any page fails.
NOT_RUN = {
    "make demo": "test_demo.py compares its output",
    "make test": "it would run this test",
    "make install": "the environment is there",
    'eval "$(receiver completion zsh)"      # in ~/.zshrc, after compinit': "needs zsh",
    'export "$(grep ^WEBHOOK_SECRET= .env)"': "test_webhook_receivers.py runs it",
    "flask --app shop_events run --port 5001": "test_webhook_receivers.py runs it",
    "receiver hooks test shop": "test_webhook_receivers.py runs it",
    "receiver hooks explain ORDER-7": "tests/integration/test_hooks_explain.py runs it",
    "receiver completion fish | source      # in ~/.config/fish/config.fish": "needs fish",
    "receiver copy --from sqlite:///data/receiver.db --to postgresql://…": "needs a server; "
    "tests/integration/test_copy.py has one",
}
# Pages whose blocks belong together, and the test that runs them together. The pages about
# deployment need their own server with systemd and a host name; their commands and files are
# checked one by one.
TOGETHER = {
    "docs/deploy.md": "../unit/test_deploy_docs.py",
    "docs/adding-a-provider.md": "test_adding_pages.py",
    "docs/adding-a-hook.md": "test_adding_pages.py",
    "docs/queues.md": "test_queue_docs.py",
}
# Replacements for parts of the commands, and why.
INSTEAD = {
    "http://127.0.0.1:8000": "{url}",  # ports that are free
    "https://shop.example/p.jpg": "{sandbox}/_sandbox/images/person.jpg",
    "https://shop.example/g.png": "{sandbox}/_sandbox/images/garment.png",
    # More lines than the page shows, so that each kind is included.
    "receiver tail --lines 3": "receiver tail --lines 30",
    # Other examples also write hooks.toml.
    "receiver init --sandbox": 'cd "$(mktemp -d)" && receiver init --sandbox',
}
# It ends only with Ctrl-C, which is sent when every line of the page was printed.
ENDLESS = "receiver tail --lines 3"
# The checks after blocks that print nothing.
THEN = {
    "make install": "type receiver submitter sandbox",
    'eval "$(receiver completion bash)"     # in ~/.bashrc; submitter as well': (
        "complete -p receiver | grep -q receiver"
    ),
}
# The findings differ here, so only the names of the checks are compared.
FINDINGS = "receiver doctor"
# A command of one of our programs whose words mean the same without a shell.
NEEDS_NO_SHELL = re.compile(r"(receiver|submitter|sandbox)( [\w./-]+)*")
ORDER = "--human person.jpg --cloth garment.png --reference ORDER-7"
SECRETS = {
    "SMTP_PASSWORD": "secret",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/x",
    "WEBHOOK_SECRET": "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=",
    "RABBITMQ_URL": "amqps://user:password@rabbitmq.example.com/vhost",
    "REDIS_URL": "rediss://user:password@redis.example.com/0",
    "PHONES_URL": "json://example.com/",
    "ERP_TOKEN": "a-token-of-the-erp",
    "API_TOKEN": "a-token-for-the-tests-only",
}


@dataclass
class Workspace:
    """A folder like a clone, in which commands are run, next to a running installation."""

    folder: Path
    installation: Installation

    def run(self, command: str, **more: str) -> str:
        """Return the output of the command, which must exit with status 0."""
        done = subprocess.run(
            ["bash", "-ec", command],  # noqa: S607 - bash from the PATH
            cwd=self.folder,
            env={**self.installation.environment, **more},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run_as_typed(self, command: str) -> str:
        """Return the output of a command of a page; only one that needs a shell is given to one."""
        if NEEDS_NO_SHELL.fullmatch(command):
            return self.run_in_fork(*command.split())
        return self.run(command)

    def run_in_fork(self, *command: str, cwd: Path | None = None, **more: str) -> str:
        """Return the output of `python -m …`, which does not need an interpreter of its own."""
        environment = {**self.installation.environment, **more}
        if processes.SERVER in os.environ:
            del environment["PYTHONPATH"]  # it would prevent a fork
        done = processes.run(command, environment, cwd=cwd or self.folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run_and_interrupt(self, command: str, is_enough: Callable[[str], bool]) -> str:
        """Interrupt the command once the output is enough; return the output, expect status 0."""
        output = self.folder / "followed.txt"
        with output.open("w") as file:
            running = subprocess.Popen(
                ["bash", "-ec", f"exec {command}"],  # noqa: S607 - bash from the PATH
                cwd=self.folder,
                env=self.installation.environment,
                stdout=file,
                stderr=file,
            )
        try:
            wait_until(lambda: is_enough(output.read_text()), output.read_text)
        finally:
            running.send_signal(signal.SIGINT)
            status = running.wait(PATIENCE)
        assert status == 0, output.read_text()
        return output.read_text()

    def with_replacements(self, text: str) -> str:
        urls = {"url": self.installation.url, "sandbox": self.installation.sandbox.url}
        for shown, typed in INSTEAD.items():
            text = text.replace(shown, typed.format(**urls))
        return text


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("clone")
    (folder / "sandbox").symlink_to(ROOT / "sandbox")
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("person.jpg", "garment.png"):
        shutil.copy(ROOT / "sandbox" / "images" / name, folder)
    with Sandbox(pace=0.2) as sandbox:
        installation = Installation(tmp_path_factory.mktemp("installation"), sandbox)
        installation.environment |= {
            **SECRETS,
            "HOME": str(folder),
            "PATH": f"{folder / '.venv/bin'}:{os.environ['PATH']}",
            "TMPDIR": str(folder),
        }
        installation.migrate()
        installation.start("serve", "receiver", "serve", "--bind", f"127.0.0.1:{installation.port}")
        try:
            installation.environment["PYTHONPATH"] = str(ROOT)  # for commands in other folders
            installation.wait_until_ready()
            workspace = Workspace(folder, installation)
            workspace.run_in_fork("submitter", "submit", *ORDER.split(), "--wait")
            (task,) = installation.store.lists.tasks()
            installation.settled(task.id)
            yield workspace
        finally:
            installation.close()


def shows_all(shown: list[str], printed: str) -> bool:
    return not missing(shown, printed)


def compare(command: str, shown: list[str], printed: str) -> None:
    if command == FINDINGS:
        shown = [re.split(r"  +", line)[1] for line in shown]
        shown = [name for name in shown if not name.startswith("hook ")]
    assert not missing(shown, printed), f"$ {command}\nprinted\n{printed}"


def run_console(workspace: Workspace, block: Block) -> None:
    for command, shown in block.commands():
        if command == ENDLESS:
            typed = workspace.with_replacements(command)
            is_enough = partial(shows_all, shown)
            workspace.run_and_interrupt(typed, is_enough)
        elif command not in NOT_RUN:
            typed = workspace.with_replacements(command)
            compare(command, shown, workspace.run_as_typed(typed))


def run_sh(workspace: Workspace, block: Block) -> None:
    lines = [line for line in block.text.splitlines() if line not in NOT_RUN]
    lines += [THEN[block.first_line]] if block.first_line in THEN else []
    workspace.run_as_typed(workspace.with_replacements("\n".join(lines)))


def run_toml(workspace: Workspace, block: Block) -> None:
    path = workspace.folder / "hooks.toml"
    path.write_text(block.text)
    for function in BLOCKS:  # the functions of the page that its hooks name
        if function.language == "python" and function.page == block.page:
            written(workspace, function)
    if 'type = "python"' in block.text:  # the installed program has to find the function
        printed = workspace.run("receiver hooks list", HOOKS_FILE=str(path))
    else:
        printed = workspace.run_in_fork("receiver", "hooks", "list", HOOKS_FILE=str(path))
    for name in re.findall(r'^name = "(.+)"', block.text, re.MULTILINE):
        assert name in printed


def run_python(workspace: Workspace, block: Block) -> None:
    workspace.run(f"python {written(workspace, block).name}")


def written(workspace: Workspace, block: Block) -> Path:
    """Write the block to the file that it names, and return the path."""
    place = re.match(r"# (\w+\.py)", block.text)
    path = workspace.folder / (place[1] if place else "example.py")
    path.write_text(workspace.with_replacements(block.text))
    return path


WAYS = {"console": run_console, "sh": run_sh, "toml": run_toml, "python": run_python}


# The functions come first, because hooks.toml names them.
FUNCTIONS_FIRST = sorted(BLOCKS, key=lambda block: block.language != "python")


@pytest.mark.parametrize(
    "block",
    FUNCTIONS_FIRST,
    ids=lambda block: f"{block.page}: {block.first_line[:40]}",
)
def test_an_example_works(block: Block, request: pytest.FixtureRequest) -> None:
    if block.page in TOGETHER:
        assert (
            Path(block.page).name in (ROOT / "tests/acceptance" / TOGETHER[block.page]).read_text()
        )
        return
    if "curl" in block.text and not shutil.which("curl"):
        pytest.skip("curl is not installed here")
    workspace: Workspace = request.getfixturevalue("workspace")
    WAYS[block.language](workspace, block)


def test_the_hooks_for_the_sandbox_deliver(workspace: Workspace, tmp_path: Path) -> None:
    workspace.run_in_fork("receiver", "init", "--sandbox", cwd=tmp_path)
    for name in ("pictures", "mail", "chat"):  # with the addresses of the sandbox of this test
        workspace.run_in_fork("receiver", "hooks", "test", name, cwd=tmp_path, HOOKS_FILE="")


def test_blocks_that_are_not_run_contain_no_command() -> None:
    found = {(block.language, block.page) for block in EVERY_BLOCK}
    assert {(language, page) for language, page in found if language not in TO_BE_RUN} == {
        ("", "README.md"),  # the flow as a picture
        ("", "docs/architecture.md"),  # tests/unit/test_architecture.py checks it
        ("text", "docs/chains.md"),  # tests/unit/hooks/test_chains_page.py compares it
        ("json", "docs/hooks.md"),  # tests/unit/hooks/test_docs.py checks it
        ("text", "docs/hooks.md"),  # tests/unit/hooks/test_docs.py compares these two
        ("http", "docs/hooks.md"),
        ("js", "docs/hooks.md"),  # tests/acceptance/test_webhook_receivers.py runs it
        ("php", "docs/hooks.md"),
        ("js", "docs/queues.md"),  # tests/acceptance/test_queue_docs.py runs it
        ("js", "docs/live-events.md"),  # tests/browser/test_live_events.py runs it
        ("json", "docs/adding-a-provider.md"),
        ("json", "docs/creating-tasks.md"),  # tests/integration/test_api_results.py has all members
        ("yaml", "docs/metrics.md"),  # Prometheus's
        ("diff", "docs/adding-a-provider.md"),
        ("diff", "docs/adding-a-hook.md"),
    }


def test_a_task_created_with_curl_succeeds(workspace: Workspace) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed here")
    store = workspace.installation.store
    if len([task for task in store.lists.tasks() if task.reference == "ORDER-7"]) < 2:
        for block in BLOCKS:  # another process of the test run ran it, with its own installation
            if block.page == "docs/creating-tasks.md" and "curl" in block.text:
                WAYS[block.language](workspace, block)

    def was_made() -> bool:
        tasks = [task for task in store.lists.tasks() if task.reference == "ORDER-7"]
        return len(tasks) >= 2 and all(task.status == "succeeded" for task in tasks)

    workspace.installation.wait_until(was_made)


def test_every_exception_and_replacement_is_used() -> None:
    texts = "\n".join(block.text for block in BLOCKS)
    assert [
        text for text in (*NOT_RUN, *INSTEAD, *THEN, ENDLESS, FINDINGS) if text not in texts
    ] == []
    assert [page for page in TOGETHER if page not in {block.page for block in BLOCKS}] == []
