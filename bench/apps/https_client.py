"""Sends POST requests over HTTPS, one after the other, and prints what each one cost.

Usage: https_client.py KIND URL ROOTS SECONDS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

BODY = b'{"id":"0199f1a2:succeeded","data":"' + b"a" * 1500 + b'"}'
HEADERS = {
    "Content-Type": "application/json",
    "webhook-id": "0199f1a2:succeeded",
    "webhook-timestamp": "1765519850",
    "webhook-signature": "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
}
WARM_UPS = 20
DEADLINE = 15.0  # seconds


def _requests(url: str, roots: str) -> Callable[[], object]:
    import requests  # noqa: PLC0415 - each peer has an environment of its own

    session = requests.Session()
    return lambda: (
        session.post(url, data=BODY, headers=HEADERS, timeout=DEADLINE, verify=roots).content
    )


def _httpx(url: str, roots: str) -> Callable[[], object]:
    import ssl  # noqa: PLC0415

    import httpx  # noqa: PLC0415

    client = httpx.Client(verify=ssl.create_default_context(cafile=roots), timeout=DEADLINE)
    return lambda: client.post(url, content=BODY, headers=HEADERS).content


def _attempt(url: str, roots: str) -> Callable[[], object]:
    import requests.adapters  # noqa: PLC0415

    from receiver.outgoing import http  # noqa: PLC0415

    requests.adapters.DEFAULT_CA_BUNDLE_PATH = roots
    return lambda: http.post(
        url, data=BODY, headers=HEADERS, deadline=DEADLINE, allow_private=True, max_bytes=2048
    )


def _create(url: str, roots: str) -> Callable[[], object]:
    import requests.adapters  # noqa: PLC0415

    from submitter.client import Client  # noqa: PLC0415

    requests.adapters.DEFAULT_CA_BUNDLE_PATH = roots
    client = Client(url)
    return lambda: client.create("", HEADERS, {"image": "a" * 1500})


def _new_sessions(url: str, roots: str) -> Callable[[], object]:
    import requests  # noqa: PLC0415

    return lambda: (
        requests.post(url, data=BODY, headers=HEADERS, timeout=DEADLINE, verify=roots).content
    )


KINDS = {
    "requests": _requests,
    "httpx": _httpx,
    "attempt": _attempt,
    "create": _create,
    "new": _new_sessions,
}


def main() -> None:
    kind, url, roots, seconds = sys.argv[1:]
    send = KINDS[kind](url, roots)
    for _ in range(WARM_UPS):
        send()
    cpu, began, took = time.process_time(), time.perf_counter(), list[float]()
    while time.perf_counter() - began < float(seconds):
        at = time.perf_counter()
        send()
        took.append(time.perf_counter() - at)
    print(json.dumps({"cpu_s": time.process_time() - cpu, "took_s": took}))


if __name__ == "__main__":
    main()
