"""What README and docs tell to type is typed here, against a sandbox and real processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.server import Sandbox
from tests.support.demo_run import Played
from tests.support.docs_pages import PAGES, ROOT, Block, blocks
from tests.support.installation import Installation
from tests.support.patience import PATIENCE, wait_until

EVERY_BLOCK = [block for page in PAGES for block in blocks(page)]
TO_BE_RUN = ("console", "sh", "toml", "python")
BLOCKS = [block for block in EVERY_BLOCK if block.language in TO_BE_RUN]
# Commands that are not run here, and why. One that stands on no page any more fails.
NOT_RUN = {
    "make test": "it would run this test",
    "make install": "the environment is there",
    'eval "$(receiver completion zsh)"      # in ~/.zshrc, after compinit': "needs zsh",
    "receiver completion fish | source      # in ~/.config/fish/config.fish": "needs fish",
    "receiver copy --from sqlite:///data/receiver.db --to postgresql://…": "needs a server; "
    "tests/integration/test_copy.py has one",
}
# Pages whose blocks belong together, and the test that runs them together. Those of deploying need
# a server of their own, with its systemd and its name: commands and files are checked one by one.
TOGETHER = {
    "docs/deploy.md": "../unit/test_deploy_docs.py",
    "docs/adding-a-provider.md": "test_adding_pages.py",
    "docs/adding-a-hook.md": "test_adding_pages.py",
}
DEMO = "make demo"  # tests/acceptance/test_demo.py types all that it does once .venv is there
# What is typed in the place of what stands there, and why.
INSTEAD = {
    "http://127.0.0.1:8000": "{url}",  # ports that are free
    "https://shop.example/p.jpg": "{sandbox}/_sandbox/images/person.jpg",
    "https://shop.example/g.png": "{sandbox}/_sandbox/images/garment.png",
    # More lines than shown, so that each kind is among them.
    "receiver tail --lines 3": "receiver tail --lines 30",
    # Other examples write hooks.toml, too.
    "receiver init --sandbox": 'cd "$(mktemp -d)" && receiver init --sandbox',
}
# It ends only with Ctrl-C, which is pressed when all that is shown was printed.
ENDLESS = "receiver tail --lines 3"
# What has to be true after a block, for those that print nothing.
THEN = {
    "make install": "type receiver submitter sandbox",
    'eval "$(receiver completion bash)"     # in ~/.bashrc; submitter as well': (
        "complete -p receiver | grep -q receiver"
    ),
}
# Shown for what it may find, not for what it finds here: only the names are compared.
FINDINGS = "receiver doctor"
ORDER = "--human person.jpg --cloth garment.png --reference ORDER-7"
SECRETS = {
    "SMTP_PASSWORD": "secret",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/x",
    "SHOP_WEBHOOK_SECRET": "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=",
    "PHONES_URL": "json://example.com/",
    "API_TOKEN": "a-token-for-the-tests-only",
}
# What may differ: what is left out, ids, numbers, spaces. As a pattern for a page's line, and what
# each stands for in the line that was printed.
VARIES = {
    r"[0-9a-f]*\d[0-9a-f]{7,}…?": r"[0-9a-f]+",
    r"…": r".*",
    r"\d[\d.,:]*": r"[\d.,:]+",
    r"\s+": r"\s+",
}


@dataclass
class Desk:
    """A folder like a clone, where commands are typed, beside an installation at work."""

    folder: Path
    installation: Installation
    demo: Callable[[], Played]

    def type(self, command: str, **more: str) -> str:
        """What the command prints. Anything but status 0 fails."""
        done = subprocess.run(
            ["bash", "-ec", command],  # noqa: S607 - bash, wherever it is
            cwd=self.folder,
            env={**self.installation.environment, **more},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def type_and_interrupt(self, command: str, is_enough: Callable[[str], bool]) -> str:
        """What the command prints until that is enough; then Ctrl-C ends it with status 0."""
        output = self.folder / "followed.txt"
        with output.open("w") as file:
            running = subprocess.Popen(
                ["bash", "-ec", f"exec {command}"],  # noqa: S607 - bash, wherever it is
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

    def instead(self, text: str) -> str:
        urls = {"url": self.installation.url, "sandbox": self.installation.sandbox.url}
        for told, typed in INSTEAD.items():
            text = text.replace(told, typed.format(**urls))
        return text


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("clone")
    (folder / "sandbox").symlink_to(ROOT / "sandbox")
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("person.jpg", "garment.png"):
        shutil.copy(ROOT / "sandbox" / "images" / name, folder)
    with Sandbox(pace=0.2) as sandbox:
        made = Installation(tmp_path_factory.mktemp("installation"), sandbox)
        made.environment |= {
            **SECRETS,
            "HOME": str(folder),
            "PATH": f"{folder / '.venv/bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder),
        }
        made.store.migrate()
        made.start("serve", "receiver", "serve", "--bind", f"127.0.0.1:{made.port}")
        try:
            made.wait_until_ready()
            desk = Desk(folder, made, lambda: request.getfixturevalue("demo"))
            desk.type(f"python -m submitter submit {ORDER} --wait")
            (task,) = made.store.lists.tasks()
            made.settled(task.id)
            yield desk
        finally:
            made.close()


def looks_like(shown: str, printed: str) -> bool:
    """Does a line of the page stand there, but for what varies?"""
    pattern = ""
    for part in re.split(f"({'|'.join(VARIES)})", shown.strip()):
        stands_for = (like for told, like in VARIES.items() if re.fullmatch(told, part))
        pattern += next(stands_for, re.escape(part))
    return re.search(pattern, printed) is not None


def missing(shown: list[str], printed: str) -> list[str]:
    return [line for line in shown if not looks_like(line, printed)]


def compare(command: str, shown: list[str], printed: str) -> None:
    if command == FINDINGS:
        shown = [re.split(r"  +", line)[1] for line in shown]
        shown = [name for name in shown if not name.startswith("hook ")]
    assert not missing(shown, printed), f"$ {command}\nprinted\n{printed}"


def run_console(desk: Desk, block: Block) -> None:
    for command, shown in block.commands():
        if command == DEMO:
            compare(command, shown, desk.demo().printed)
        elif command == ENDLESS:
            typed = desk.instead(command)
            desk.type_and_interrupt(typed, lambda printed, shown=shown: not missing(shown, printed))  # type: ignore[misc]
        elif command not in NOT_RUN:
            compare(command, shown, desk.type(desk.instead(command)))


def run_sh(desk: Desk, block: Block) -> None:
    lines = [line for line in block.text.splitlines() if line not in NOT_RUN]
    desk.type(desk.instead("\n".join([*lines, THEN.get(block.first_line, "")])))


def run_toml(desk: Desk, block: Block) -> None:
    path = desk.folder / "hooks.toml"
    path.write_text(block.text)
    for function in BLOCKS:  # those of the page, which its hooks name
        if function.language == "python" and function.page == block.page:
            written(desk, function)
    printed = desk.type("receiver hooks list", HOOKS_FILE=str(path))
    for name in re.findall(r'^name = "(.+)"', block.text, re.MULTILINE):
        assert name in printed


def run_python(desk: Desk, block: Block) -> None:
    desk.type(f"python {written(desk, block).name}")


def written(desk: Desk, block: Block) -> Path:
    """The file that the block names, with its text."""
    place = re.match(r"# (\w+\.py)", block.text)
    path = desk.folder / (place[1] if place else "example.py")
    path.write_text(desk.instead(block.text))
    return path


WAYS = {"console": run_console, "sh": run_sh, "toml": run_toml, "python": run_python}


# hooks.toml names the functions.
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
    desk: Desk = request.getfixturevalue("desk")
    WAYS[block.language](desk, block)


def test_the_hooks_for_the_sandbox_deliver(desk: Desk, tmp_path: Path) -> None:
    desk.type(f"cd {tmp_path} && receiver init --sandbox")
    for name in ("pictures", "mail", "chat"):  # with the addresses of the sandbox of this test
        desk.type(f"cd {tmp_path} && HOOKS_FILE= receiver hooks test {name}")


def test_what_is_not_run_is_no_command() -> None:
    found = {(block.language, block.page) for block in EVERY_BLOCK}
    assert {(language, page) for language, page in found if language not in TO_BE_RUN} == {
        ("", "README.md"),  # the flow as a picture
        ("", "docs/architecture.md"),  # tests/unit/test_architecture.py reads it
        ("json", "docs/hooks.md"),  # tests/unit/hooks/test_docs.py reads it
        ("json", "docs/adding-a-provider.md"),
        ("yaml", "docs/metrics.md"),  # Prometheus's
        ("diff", "docs/adding-a-provider.md"),
        ("diff", "docs/adding-a-hook.md"),
    }


def test_what_curl_ordered_was_made(desk: Desk) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed here")
    store = desk.installation.store
    if len([task for task in store.lists.tasks() if task.reference == "ORDER-7"]) < 2:
        for block in BLOCKS:  # another process of the test run typed it, at its own installation
            if block.page == "docs/creating-tasks.md" and "curl" in block.text:
                WAYS[block.language](desk, block)

    def was_made() -> bool:
        tasks = [task for task in store.lists.tasks() if task.reference == "ORDER-7"]
        return len(tasks) >= 2 and all(task.status == "succeeded" for task in tasks)

    desk.installation.wait_until(was_made)


def test_every_exception_and_replacement_is_used() -> None:
    told = "\n".join(block.text for block in BLOCKS)
    assert [
        text for text in (*NOT_RUN, *INSTEAD, *THEN, DEMO, ENDLESS, FINDINGS) if text not in told
    ] == []
    assert [page for page in TOGETHER if page not in {block.page for block in BLOCKS}] == []
