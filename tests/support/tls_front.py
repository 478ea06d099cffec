"""A server that terminates TLS and passes the bytes on, for clients that refuse plain HTTP."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.clean_venv import ROOT
from tests.support.patience import PATIENCE

CHUNK = 64 * 1024


@contextmanager
def tls_front(upstream: int) -> Iterator[int]:
    """Yield the port at which TLS is accepted for the server at the port `upstream`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = ROOT / "tests/data/tls"
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accept = threading.Thread(target=_accept, args=(listening, context, upstream), daemon=True)
        accept.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        accept.join(PATIENCE)


def _accept(listening: socket.socket, context: ssl.SSLContext, upstream: int) -> None:
    with suppress(OSError):  # at the end, it is shut down
        while True:
            plain, _ = listening.accept()
            threading.Thread(target=_relay, args=(plain, context, upstream), daemon=True).start()


def _relay(plain: socket.socket, context: ssl.SSLContext, upstream: int) -> None:
    """Pass one request on, and its response back: the server closes each connection."""
    with (
        suppress(OSError),
        context.wrap_socket(plain, server_side=True) as client,
        socket.create_connection(("127.0.0.1", upstream), PATIENCE) as server,
    ):
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join(PATIENCE)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
