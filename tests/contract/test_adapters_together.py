"""The three adapters of each provider work together: submitter, sandbox and receiver."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
import requests
from PIL import Image

from receiver import providers
from receiver.events import Callback, Event, Source
from receiver.signing.standard_webhooks import verify
from receiver.tasks import Status, new_task_id
from sandbox.server import Behaviour, Sandbox
from submitter.client import Answer
from submitter.errors import NotFoundAtProvider, WrongAccount, WrongInput
from submitter.providers import Provider, open_provider
from submitter.providers.base import TryOn
from tests.support.http_server import LoopbackServer
from tests.support.installation import ROOT
from tests.support.patience import PATIENCE, wait_until
from tests.support.sandbox_client import wait_for

NAMES = ["kling", "modellix", "appypie"]
KEYS = {
    "kling": "KLING_SECRET_KEY",
    "modellix": "MODELLIX_API_KEY",
    "appypie": "APPYPIE_SUBSCRIPTION_KEY",
}
WEBHOOK_SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


class Sink:
    """A server that stores every callback as received, and responds with 200."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.received.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = LoopbackServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/callback"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    behaviour = Behaviour(pace=0.1, webhook_secret=WEBHOOK_SECRET, requests_a_minute=10_000)
    with Sandbox(behaviour=behaviour) as sandbox:
        yield sandbox


@pytest.fixture(params=NAMES)
def adapter(
    request: pytest.FixtureRequest, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Provider:
    for name, value in sandbox.env().items():
        monkeypatch.setenv(name, value)
    return open_provider(request.param)


def picture(side: int) -> str:
    """Return a picture as raw Base64."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), "white").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def shipped(name: str) -> str:
    return base64.b64encode((ROOT / "sandbox/images" / name).read_bytes()).decode()


def order(**more: str) -> TryOn:
    return TryOn(shipped("person.jpg"), shipped("garment.png"), new_task_id(), **more)


def event(adapter: Provider, answer: Answer, source: Source) -> Event:
    """Return the event that the receiver's adapter parses from a response."""
    message = Callback(adapter.name, "task-1", answer.body, 1_781_080_794_000, source=source)
    return providers.get(adapter.name).parse(message)


def ended(adapter: Provider, provider_task_id: str) -> Event:
    def end() -> Event | None:
        found = event(adapter, adapter.fetch(provider_task_id=provider_task_id), Source.QUERY)
        return found if found.status.is_terminal else None

    found: Event = wait_for(end)
    return found


def test_a_task_is_created_polled_and_its_picture_downloaded(adapter: Provider) -> None:
    created = event(adapter, adapter.create(order()), Source.CREATE)
    assert created.status is Status.SUBMITTED
    found = ended(adapter, created.provider_task_id)
    assert found.status is Status.SUCCEEDED
    assert found.provider_task_id == created.provider_task_id
    (media,) = found.media
    content = requests.get(media.url, timeout=PATIENCE).content
    with Image.open(io.BytesIO(content)) as image:
        assert min(image.size) >= 300


def test_a_failure_contains_the_reason(adapter: Provider, sandbox: Sandbox) -> None:
    sandbox.next(adapter.name, "failed")
    created = event(adapter, adapter.create(order()), Source.CREATE)
    found = ended(adapter, created.provider_task_id)
    assert (found.status, found.media) == (Status.FAILED, ())
    assert found.reason == "Failure to pass the risk control system"


def test_an_unknown_task_is_not_a_failed_task(adapter: Provider) -> None:
    with pytest.raises(NotFoundAtProvider):
        adapter.fetch(provider_task_id="999999999999999999")


def test_too_small_a_picture_is_wrong_input(adapter: Provider) -> None:
    with pytest.raises(WrongInput, match="cloth_image"):
        adapter.create(TryOn(shipped("person.jpg"), picture(side=100), new_task_id()))


def test_a_wrong_key_is_an_error_of_the_account(
    adapter: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEYS[adapter.name], "a-key-that-nobody-has-given-us-ever")
    with pytest.raises(WrongAccount):
        open_provider(adapter.name).create(order())


def test_callbacks_and_queries_result_in_the_same_event(adapter: Provider, sink: Sink) -> None:
    created = event(adapter, adapter.create(order(callback_url=sink.url)), Source.CREATE)
    found = ended(adapter, created.provider_task_id)
    if not adapter.has_callbacks:
        assert sink.received == []
        return
    events = [read(adapter, body) for _, body in all_three(sink)]
    assert [message.status for message in events] == ["submitted", "processing", "succeeded"]
    assert {message.provider_task_id for message in events} == {created.provider_task_id}
    assert events[-1].media == found.media


def test_klings_callbacks_are_signed_in_both_dialects(
    adapter: Provider, sandbox: Sandbox, sink: Sink
) -> None:
    if adapter.name == "kling":
        sandbox.next("kling", "new-dialect")
    ours = order(callback_url=sink.url)
    if not adapter.has_callbacks:
        return
    adapter.create(ours)
    for headers, body in all_three(sink):
        if adapter.name == "kling":
            verify([WEBHOOK_SECRET], headers, body, time.time())
            assert "status" in json.loads(body)
            assert read(adapter, body).external_task_id == ours.external_task_id
        else:
            assert "webhook-signature" not in headers


def test_a_task_is_found_by_our_id_where_the_provider_stores_it(adapter: Provider) -> None:
    ours = order()
    created = event(adapter, adapter.create(ours), Source.CREATE)
    if not adapter.finds_by_our_id:
        return
    found = event(adapter, adapter.fetch(external_task_id=ours.external_task_id), Source.QUERY)
    assert found.provider_task_id == created.provider_task_id
    assert ours.external_task_id in [task.external_task_id for task in adapter.list(1, 30).tasks]


def all_three(sink: Sink) -> list[tuple[dict[str, str], bytes]]:
    wait_until(lambda: len(sink.received) >= 3, lambda: str(sink.received))
    return sink.received


def read(adapter: Provider, body: bytes) -> Event:
    return providers.get(adapter.name).parse(Callback(adapter.name, "task-1", body, 1))
