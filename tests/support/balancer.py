"""A load balancer in front of several web machines."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from tests.support.patience import PATIENCE


class Balancer:
    """Sends each connection to a machine that accepts it, and passes bytes in both directions."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._turns = itertools.cycle(ports)
        self._ports = len(ports)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Balancer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(PATIENCE)

    def _accept(self) -> None:
        with suppress(OSError):  # the socket is closed at the end
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            for _ in range(self._ports):
                with suppress(ConnectionError):
                    server = socket.create_connection(("127.0.0.1", next(self._turns)), PATIENCE)
                    break
            else:
                return  # no machine accepts the connection
            with server:
                back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
                back.start()
                _pass_on(client, server)
                back.join(PATIENCE)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    source.settimeout(PATIENCE)
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
