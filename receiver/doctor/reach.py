"""Checks whether callbacks arrive: sends one through PUBLIC_URL, and reports where it failed.

The request comes from this machine, so a problem that only other networks have, such as a firewall
or different DNS records, is not detected.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
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
WITHIN = 15.0  # seconds for the connection, and again for the response
NOTED_WITHIN = 5.0  # seconds after which the web process has stored a rejection
REJECTIONS_READ = 200
BODY = {"test": "receiver doctor", "padding": "x" * 2000}  # as long as a real callback
PONG = b"pong"
PORTS = {"http": 80, "https": 443}
NO_UPSTREAM = frozenset({502, 503, 504})  # a proxy found no server behind it


class Unreachable(Exception):
    """The callback did not arrive; the message says at which step, and `todo` what to do."""

    def __init__(self, step: str, problem: str, todo: str) -> None:
        super().__init__(f"broke at {step}: {problem}")
        self.todo = todo


def check(settings: Settings, store: Store | None) -> Finding:
    """Check whether a callback arrives; with a store, the reason of a rejection is known."""
    if settings.public_url is None:
        problem = "PUBLIC_URL is not set: no provider can call back, and the poller queries instead"
        return warning(
            CHECK, problem, "set it to the address at which providers reach this machine"
        )
    if not settings.callback_secrets:
        problem = "there is no callback secret yet, so no callback URL can be checked"
        return warning(CHECK, problem, "run: receiver migrate")
    nonce = secrets.token_hex(8)
    url = callback_urls.callback_url(
        settings.public_url, settings.callback_secrets[0], callback_urls.DOCTOR, nonce
    )
    try:
        address = _connect(urlsplit(url))
        started_at = time.monotonic()
        _check_response(_post(url), url, nonce, store)
    except Unreachable as error:
        return failed(CHECK, str(error), error.todo)
    return _success(settings.public_url, address, time.monotonic() - started_at)


def _connect(url: SplitResult) -> str:
    """Resolve the name, connect, and start TLS; return the address. Raises Unreachable."""
    host, port = url.hostname or "", url.port or PORTS[url.scheme]
    with Deadline(WITHIN) as deadline:
        todo = "add a DNS record for it, or correct PUBLIC_URL"
        with _step("DNS", f"the name {host} cannot be resolved", todo):
            deadline.run(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        todo = (
            "start the proxy or receiver serve, open the firewall, forward the port; if this "
            "machine cannot reach its own public address, try from elsewhere: curl -X POST URL"
        )
        with _step("TCP", f"nothing answers at {host} port {port}", todo):
            connection = deadline.connect(host, port)
        with connection:
            address = str(connection.getpeername()[0])
            if url.scheme == "https":
                _start_tls(connection, host)
    return address


@contextmanager
def _step(step: str, problem: str, todo: str) -> Iterator[None]:
    """Raise Unreachable, with the reason, if the block cannot use the network."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise Unreachable(step, f"{problem}{_reason(error)}", todo) from None


def _start_tls(connection: socket.socket, host: str) -> None:
    context = ssl.create_default_context(cafile=requests.adapters.DEFAULT_CA_BUNDLE_PATH)
    todo = "let the proxy accept TLS at this port, because PUBLIC_URL begins with https"
    with _step("TLS", f"no handshake with {host}", todo):
        try:
            context.wrap_socket(connection, server_hostname=host).close()
        except ssl.SSLCertVerificationError as error:
            todo = "install a certificate for this name, with its chain, that others trust"
            raise Unreachable("TLS", f"the certificate: {error.verify_message}", todo) from None


def _post(url: str) -> Response:
    try:
        return http.post(url, json=BODY, deadline=WITHIN, allow_private=True)
    except DeliveryFailure as failure:
        todo = "the connection is accepted, but there is no response: look at the proxy's log"
        raise Unreachable("the proxy", str(failure), todo) from None


def _check_response(response: Response, url: str, nonce: str, store: Store | None) -> None:
    """Raise Unreachable unless the receiver has answered."""
    status, origin = response.status, http.origin(url)
    if status == HTTPStatus.OK and response.body.strip() == PONG:
        return
    answered = f"{origin} answered {status}"
    if str(response.headers.get("Content-Type")).startswith("application/problem+json"):
        raise _rejected(response, answered, nonce, store)  # only the receiver answers like this
    if status in http.REDIRECTS:
        target = http.origin(str(response.headers.get("Location") or ""))
        todo = "set PUBLIC_URL to the target of the redirect, because providers do not follow it"
        raise Unreachable("the proxy", f"{answered}, a redirect to {target}", todo)
    if status in NO_UPSTREAM:
        todo = "start receiver serve, and let the proxy send requests to its address and port"
        raise Unreachable("the proxy", f"{answered}: it found no server behind it", todo)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        todo = "let the proxy pass POST below /callbacks/ without a login"
        raise Unreachable("the proxy", f"{answered}: a login is required, or it is forbidden", todo)
    todo = "another program answers: correct PUBLIC_URL, or where the proxy sends this path"
    raise Unreachable("the path", f"{answered}, which is not a response of the receiver", todo)


def _rejected(response: Response, answered: str, nonce: str, store: Store | None) -> Unreachable:
    """Return why a receiver rejected the request; our own has stored the rejection."""
    if response.status == HTTPStatus.TOO_MANY_REQUESTS:
        return Unreachable("the limit", f"{answered}: too many rejections", "retry in a minute")
    if response.status != HTTPStatus.NOT_FOUND:
        return Unreachable("the receiver", answered, "see receiver rejections, and the log of web")
    rejection = _stored_rejection(nonce, store)
    if rejection is None:
        todo = "see receiver rejections there; PUBLIC_URL may lead to another installation"
        problem = f"{answered}: a receiver that is not this one"
        return Unreachable("the path or the token", problem, todo)
    if rejection.reason.startswith("wrong token"):
        todo = "give web and this command the same CALLBACK_SECRETS"
        return Unreachable("the token", f"{answered}: {rejection.reason}", todo)
    todo = "let the proxy pass the path unchanged, or add to PUBLIC_URL the part that it removes"
    problem = f"{answered}: the receiver received the path {rejection.path}"
    return Unreachable("the path", problem, todo)


def _stored_rejection(nonce: str, store: Store | None) -> Rejection | None:
    """Return the rejection that our receiver stored for this request, if there is one."""
    ends_at = time.monotonic() + NOTED_WITHIN
    while store is not None and time.monotonic() < ends_at:
        try:
            for rejection in store.activity.rejections(REJECTIONS_READ):
                if nonce in rejection.path:
                    return rejection
        except StoreError:
            return None
        time.sleep(0.2)
    return None


def _success(public_url: str, address: str, seconds: float) -> Finding:
    text = f"pong through {http.origin(public_url)} after {seconds * 1000:.0f} ms"
    if not is_public(ipaddress.ip_address(address.partition("%")[0])):
        problem = f"{text}, but {address} is not public, so providers cannot reach it"
        return warning(CHECK, problem, "use a public address, unless you only use the sandbox")
    if public_url.startswith("http:"):
        problem = f"{text}, but unencrypted: the tokens can be read in transit"
        return warning(CHECK, problem, "put a TLS proxy in front, and write https in PUBLIC_URL")
    return ok(CHECK, text)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f" within {WITHIN:g} s"
    text = getattr(error, "strerror", None) or getattr(error, "reason", None)
    return f" ({text})" if text else ""
