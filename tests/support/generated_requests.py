"""Generates HTTP requests from a seed, byte for byte, for tests that compare two servers.

A generator that has the same seed and number and another `prefix` makes the same requests for
other tasks. The lengths of all requests are the same if those of the prefixes are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from receiver.signing.callback_urls import mint
from receiver.signing.standard_webhooks import sign
from tests.support.samples import SECRET, body

API_TOKEN = "the-token-of-the-api-in-tests"
WEBHOOK_SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
SETTINGS = {"API_TOKEN": API_TOKEN, "KLING_WEBHOOK_SECRETS": WEBHOOK_SECRET}

JSON = "Content-Type: application/json"
STATUSES = ("submitted", "processing", "succeed", "failed")
HEADERS = (
    "User-Agent: Kling/1.0",
    "x-lower-case: yes",
    "X-Spaces:    a b  ",
    "X-Tab:\ta\t",
    "X-Empty:",
    "X-Twice: 1\r\nX-Twice: 2",
    "X-Latin: caf\xe9",
    "X-Long: " + "v" * 1_500,
    "X_Forwarded_For: 192.0.2.1",
    "Script_Name: /callbacks",
    "X-Script-Name: /callbacks",
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Proto: https",
    "X-Request-Id: given-by-the-client",
    "Authorization: Bearer of-a-stranger",
    "Cookie: session=secret",
    "Connection: keep-alive",
    "Content-Encoding: gzip",
    "Content-Encoding: gzip",
    "content-encoding: deflate",
    "Content-Encoding: br",
    "Content-Encoding: gzip\r\nContent-Encoding: gzip",
    "Range: bytes=0-1",
    "TE: trailers",
)
OTHER_TYPES = (
    "Content-Type: text/plain",
    "Content-Type: application/x-www-form-urlencoded",
    "Content-Type: application/cloudevents+json",
    "Content-Type: APPLICATION/JSON; charset=utf-8",
    "Content-Type:",
    "Content_Type: application/json",
)
ROUTES = (
    "/healthz",
    "/openapi.json",
    "/docs",
    "/",
    "/favicon.ico",
    "/dashboard",
    "/static/nothing",
    "/api",
    "/api/tasks/nothing",
    "/api/tasks?limit=x&limit=y",
    "/api/tasks?reference=%ff%00",
    "/api/tasks?status=%C3%A9",
    "/api/deliveries/999999999999999999999/redeliver",
)

# Replacements in a callback. The length is its last header; an `X:` before it removes it.
LENGTH = b"Content-Length:"
SHORT = b'{"task_id": "short", "task_status": "succeed"}'
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(SHORT), SHORT)
MALFORMED = {
    "two lengths": (LENGTH, b"Content-Length: 5\r\nContent-Length:"),
    "a length with a sign": (b"Length: ", b"Length: +"),
    "a negative length": (b"Length: ", b"Length: -"),
    "a length that is no number": (b"Length: ", b"Length: 0x"),
    "a length with an underscore": (b"Length: ", b"Length: 1_"),
    "a length that is a list": (b"Length: ", b"Length: 5, "),
    "a length and chunks": (LENGTH, b"Transfer-Encoding: chunked\r\nContent-Length:"),
    "chunks and a length": (b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "an unknown encoding": (LENGTH, b"Transfer-Encoding: xchunked\r\nX:"),
    "an encoding that is last": (LENGTH, b"Transfer-Encoding: chunked, identity\r\nX:"),
    "two encodings": (LENGTH, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\nX:"),
    "an encoding with a control": (LENGTH, b"Transfer-Encoding: \x0bchunked\r\nX:"),
    "chunks and HTTP/1.0": (b"1.1\r\n", b"1.0\r\nTransfer-Encoding: chunked\r\n"),
    "a space before a colon": (LENGTH, b"Content-Length :"),
    "a tab before a colon": (LENGTH, b"Content-Length\t:"),
    "a space before a name": (b"Content-Type", b" Content-Type"),
    "a folded header": (b"Host: receiver", b"Host: receiver\r\nX: a\r\n b"),
    "a NUL in a value": (b"Host: receiver", b"Host: receiver\r\nX: a\0b"),
    "a CR in a value": (b"Host: receiver", b"Host: receiver\r\nX: a\rb"),
    "a DEL in a value": (b"Host: receiver", b"Host: receiver\r\nX: a\x7fb"),
    "no colon": (b"Host: receiver", b"Host: receiver\r\nX"),
    "no name": (b"Host: receiver", b"Host: receiver\r\n: x"),
    "a name with a space": (b"Host: receiver", b"Host: receiver\r\nX Y: x"),
    "a name that is not ASCII": (b"Host: receiver", b"Host: receiver\r\n\xe9: x"),
    "two hosts": (b"Host: receiver", b"Host: receiver\r\nHost: another"),
    "two types": (b"Content-Type: ", b"Content-Type: text/plain\r\nContent-Type: "),
    "an unknown expectation": (b"Host: ", b"Expect: miracles\r\nHost: "),
    "HTTP/2.0": (b"HTTP/1.1", b"HTTP/2.0"),
    "HTTP/0.9": (b"HTTP/1.1", b"HTTP/0.9"),
    "no version": (b" HTTP/1.1", b""),
    "half a version": (b"HTTP/1.1", b"HTTP/1"),
    "another protocol": (b"HTTP/1.1", b"FTP/1.1"),
    "a method in small letters": (b"POST", b"post"),
    "no method": (b"POST ", b""),
    "a target that is not ASCII": (b" HTTP/1.1", b"\xe9 HTTP/1.1"),
    "a control in the target": (b" HTTP/1.1", b"\x01 HTTP/1.1"),
    "a long line": (b" HTTP/1.1", b"?" + b"x" * 4_094 + b" HTTP/1.1"),
    "a long header": (b"Host: ", b"X: " + b"x" * 8_190 + b"\r\nHost: "),
    "many headers": (b"Host: ", b"X: x\r\n" * 62 + b"Host: "),
    "a body that is cut off": (b"Length: ", b"Length: 9"),
    "a chunk without a size": (LENGTH, b"Transfer-Encoding: chunked\r\nX:"),
    "a trailer named Host": (LENGTH, CHUNKS + b"Host: another\r\n\r\n"),
    "a trailer with a secret": (LENGTH, CHUNKS + b"Authorization: Bearer x\r\n\r\n"),
}


@dataclass(frozen=True)
class Request:
    """One request: its bytes, and its method, which decides whether the response has a body."""

    method: str
    raw: bytes


@dataclass
class Connection:
    """The requests that are sent on one connection, and their tasks."""

    requests: list[Request] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(str(request.raw[:1_000]) for request in self.requests)


class Generator:
    """Generates connection number `number`."""

    def __init__(self, seed: str, number: int, prefix: str, now: int = 0) -> None:
        self.random = Random(f"{seed} {number}")  # noqa: S311 - the seed decides
        self._prefix = f"{prefix}-{number}"
        self._now = now  # seconds; well-formed requests are signed at this time
        self._made = Connection()

    def well_formed(self) -> Connection:
        """Generate requests that are valid HTTP, with any paths, methods, headers and bodies."""
        kinds = (self._callbacks, self._callbacks, self._bodies, self._wrong, self._routes)
        self._made.requests += self.random.choice(kinds)()
        return self._made

    def malformed(self, name: str) -> Connection:
        """Return a callback that is malformed in the way that `MALFORMED` lists under this name."""
        task = self._task()
        sent = body("succeed", f"at-{task}")
        target = f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"
        lines = [f"POST {target} HTTP/1.1", "Host: receiver", JSON]
        raw = "\r\n".join([*lines, f"Content-Length: {len(sent)}", "", ""]).encode() + sent
        right, wrong = MALFORMED[name]
        assert right in raw
        self._made.requests.append(Request("POST", raw.replace(right, wrong, 1)))
        return self._made

    # -- kinds of requests

    def _callbacks(self) -> Iterator[Request]:
        """Return callbacks of one task; some are repeated, chunked or signed."""
        task, provider = self._task(), self.random.choice(("kling", "kling", "appypie"))
        for _ in range(self.random.choice((1, 1, 2, 4))):
            request = self._callback(task, provider=provider)
            yield from [request] * self.random.choice((1, 1, 2))

    def _bodies(self) -> Iterator[Request]:
        task = self._task()
        yield self._callback(task, self._odd_body(task))

    def _wrong(self) -> Iterator[Request]:
        """Return a callback with a wrong address, method or type, followed by a correct one."""
        task = self._task()
        token = mint(SECRET, "kling", task)
        right = f"/callbacks/kling/{task}/{token}"
        paths = (
            f"/callbacks/kling/{task}/{token[:-4]}AAAA",
            f"/callbacks/kling/another/{token}",
            f"/callbacks/appypie/{task}/{token}",
            f"/callbacks/nobody/{task}/{token}",
            f"/callbacks/modellix/{task}/{token}",
            f"/callbacks/kling/{task}",
            "/callbacks/kling",
            f"{right}/",
            f"/{right}",
            right.replace("/kling", "%2Fkling"),
            right.replace("callbacks", "Callbacks"),
            f"{right}%00",
            f"{right}%zz",
            f"{right}%C3%A9",
            f"{right}%FF",
            f"/callbacks/doctor/{task}/{mint(SECRET, 'doctor', task)}",
            f"/callbacks/doctor/{task}/{token}",
            right.replace("-", "%2D"),
            f"{right}?query=secret",
            f"http://receiver{right}",
            f"http://other.example{right}?query=secret",
            f"{right}//",
            f"{right}%20",
            f"{right}/%20?query=secret",
            f"{right}%2520",
            f"{right}%3Fquery=secret",
            f"{right}&query=secret",
            f"{right}%20x",
            f"//callbacks//kling//{task}//{token}",
            "/callbacks/kling/",
        )
        at = self.random.randrange(len(paths) + 4)
        methods = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")
        yield self._callback(
            task,
            target=paths[at] if at < len(paths) else right,
            method="POST" if at < len(paths) + 2 else self.random.choice(methods),
            headers=[
                self.random.choice(OTHER_TYPES) if at in (len(paths), len(paths) + 1) else JSON
            ],
        )
        yield self._callback(self._task())

    def _routes(self) -> Iterator[Request]:
        for _ in range(self.random.choice((1, 2, 3))):
            method = self.random.choice(("GET", "GET", "GET", "HEAD", "OPTIONS", "POST"))
            allowed = self.random.random() < 0.6
            headers = [f"Authorization: Bearer {API_TOKEN}"] if allowed else []
            yield self._request(method, self.random.choice(ROUTES), headers)
        sent = self.random.choice((b"{", b"[]", b"{}", b'{"provider": "nobody"}'))
        headers = [f"Authorization: Bearer {API_TOKEN}", self.random.choice((JSON, *OTHER_TYPES))]
        yield self._request("POST", "/api/tasks", headers, sent)

    # -- parts of requests

    def _task(self) -> str:
        self._made.tasks.append(f"{self._prefix}-{len(self._made.tasks)}")
        return self._made.tasks[-1]

    def _callback(
        self,
        task: str | None = None,
        sent: bytes | None = None,
        *,
        provider: str = "kling",
        target: str | None = None,
        method: str = "POST",
        headers: Sequence[str] | None = None,
    ) -> Request:
        task = task or self._task()
        sent = self._body(task) if sent is None else sent
        if headers is None:
            count = self.random.choice((0, 1, 3))
            headers = [*self.random.sample(HEADERS, count), JSON, *self._signature(sent)]
        target = target or f"/callbacks/{provider}/{task}/{mint(SECRET, provider, task)}"
        return self._request(method, target, headers, sent)

    def _request(
        self, method: str, target: str, headers: Sequence[str], sent: bytes | None = None
    ) -> Request:
        lines = [f"{method} {target} HTTP/1.1", "Host: receiver", *headers]
        if sent is None:
            raw = b""
        elif self.random.random() < 0.2:
            lines.append("Transfer-Encoding: chunked")
            raw = self._chunks(sent)
        else:
            lines.append(f"Content-Length: {len(sent)}")
            raw = sent
        if self.random.random() < 0.05 and "Connection: keep-alive" not in headers:
            lines.append("Connection: close")
        return Request(method, "\r\n".join([*lines, "", ""]).encode("latin-1") + raw)

    def _chunks(self, sent: bytes) -> bytes:
        size = max(self.random.choice((7, 100, 9_000)), len(sent) // 100)
        extension = self.random.choice((b"", b"", b";a=b", b";" + b"e" * 200))
        trailers = self.random.choice((b"", b"", b"X-Sum: 1\r\n", b"X-A: 1\r\nX-B: 2\r\n"))
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        chunks = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
        return b"".join([*chunks, b"0", extension, b"\r\n", trailers, b"\r\n"])

    def _signature(self, sent: bytes) -> list[str]:
        how = self.random.choice(("none",) * 6 + ("right", "wrong", "old"))
        if how == "none":
            return []
        signed_at = self._now - (4_000 if how == "old" else 0)
        signature = sign(WEBHOOK_SECRET, "m", signed_at, sent + b"x" * (how == "wrong"))
        return [
            "webhook-id: m",
            f"webhook-timestamp: {signed_at}",
            f"Webhook-Signature: {signature}",
        ]

    def _body(self, task: str) -> bytes:
        status = self.random.choice(STATUSES)
        more = self.random.choice(({}, {}, {"new": [1, {"x": None}]}, {"task_status_msg": "試着"}))
        if self.random.random() < 0.7:
            return body(status, f"at-{task}", **more)
        new = {"id": f"at-{task}", "status": status.replace("succeed", "succeeded"), **more}
        return json.dumps(new, ensure_ascii=False).encode()

    def _odd_body(self, task: str) -> bytes:
        good = body("succeed", f"at-{task}")
        start = good[:-1]
        bodies = (
            b"",
            good[: len(good) // 2],
            good + b"}",
            good[:5] + b"\0" + good[5:],
            start + b', "text": "\\ud800"}',
            start + b', "big": ' + b"9" * 5_000 + b"}",
            start + b', "big": 1e999, "none": NaN}',
            start + b', "text": "\xff\xfe"}',
            start + b', "updated_at": 99999999999999999999}',
            start + b', "task_status": "failed"}',
            b'{"a":' * 5_000,
            b"\xef\xbb\xbf" + good,
            good.decode().encode("utf-16"),
            b"null",
            b"[" + good + b"]",
            b'{"not": "the protocol"}',
            b"a=b&c=d",
            self._long(start, 32 * 1024),
            self._long(start, 32 * 1024 + 1),
            self._long(start, 256 * 1024),
            self._long(start, 256 * 1024 + 1),
        )
        return self.random.choice(bodies)

    def _long(self, start: bytes, size: int) -> bytes:
        return start + b', "pad": "' + b"x" * (size - len(start) - 12) + b'"}'
