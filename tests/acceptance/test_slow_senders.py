"""Clients that send slowly keep no honest callback waiting, and no stop.

The web process gives slow clients unlimited time here. So an honest callback that had to wait for
one of them would never be answered.
"""

from __future__ import annotations

import requests

from receiver.signing import mint
from tests.support.installation import Installation
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body
from tests.support.slow_senders import SlowSenders, slow_senders

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


def honest_callbacks_are_answered(installation: Installation, senders: SlowSenders) -> None:
    """Each comes on a connection of its own, and the slow senders send a byte in between."""
    for number in range(5):
        url = installation.url + path(f"honest-{number}")
        answer = requests.post(url, data=body(), headers=JSON, timeout=PATIENCE)
        assert answer.status_code == 200
        senders.send_a_byte()


def start_web(installation: Installation, *more: str) -> None:
    installation.start_web("tests.support.apps.unlimited_arrival:app", *more)
    installation.wait_until_ready()


def test_honest_callbacks_do_not_wait_for_slow_senders(installation: Installation) -> None:
    start_web(installation)
    for start in ATTACKS.values():
        with slow_senders(installation.port, [start], MANY) as senders:
            honest_callbacks_are_answered(installation, senders)


def test_a_stop_does_not_wait_for_slow_senders(installation: Installation) -> None:
    """Its own limit is far away: the slow senders are closed long before it."""
    start_web(installation, "--graceful-timeout", "1000000")
    with slow_senders(installation.port, list(ATTACKS.values()), MANY) as senders:
        honest_callbacks_are_answered(installation, senders)
        assert installation.stop("web") == 0


def test_more_senders_than_places_do_not_keep_an_honest_one_out(
    installation: Installation,
) -> None:
    """The places of both processes are taken, twice over; who waits longest makes room."""
    start_web(installation)
    with slow_senders(installation.port, list(ATTACKS.values()), 2_200) as senders:
        honest_callbacks_are_answered(installation, senders)
