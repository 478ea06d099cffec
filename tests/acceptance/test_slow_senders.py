"""Who sends slowly waits alone: honest callbacks."""

from __future__ import annotations

import time

import pytest
import requests

from receiver.signing import mint
from tests.support.installation import Installation
from tests.support.samples import SECRET, body
from tests.support.slow_senders import dripping

MANY = 200
JSON = {"Content-Type": "application/json"}


def path(task: str) -> str:
    return f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"


def head(where: str, *more: str) -> bytes:
    lines = [f"POST {where} HTTP/1.1", "Host: receiver", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, "", ""]).encode()


RIGHT, WRONG = path("slow"), path("slow")[:-5] + "AAAAA"
ATTACKS = {
    "nothing at all": b"",
    "half a head": head(RIGHT)[:-2] + b"X-Slow: ",
    "a wrong token": head(WRONG, "Content-Length: 5000"),
    "a right token": head(RIGHT, "Content-Length: 5000"),
    "a right token, in chunks": head(RIGHT, "Transfer-Encoding: chunked") + b"1000\r\n",
    "chunks without end": head(RIGHT, "Transfer-Encoding: chunked") + b"1;",
    "trailers without end": head(RIGHT, "Transfer-Encoding: chunked") + b"0\r\nX-Slow: ",
    "a body too long": head(RIGHT, "Content-Length: 500000"),
    "a picture, without the API's token": head("/api/tasks", "Content-Length: 5000000"),
    "a welcome": head(RIGHT, "Content-Length: 5000", "Expect: 100-continue"),
    "no method": head("/nowhere", "Content-Length: 5000"),
    "a second request": head("/healthz").replace(b"POST", b"GET") + head(RIGHT)[:-2],
}


def honest(installation: Installation, count: int) -> float:
    """Seconds the slowest of these callbacks took; each comes by a connection of its own."""
    slowest = 0.0
    for number in range(count):
        began = time.monotonic()
        url = installation.url + path(f"honest-{number}")
        answer = requests.post(url, data=body(), headers=JSON, timeout=30)
        assert answer.status_code == 200
        slowest = max(slowest, time.monotonic() - began)
    return slowest


@pytest.fixture
def web(installation: Installation) -> Installation:
    installation.start_web()
    installation.wait_until_ready()
    return installation


def test_honest_callbacks_do_not_wait_for_slow_senders(web: Installation) -> None:
    for kind, start in ATTACKS.items():
        with dripping(web.port, [start], MANY):
            time.sleep(0.3)
            assert honest(web, 5) < 5, kind


def test_a_stop_does_not_wait_for_slow_senders(web: Installation) -> None:
    with dripping(web.port, list(ATTACKS.values()), MANY):
        assert honest(web, 5) < 5
        began = time.monotonic()
        assert web.stop("web") == 0
        assert time.monotonic() - began < 15


def test_more_senders_than_places_do_not_keep_an_honest_one_out(web: Installation) -> None:
    """The places of both processes are taken, twice over; who waits longest makes room."""
    with dripping(web.port, list(ATTACKS.values()), 2_200):
        assert honest(web, 5) < 10
