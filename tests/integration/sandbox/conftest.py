"""A real sandbox on a free port, a client for it, and a server for its callbacks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import requests

from sandbox.callback_sender import Persistence
from sandbox.server import Behaviour, Sandbox
from sandbox.workers import Scheduler
from tests.support.http_server import LoopbackServer
from tests.support.patience import PATIENCE
from tests.support.sandbox_client import Kling, Moves, Sink, SinkHandler

PACE = 0.05


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    persistence = Persistence(retries=3, retry_after=0.02, timeout=PATIENCE)
    with Sandbox(behaviour=Behaviour(PACE, max_running=20, persistence=persistence)) as made:
        yield made


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> Moves:
    """Delay the scheduled jobs of a sandbox until the test releases them."""
    made = Moves()
    original = Scheduler.after

    def after(scheduler: Scheduler, seconds: float, job: Callable[[], None]) -> None:
        made.put_off(seconds, lambda: original(scheduler, 0, job))

    monkeypatch.setattr(Scheduler, "after", after)
    return made


@pytest.fixture
def kling(sandbox: Sandbox, session: requests.Session) -> Kling:
    return Kling(sandbox.url, session)


@pytest.fixture
def sink() -> Iterator[Sink]:
    server = LoopbackServer(("127.0.0.1", 0), SinkHandler)
    made = Sink(f"http://127.0.0.1:{server.server_port}/callbacks/kling/one/token")
    server.RequestHandlerClass = type("Handler", (SinkHandler,), {"sink": made})
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()
