"""The clock of the machine is set while the processes run, and while they are down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.deliveries import Delivery, State
from receiver.ingest import Ingest
from sandbox.server import Sandbox
from tests.support.hook_servers import Page, Site
from tests.support.installation import Installation
from tests.support.samples import body, callback, subscription

SETTABLE = "tests.support.apps.settable_clock"
HOOK = """
[[hook]]
name = "slack"
type = "slack"
url = "{url}/slack"
allow_private = true
"""


class Machine:
    """An installation with a worker, and with a hook whose endpoint fails at first."""

    def __init__(self, installation: Installation, site: Site) -> None:
        self.installation, self.site = installation, site
        self.clock = installation.folder / "clock"
        installation.environment["CLOCK"] = str(self.clock)
        (installation.folder / "hooks.toml").write_text(HOOK.format(url=site.url))
        self.set_clock(0)
        site.pages["/slack"] = Page(b"not now", 503)

    def set_clock(self, seconds: int) -> None:
        draft = self.clock.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self.clock)

    def start_worker(self) -> None:
        self.installation.start("worker", SETTABLE, "receiver", "worker")

    def record(self, task: str) -> None:
        raw = body(task_id=f"at-kling-{task}")
        ingest = Ingest(self.installation.store, [subscription("slack")])
        ingest.accept(callback(raw, task))

    def delivery(self) -> Delivery:
        (found,) = self.installation.store.lists.deliveries()
        return found

    def wait_for_a_failure(self) -> None:
        self.installation.wait_until(lambda: self.delivery().attempts and self.is_pending())

    def is_pending(self) -> bool:
        return self.delivery().state is State.PENDING

    def mend(self) -> None:
        self.site.pages["/slack"] = Page(b"ok")

    def wait_for_the_delivery(self) -> None:
        self.installation.wait_until(lambda: self.delivery().state is State.DELIVERED)


@pytest.fixture
def machine(tmp_path: Path, sandbox: Sandbox) -> Iterator[Machine]:
    installation = Installation(tmp_path, sandbox)
    installation.migrate()
    with Site() as site:
        yield Machine(installation, site)
        installation.close()


def test_retries_continue_after_the_clock_was_set_back_by_an_hour(machine: Machine) -> None:
    installation = machine.installation
    machine.start_worker()
    machine.record("task-1")
    machine.wait_for_a_failure()
    machine.set_clock(-3_600)
    machine.mend()
    machine.wait_for_the_delivery()
    (by,) = re.findall(r'"by_s": (-?[\d.]+)', installation.logs())
    assert round(float(by)) == -3_600
    assert len(installation.store.clocks.clock_steps(0)) == 1


def test_retries_continue_after_the_clock_was_set_back_while_nothing_ran(machine: Machine) -> None:
    machine.start_worker()
    machine.record("task-1")
    machine.wait_for_a_failure()
    assert machine.installation.stop("worker") == 0
    machine.set_clock(-3_600)
    machine.mend()
    machine.start_worker()
    machine.wait_for_the_delivery()
