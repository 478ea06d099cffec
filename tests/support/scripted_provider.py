"""A provider on loopback that sends scripted responses."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeVar

from submitter.errors import NeverReached
from tests.support.http_server import LoopbackServer

T = TypeVar("T")
TOKEN = "the-token-that-nobody-may-see"
PACE = 0.05  # seconds between two bytes of a response that is sent slowly
PAYLOADS = Path(__file__).parents[1] / "payloads" / "kling"
IMAGES = {"task_result": {"images": [{"index": 0, "url": "https://cdn.example/a.png"}]}}


@dataclass
class Asked:
    """A received request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Reply = Callable[[BaseHTTPRequestHandler, Asked], None]


@dataclass
class Scripted:
    """Responds to each request with the next of its replies; the last one is repeated."""

    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    replies: list[Reply] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    ends: threading.Event = field(default_factory=threading.Event)

    def will(self, *replies: Reply) -> None:
        self.replies[:] = replies

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        asked = Asked(handler.command, handler.path, dict(handler.headers), body)
        with self.lock:
            self.asked.append(asked)
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        reply(handler, asked)

    def say(self, document: Any, status: int = 200, **headers: str) -> Reply:
        """Return a response in JSON. A callable document is called with the request."""

        def reply(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
            found = document(asked) if callable(document) else document
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        return reply

    def payload(self, name: str, status: int = 200) -> Reply:
        return self.say((PAYLOADS / name).read_bytes(), status)

    def task(self, status: str = "submitted", **more: Any) -> Reply:
        """Return the task under our own id, as Kling responds to a create and to a query."""

        def document(asked: Asked) -> Any:
            own_id = asked.json["external_task_id"] if asked.body else asked.path.split("/")[-1]
            data: dict[str, Any] = {"task_id": "867283741759111202", "task_status": status}
            known = {"external_task_id": own_id} if own_id != data["task_id"] else {}
            moments = {"created_at": 1774805076166, "updated_at": 1774805076166}
            result = IMAGES if status == "succeed" else {}
            data |= {"task_info": known, **moments, **result, **more}
            return {"code": 0, "message": "SUCCEED", "request_id": "r-1", "data": data}

        return self.say(document)

    def hang_up(self, handler: BaseHTTPRequestHandler, _: Asked) -> None:
        handler.close_connection = True

    def hang_up_within_the_body(self, handler: BaseHTTPRequestHandler, _: Asked) -> None:
        handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"code": 0')
        handler.close_connection = True

    def drip(self, handler: BaseHTTPRequestHandler, _: Asked) -> None:
        """Send one byte at a time, faster than any timeout, until the client disconnects."""
        self._drip(handler, b"Content-Length: 500000\r\n\r\n")

    def drip_a_whole_answer(self, handler: BaseHTTPRequestHandler, _: Asked) -> None:
        """Do the same without a length, so that disconnecting looks like the end of the body."""
        self._drip(handler, b'Connection: close\r\n\r\n{"code": 0, "data": {}}')

    def _drip(self, handler: BaseHTTPRequestHandler, begin: bytes) -> None:
        handler.close_connection = True
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + begin)
            while not self.ends.wait(PACE):
                handler.wfile.write(b" ")
        except OSError:
            return  # the client disconnected, as it should


@contextmanager
def serving() -> Iterator[Scripted]:
    """Run a scripted provider within the block; its address is `url`."""
    scripted = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            scripted.reply(self)

        do_POST = do_GET  # noqa: N815 - the name that the library looks for

        def log_message(self, *args: object) -> None:
            pass

    http = LoopbackServer(("127.0.0.1", 0), Handler)
    scripted.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield scripted
    finally:
        scripted.ends.set()
        http.shutdown()
        thread.join()
        http.server_close()


def once_reached(attempt: Callable[[float], T]) -> T:
    """Return the result of `attempt` with the first limit (seconds) in which it can connect.

    A limit that is to be exceeded is short. A busy machine may need longer than that to connect, so
    the limit is doubled until the attempt no longer raises NeverReached.
    """
    for doublings in itertools.count():
        with suppress(NeverReached):
            return attempt(0.3 * 2**doublings)
    raise AssertionError  # the loop has no end
