"""Secrets are sent in every possible place; none of them is found in a log, response or row."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from receiver.signing.callback_urls import mint
from receiver.signing.standard_webhooks import sign
from receiver.text.display import HIDDEN
from receiver.text.limits import MAX_REJECTED_AT_ONCE
from tests.support.installation import ROOT, Installation
from tests.support.patience import PATIENCE
from tests.support.samples import body

SECRETS = ("canary-first-callback-secret", "canary-second-callback-secret")
API = "canary-token-of-the-api"
WEBHOOK = "whsec_" + base64.b64encode(b"canary-webhook-secret-of-kling").decode()
TOKENS = [mint(secret, "kling", task) for secret in SECRETS for task in ("t", "u")]
WRONG = TOKENS[0][:20] + "CanaryCanary0CanaryCanar"[:23]
SIGNATURE = sign(WEBHOOK, "m", 1_765_519_848, body())
MEDIA = "https://cdn.example/0.png?Expires=1765519848&Signature=canary-media"
CANARIES = [
    *SECRETS,
    API,
    WEBHOOK,
    WEBHOOK[6:],
    *TOKENS,
    WRONG,
    WRONG[-20:],
    "canary",
    SIGNATURE[3:],
]
CANARIES += [token[:24] for token in TOKENS]
REFUSED = ("wrong token", "too old", "unknown path", "TLS", "is incomplete", "not HTTP, or")
RIGHT = f"/callbacks/kling/t/{TOKENS[0]}"
BAIT = {
    "Authorization": "Bearer canary-of-a-stranger",
    "Proxy-Authorization": "Basic Y2FuYXJ5OmNhbmFyeQcanary",
    "Cookie": "session=canary-session; other=canary",
    "webhook-id": "m",
    "webhook-timestamp": "1765519848",
    "webhook-signature": SIGNATURE,
    "X-Original-URI": RIGHT,
    "X-Forwarded-Uri": f"https://shop.example{RIGHT}?a=canary-query",
    "Referer": f"https://shop.example/{RIGHT.replace('/', '%2F')}",
    "X-Api-Key": "canary-key",
    "X-Source": MEDIA,
}


def path(task: str, token: str) -> str:
    return f"/callbacks/kling/{task}/{token}?signature=canary-query&{token}"


def request(where: str, sent: bytes | None = None, method: str = "POST", **more: str) -> bytes:
    """Return a request that contains every secret; `more` replaces headers, with `_` for `-`."""
    sent = body(task_result={"images": [{"url": MEDIA}]}) if sent is None else sent
    headers = {"Host": "receiver", "Content-Type": "application/json", **BAIT}
    headers |= {"Content-Length": str(len(sent)), "Connection": "close"}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([f"{method} {where} HTTP/1.1", *lines, "", ""]).encode() + sent


def requests_of_every_kind() -> Iterator[bytes]:
    unsigned: dict[str, Any] = {"webhook_signature": ""}
    allowed: dict[str, Any] = {"Authorization": f"Bearer {API}"}
    for task, token in zip("tutu", TOKENS, strict=True):
        yield request(path(task, token), **unsigned)
        yield request(path(task, token))  # its signature is too old
        yield request(path(task, token), b'{"url": "%s"' % MEDIA.encode(), **unsigned)
        yield request(path(task, token), b'{"task_id": "canary"}', **unsigned)
        yield request(path(task, token), b"x" * 300_000, **unsigned)
        yield request(path(task, token), Content_Type="text/plain", **unsigned)
        yield request(path(task, token), method="GET")
        yield request(path(task, token), method="PUT")
        yield request(path(task, token), b"canary", Content_Encoding="gzip", **unsigned)
        yield request(path(task, token), Content_Length="9000", **unsigned)
        yield request(path(task, token), Expect="canary")
        yield request(path(task, token), Content_Length="", Transfer_Encoding="canary")
        yield request(
            path(task, token), b"canary\r\n", Content_Length="", Transfer_Encoding="chunked"
        )
        yield request(path(task, token)).replace(b"HTTP/1.1", b"HTTP/9.canary")
        yield request(path(task, token)).replace(b"POST", b"post-canary")
        yield request(path(task, token)).replace(b"Cookie: ", b"Cookie canary ")
        yield request(path(task, token)).replace(b"\r\n", b"\n")
        yield request(path(task, token) + "x" * 5_000)
        yield request(path(task, token), X_Long="canary" * 2_000)
        yield request(path(task, token), X_Long="canary" * 20_000)
        yield b"\x16\x03\x01" + request(path(task, token))
        yield request(f"https://shop.example{path(task, token)}", **unsigned)
    for where in (
        path("t", WRONG),
        path("another", TOKENS[0]),
        f"/callback/kling/t/{TOKENS[0]}",
        f"/callbacks/kling/{TOKENS[0]}",
        f"/callbacks/{TOKENS[0]}",
        f"/{TOKENS[0]}/{WRONG}?a={TOKENS[0]}",
        f"/x/callbacks/kling/t/{TOKENS[0]}",
        f"//callbacks/kling/t/{TOKENS[0]}",
        f"/callbacks/nobody/t/{TOKENS[0]}",
        "/callbacks/kling?a=canary",
    ):
        yield request(where)
        yield request(where, method="OPTIONS")
    yield request("/api/tasks?canary=canary")
    yield request("/api/tasks?limit=canary-limit", method="GET", **allowed)
    yield request("/api/tasks/no-such-task", method="GET", **allowed)
    yield request("/api/tasks", b'{"provider": "kling", "human": "https://canary"}', **allowed)
    yield request("/api/tasks", Content_Type="text/canary", **allowed)
    yield request("/healthz?canary=canary", method="GET")
    yield request("/readyz?canary=canary", method="GET")


def answer(installation: Installation, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", installation.port), PATIENCE) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            return connection.makefile("rb").read()
    return b""


def status_of(answered: bytes) -> int:
    return int(answered.split(b" ", 2)[1]) if answered.startswith(b"HTTP/1.1 ") else 0


def reasons(installation: Installation) -> str:
    """Return the recorded reasons of rejections."""
    return " ".join(rejection.reason for rejection in installation.store.activity.rejections(1_000))


def canaries_in(text: str) -> list[str]:
    return [canary for canary in CANARIES if canary in text]


def test_secrets_in_requests_are_found_nowhere(installation: Installation) -> None:
    installation.environment |= {
        "CALLBACK_SECRETS": ",".join(SECRETS),
        "API_TOKEN": API,
        "KLING_WEBHOOK_SECRETS": WEBHOOK,
        "PYTHONPATH": str(ROOT),
    }
    answers: list[bytes] = []

    def send_everything(app: str) -> None:
        installation.start_web(app)
        installation.wait_until_ready()
        answers.extend(answer(installation, sent) for sent in requests_of_every_kind())

    send_everything("tests.support.apps.unhurried:app")
    wrong = request(path("t", WRONG))
    # There are two processes, each with its own limits.
    answers.extend(answer(installation, wrong) for _ in range(2 * (MAX_REJECTED_AT_ONCE + 2)))
    lock = installation.folder / "receiver.db-lock"
    lock.unlink()
    lock.mkdir()
    answers.append(answer(installation, request(RIGHT, webhook_signature="")))
    lock.rmdir()
    installation.wait_until(lambda: all(kind in reasons(installation) for kind in REFUSED))
    assert installation.stop("web") == 0
    send_everything("tests.support.apps.broken:app")
    assert installation.stop("web") == 0

    expected_statuses = {200, 400, 401, 404, 405, 413, 414, 415, 417, 422, 429, 431, 500, 501, 503}
    assert expected_statuses <= set(map(status_of, answers))
    for answered in answers:
        assert canaries_in(answered.decode("latin-1")) == []

    log = (installation.folder / "web.log").read_text()
    for expected in ("ZeroDivisionError", "a careless line", "Invalid HTTP", '"status": 404'):
        assert expected in log
    assert f"/callbacks/kling/t/{HIDDEN}" in log  # the token in the log line was redacted
    careful = "\n".join(line for line in log.splitlines() if "ZeroDivision" not in line)
    careful = "\n".join(line for line in careful.splitlines() if "a careless line" not in line)
    assert canaries_in(careful) == []
    # If our code logs a whole request by mistake, the last filter redacts the secrets that it
    # knows.
    assert [canary for canary in canaries_in(log) if canary in (*TOKENS, WRONG, API)] == []

    rejections = installation.store.activity.rejections(1_000)
    assert all(kind in reasons(installation) for kind in REFUSED)
    shown = installation.run("receiver", "rejections")
    assert "wrong token" in shown.stdout
    assert canaries_in(repr(rejections) + shown.stdout + shown.stderr) == []

    stored = installation.store.lists.callbacks(limit=1_000)
    assert any(one.callback.headers for one in stored)
    assert canaries_in(repr([one.callback.headers for one in stored])) == []
    assert canaries_in(repr([one.problem for one in stored])) == []
