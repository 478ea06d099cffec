"""The receivers in docs/hooks.md verify, deduplicate and fail as the page says.

Flask is always installed. Node.js and PHP are taken from the PATH or from Debian. Express is
fetched from the npm registry into a cache, unless it is installed. A runtime that cannot be had is
skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

import pytest
import requests

from receiver.deliveries import Notice, Transition
from receiver.errors import DeliveryFailure
from receiver.events import Media
from receiver.hooks.webhook import Webhook
from receiver.signing.standard_webhooks import sign
from receiver.tasks import Status, Task, Trust
from tests.support import vendor_clients
from tests.support.docs_pages import ROOT, blocks
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port
from tests.support.programs import find_or_skip

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw9rXm4CkZ0w8="
NOW = 1_765_519_851_000
EXAMPLES = {
    block.language: block.text
    for block in blocks(ROOT / "docs" / "hooks.md")
    if "shop_events" in block.first_line
}
RUNTIMES = ("python", "js", "php")


@dataclass(frozen=True)
class Receiver:
    """An example that is running."""

    url: str
    output: Path

    def processed(self) -> list[str]:
        """Return the lines that it printed for events."""
        return re.findall(r"^(ORDER-\S+ \w+)$", self.output.read_text(), re.MULTILINE)

    def hook(self, *secrets: str) -> Webhook:
        options = {"url": self.url, "secrets": list(secrets or (SECRET,)), "allow_private": True}
        return Webhook("shop", options)


def python(folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    (folder / "shop_events.py").write_text(EXAMPLES["python"])
    flask = ["-m", "flask", "--app", "shop_events", "run", "--port", str(port)]
    return [sys.executable, *flask], {}


def js(folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    node = find_or_skip("node")
    (folder / "shop_events.js").write_text(EXAMPLES["js"])
    modules = _modules_with_express()
    environment = node.environment() | {"PORT": str(port), "NODE_PATH": modules}
    return [str(node.path), "shop_events.js"], environment


def php(folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    program = find_or_skip("php")
    (folder / "shop_events.php").write_text(EXAMPLES["php"])
    return [str(program.path), "-S", f"127.0.0.1:{port}", "shop_events.php"], program.environment()


START: dict[str, Callable[[Path, int], tuple[list[str], dict[str, str]]]] = {
    "python": python,
    "js": js,
    "php": php,
}


def _modules_with_express() -> str:
    """Return a folder of modules with Express; skip the test if it cannot be had."""
    known = ("/usr/share/nodejs", "/usr/lib/node_modules", os.environ.get("NODE_PATH", ""))
    for modules in filter(None, known):
        if (Path(modules) / "express").is_dir():
            return modules
    return str(vendor_clients.find_or_skip("express") / "node_modules")


@contextmanager
def serving(language: str, folder: Path) -> Iterator[Receiver]:
    port = free_port()
    command, more = START[language](folder, port)
    environment = {**os.environ, **more, "WEBHOOK_SECRET": SECRET}
    output = folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}/events"
        wait_until(lambda: process.poll() is not None or _answers(url), output.read_text)
        assert process.poll() is None, output.read_text()
        yield Receiver(url, output)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _answers(url: str) -> bool:
    try:
        requests.post(url, data=b"{}", timeout=PATIENCE)
    except requests.ConnectionError:
        return False
    return True


@pytest.fixture(scope="module", params=RUNTIMES)
def receiver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Receiver]:
    language = request.param
    with serving(language, tmp_path_factory.mktemp(language)) as started:
        yield started


def notice(reference: str) -> Notice:
    task = Task("task-" + reference, "kling", Status.SUCCEEDED, NOW, NOW, reference=reference)
    move = Transition("succeeded", NOW, NOW, Trust.TOKEN)
    return Notice(
        replace(task, metadata={"for": "ä"}), move, (Media("image", "https://x.example/0"),)
    )


def test_the_page_has_a_receiver_for_each_runtime() -> None:
    assert EXAMPLES.keys() == set(RUNTIMES)


def test_an_event_is_processed_once_however_often_it_is_sent(receiver: Receiver) -> None:
    hook = receiver.hook()
    for reference in ("ORDER-1", "ORDER-1", "ORDER-2", "ORDER-1"):
        assert "answered 204" in hook.send(notice(reference)).answer
    assert receiver.processed().count("ORDER-1 succeeded") == 1
    assert receiver.processed().count("ORDER-2 succeeded") == 1


def test_either_signature_of_a_rotation_is_accepted(receiver: Receiver) -> None:
    other = "whsec_" + "A" * 43 + "="
    assert "answered 204" in receiver.hook(other, SECRET).send(notice("ORDER-3")).answer
    assert receiver.processed().count("ORDER-3 succeeded") == 1


def test_a_wrong_secret_is_refused(receiver: Receiver) -> None:
    with pytest.raises(DeliveryFailure, match="answered 401"):
        receiver.hook("whsec_" + "A" * 43 + "=").send(notice("ORDER-4"))
    assert "ORDER-4 succeeded" not in receiver.processed()


def post(receiver: Receiver, body: bytes, signed: bytes, age: int, **changed: str) -> int:
    sent_at = int(time.time()) - age
    headers = {
        "content-type": "application/json",
        "webhook-id": "by-hand",
        "webhook-timestamp": str(sent_at),
        "webhook-signature": sign(SECRET, "by-hand", sent_at, signed),
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    headers = {name: value for name, value in headers.items() if value}
    return requests.post(receiver.url, data=body, headers=headers, timeout=PATIENCE).status_code


BODY = b'{"task": {"reference": "ORDER-5", "status": "succeeded"}}'


@pytest.mark.parametrize(
    ("body", "age", "changed"),
    [
        (BODY.replace(b"5", b"6"), 0, {}),
        (BODY, 400, {}),
        (BODY, -400, {}),
        (BODY, 0, {"webhook_id": "another"}),
        (BODY, 0, {"webhook_id": ""}),
        (BODY, 0, {"webhook_timestamp": ""}),
        (BODY, 0, {"webhook_timestamp": "now"}),
        (BODY, 0, {"webhook_signature": ""}),
        (BODY, 0, {"webhook_signature": "v1,"}),
        (b"", 0, {}),
    ],
)
def test_a_request_that_we_did_not_sign_recently_is_refused(
    receiver: Receiver, body: bytes, age: int, changed: dict[str, str]
) -> None:
    assert post(receiver, body, BODY, age, **changed) == HTTPStatus.UNAUTHORIZED
    assert not {"ORDER-5 succeeded", "ORDER-6 succeeded"} & set(receiver.processed())


def test_an_event_that_could_not_be_processed_is_accepted_again(receiver: Receiver) -> None:
    for _ in range(2):  # a receiver that kept the id would answer the second one with 204
        assert post(receiver, b"not JSON", b"not JSON", 0) >= HTTPStatus.BAD_REQUEST


def test_the_step_of_the_readme_delivers_a_test_event(tmp_path: Path) -> None:
    """Runs the commands of the README as they are written there, except for the port."""
    port = str(free_port())
    (step,) = (
        block.text.replace("5001", port)
        for block in blocks(ROOT / "README.md")
        if "shop_events" in block.text
    )
    # Flask would read .env as well, if python-dotenv is installed.
    more = {"PYTHONPATH": str(ROOT), "HOOKS_FILE": "", "FLASK_SKIP_DOTENV": "1"}
    environment = {**os.environ, **more}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("RECEIVER_ENV_FILE", None)

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "receiver", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    run("init", "--sandbox")
    hooks = tmp_path / "hooks.toml"
    enabled = re.sub(r"^# (?=\[|\w+ = )", "", hooks.read_text(), flags=re.MULTILINE)
    hooks.write_text(enabled.replace("5001", port))
    (tmp_path / "shop_events.py").write_text(EXAMPLES["python"])
    output = tmp_path / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-ec", re.sub(r"^flask", "exec flask", step, flags=re.MULTILINE)],  # noqa: S607
            cwd=tmp_path,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}/events"
        wait_until(lambda: process.poll() is not None or _answers(url), output.read_text)
        assert "answered 204" in run("hooks", "test", "shop")
        assert "TEST succeeded" in output.read_text()
    finally:
        process.terminate()
        process.wait(PATIENCE)
