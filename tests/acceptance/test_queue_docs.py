"""The hooks and consumers in docs/queues.md work together, with real brokers.

The packages for JavaScript are fetched from the npm registry into a cache. A runtime or a package
that cannot be had is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from receiver import hooks
from receiver.config import hooks_file
from receiver.hooks.base import Hook
from receiver.hooks.brokers import base
from tests.support import vendor_clients
from tests.support.docs_pages import ROOT, blocks
from tests.support.hook_servers import notice
from tests.support.patience import PATIENCE, wait_until
from tests.support.programs import find_or_skip
from tests.support.queue_servers import QueueServer, SqsServer, set_credentials

PAGE = ROOT / "docs" / "queues.md"
BLOCKS = blocks(PAGE)
CONSUMERS = {
    (block.first_line.split()[1].partition("_")[0], block.language): block.text
    for block in BLOCKS
    if block.language in ("python", "js")
}
PACKAGES = {"rabbitmq": "amqplib", "redis": "redis"}  # npm packages
Servers = Callable[[str], QueueServer]


def hook_named(name: str, folder: Path, environment: dict[str, str], **more: Any) -> Hook:
    """Return a hook from the page, with some options replaced."""
    tables = [tomllib.loads(block.text)["hook"][0] for block in BLOCKS if block.language == "toml"]
    (found,) = [table for table in tables if table["name"] == name]
    lines = ["[[hook]]", *(f"{key} = {value!r}" for key, value in {**found, **more}.items())]
    (folder / "hooks.toml").write_text("\n".join(lines))
    (entry,) = hooks_file.load(folder / "hooks.toml", lambda _: None)
    return hooks.build(entry, environment)


@contextmanager
def consumer(
    broker: str, language: str, folder: Path, environment: dict[str, str]
) -> Iterator[Callable[[], list[str]]]:
    """Run a consumer; yield a function that returns the lines that it printed."""
    name = {"python": f"{broker}_events.py", "js": f"{broker}_events.js"}[language]
    (folder / name).write_text(CONSUMERS[broker, language])
    command, more = [sys.executable, name], dict(os.environ)
    if language == "js":
        node = find_or_skip("node")
        modules = vendor_clients.find_or_skip(PACKAGES[broker]) / "node_modules"
        command = [str(node.path), name]
        more = {**os.environ, **node.environment(), "NODE_PATH": str(modules)}
    output = folder / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env={**more, **environment}, stdout=file, stderr=file
        )

    def printed() -> list[str]:
        assert process.poll() is None, output.read_text()
        return output.read_text().splitlines()

    try:
        yield printed
    finally:
        process.terminate()
        process.wait(PATIENCE)
        base.close_idle()


def send_and_expect_once(hook: Hook, printed: Callable[[], list[str]]) -> None:
    for reference in ("ORDER-1", "ORDER-1", "ORDER-2"):
        hook.send(notice(reference=reference, id=f"task-{reference}"))
    hook.send(notice("failed", reference="ORDER-3", id="task-3"))
    expected = ["ORDER-1 succeeded", "ORDER-2 succeeded", "ORDER-3 failed"]
    wait_until(lambda: len(printed()) >= len(expected), lambda: str(printed()))
    assert printed() == expected


def test_every_broker_has_a_consumer_in_python() -> None:
    assert set(CONSUMERS) == {
        ("rabbitmq", "python"),
        ("rabbitmq", "js"),
        ("redis", "python"),
        ("redis", "js"),
        ("sqs", "python"),
    }


@pytest.mark.parametrize("language", ["python", "js"])
def test_the_consumers_of_rabbitmq(queue_servers: Servers, tmp_path: Path, language: str) -> None:
    server = queue_servers("rabbitmq")
    environment = {"RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{server.port}/"}
    server.repair({"routing_key": "tryon"})
    server.received({"routing_key": "tryon"})
    with consumer("rabbitmq", language, tmp_path, environment) as printed:
        send_and_expect_once(hook_named("orders", tmp_path, environment), printed)


@pytest.mark.parametrize("language", ["python", "js"])
def test_the_consumers_of_redis(queue_servers: Servers, tmp_path: Path, language: str) -> None:
    server = queue_servers("redis")
    environment = {"REDIS_URL": f"redis://127.0.0.1:{server.port}/0"}
    server.repair({"stream": "tryon"})
    hook = hook_named("stream", tmp_path, environment)
    hook.send(notice(reference="ORDER-1", id="task-ORDER-1"))  # creates the group
    with consumer("redis", language, tmp_path, environment) as printed:
        send_and_expect_once(hook, printed)


def test_the_consumer_of_sqs(
    queue_servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = queue_servers("sqs")
    assert isinstance(server, SqsServer)
    set_credentials(monkeypatch)
    options = server.options(fifo=True)
    environment = {
        "QUEUE_URL": options["url"],
        "AWS_ENDPOINT_URL_SQS": f"http://127.0.0.1:{server.port}",
        "AWS_REGION": options["region"],
        "AWS_DEFAULT_REGION": options["region"],
        "WAIT": "1",
    }
    hook = hook_named("sqs", tmp_path, {}, **options)
    with consumer("sqs", "python", tmp_path, environment) as printed:
        send_and_expect_once(hook, printed)


def test_the_topic_of_the_page_is_valid(tmp_path: Path) -> None:
    environment = {"RABBITMQ_URL": "amqps://rabbitmq.example.com/vhost"}
    assert hook_named("topics", tmp_path, environment).name == "topics"
