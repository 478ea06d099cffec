"""Does a callback get in? Sends one through PUBLIC_URL, and says where it broke.

It goes from this machine: what only a stranger's way meets (a firewall, another DNS) is not seen.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import ssl
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests.adapters

from receiver.config.settings import Settings
from receiver.doctor.findings import Finding, failed, ok, warning
from receiver.errors import DeliveryFailure, StoreError
from receiver.outgoing import http
from receiver.outgoing.deadline import Deadline
from receiver.outgoing.http import Response
from receiver.outgoing.ssrf_guard import is_public
from receiver.signing import callback_urls
from receiver.stores import Store
from receiver.stores.sql.activity import Rejection

CHECK = "public URL"
WITHIN = 15.0  # seconds, for the way there, and again for the answer
NOTED_WITHIN = 5.0  # seconds after which the web process has written down whom it refused
REFUSALS_READ = 200
BODY = {"test": "receiver doctor", "padding": "x" * 2000}  # as large as a real callback
PONG = b"pong"
PORTS = {"http": 80, "https": 443}
PROXY_FOUND_NOBODY = frozenset({502, 503, 504})


class Broke(Exception):
    """The way in ends here."""

    def __init__(self, where: str, said: str, todo: str) -> None:
        super().__init__(f"broke at {where}: {said}")
        self.todo = todo


def check(settings: Settings, store: Store | None) -> Finding:
    """Whether a callback gets in; `store` tells more where the receiver itself refused it."""
    if settings.public_url is None:
        said = "PUBLIC_URL is not set: no provider can call back, the poller asks instead"
        return warning(CHECK, said, "set it to the address under which this machine is reached")
    if not settings.callback_secrets:
        said = "there is no callback secret yet, so no callback URL can be tried"
        return warning(CHECK, said, "run: receiver migrate")
    nonce = secrets.token_hex(8)
    url = callback_urls.callback_url(
        settings.public_url, settings.callback_secrets[0], callback_urls.DOCTOR, nonce
    )
    try:
        address = _way(urlsplit(url))
        began_at = time.monotonic()
        _judge(_answer(url), url, nonce, store)
    except Broke as broke:
        return failed(CHECK, str(broke), broke.todo)
    return _through(settings.public_url, address, time.monotonic() - began_at)


def _way(url: SplitResult) -> str:
    """Look up the name, connect, and speak TLS; the address that was reached. Raises Broke."""
    host, port = url.hostname or "", url.port or PORTS[url.scheme]
    with Deadline(WITHIN) as clock:
        _look_up(clock, host, port)
        with _connected(clock, host, port) as connection:
            address = str(connection.getpeername()[0])
            if url.scheme == "https":
                _speak_tls(connection, host)
    return address


def _look_up(clock: Deadline, host: str, port: int) -> None:
    try:
        clock.run(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, ValueError) as error:
        said = f"the name {host} cannot be resolved{_because(error)}"
        raise Broke("DNS", said, "add a DNS record for it, or correct PUBLIC_URL") from None


def _connected(clock: Deadline, host: str, port: int) -> socket.socket:
    try:
        return clock.connect(host, port)
    except (OSError, ValueError) as error:
        todo = (
            "start the proxy or receiver serve, open the firewall, forward the port; if this "
            "machine cannot reach its own public address, try from elsewhere: curl -X POST URL"
        )
        said = f"nothing answers at {host} port {port}{_because(error)}"
        raise Broke("TCP", said, todo) from None


def _speak_tls(connection: socket.socket, host: str) -> None:
    context = ssl.create_default_context(cafile=requests.adapters.DEFAULT_CA_BUNDLE_PATH)
    try:
        context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        todo = "install a certificate for this name, with its chain, that others trust"
        raise Broke("TLS", f"the certificate: {error.verify_message}", todo) from None
    except (OSError, ValueError) as error:
        todo = "does the proxy speak TLS at this port? PUBLIC_URL says https"
        raise Broke("TLS", f"no handshake with {host}{_because(error)}", todo) from None


def _answer(url: str) -> Response:
    try:
        return http.post(url, json=BODY, deadline=WITHIN, allow_private=True)
    except DeliveryFailure as failure:
        todo = "the connection is taken, and nothing is answered: look at the proxy's log"
        raise Broke("the proxy", str(failure), todo) from None


def _judge(answer: Response, url: str, nonce: str, store: Store | None) -> None:
    """Raises Broke unless the receiver got it."""
    status, origin = answer.status, http.origin(url)
    if status == HTTPStatus.OK and answer.body.strip() == PONG:
        return
    told = f"{origin} answered {status}"
    if _is_ours(answer):
        raise _refused(answer, told, nonce, store)
    if status in http.REDIRECTS:
        target = http.origin(str(answer.headers.get("Location") or ""))
        todo = "set PUBLIC_URL to where it redirects to: providers follow no redirect"
        raise Broke("the proxy", f"{told}, a redirect to {target}", todo)
    if status in PROXY_FOUND_NOBODY:
        todo = "is receiver serve running, and does the proxy send to its address and port?"
        raise Broke("the proxy", f"{told}: it found nobody behind it", todo)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        todo = "let the proxy pass POST below /callbacks/ without a login"
        raise Broke("the proxy", f"{told}: it wants a login, or forbids it", todo)
    todo = "something else is served there: correct PUBLIC_URL, or where the proxy sends this path"
    raise Broke("the path", f"{told}, which is not the receiver's answer", todo)


def _refused(answer: Response, told: str, nonce: str, store: Store | None) -> Broke:
    """Where a refusal of a receiver comes from: ours has written down what it was asked."""
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return Broke("the limit", f"{told}: too many refusals", "try again in some minutes")
    if answer.status != HTTPStatus.NOT_FOUND:
        return Broke("the receiver", told, "see receiver rejections, and the log of web")
    found = _noted(nonce, store)
    if found is None:
        todo = "see receiver rejections there; PUBLIC_URL may lead to another installation"
        return Broke("the path or the token", f"{told}: a receiver that is not this one", todo)
    if found.reason.startswith("wrong token"):
        todo = "give web and this command the same CALLBACK_SECRETS"
        return Broke("the token", f"{told}: {found.reason}", todo)
    todo = "let the proxy pass the path on as it is, or put what it strips into PUBLIC_URL"
    return Broke("the path", f"{told}: the receiver was asked for {found.path}", todo)


def _noted(nonce: str, store: Store | None) -> Rejection | None:
    """What our receiver wrote down of this request."""
    ends_at = time.monotonic() + NOTED_WITHIN
    while store is not None and time.monotonic() < ends_at:
        try:
            found = store.activity.rejections(REFUSALS_READ)
        except StoreError:
            return None
        mine = next((refusal for refusal in found if nonce in refusal.path), None)
        if mine is not None:
            return mine
        time.sleep(0.2)
    return None


def _is_ours(answer: Response) -> bool:
    """Is it in the form in which a receiver refuses?"""
    kind: Any = answer.headers.get("Content-Type") or ""
    return str(kind).startswith("application/problem+json")


def _through(public_url: str, address: str, took: float) -> Finding:
    told = f"pong through {http.origin(public_url)} after {took * 1000:.0f} ms"
    if not is_public(ipaddress.ip_address(address.partition("%")[0])):
        said = f"{told}, but {address} is not a public address: providers cannot reach it"
        return warning(CHECK, said, "fine for the sandbox; else use an address of the internet")
    if public_url.startswith("http:"):
        said = f"{told}, unencrypted: whoever listens learns the tokens"
        return warning(CHECK, said, "put a TLS proxy in front, and write https in PUBLIC_URL")
    return ok(CHECK, told)


def _because(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f" within {WITHIN:g} s"
    text = getattr(error, "strerror", None) or getattr(error, "reason", None)
    return f" ({text})" if text else ""
