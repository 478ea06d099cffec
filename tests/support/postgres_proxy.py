"""A proxy between a client, such as a store, and its server: counts round trips, causes faults."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Between:
    """Listens on `port` (or on any free port) and forwards to the server.

    `count`: how often the store waited for the server. `is_silent`: no response of the server is
    forwarded. `cuts_behind`: after the store has sent this, the connection ends without a response.
    `server_port`: where the next connection goes. `pause`: seconds between bytes of the server.
    """

    def __init__(self, port: int, listen_on: int = 0) -> None:
        self.server_port = port
        self._listening = socket.create_server(("127.0.0.1", listen_on))
        self.port: int = self._listening.getsockname()[1]
        self.count = 0
        self.is_silent = threading.Event()
        self.pause = 0.0
        self.clients: list[socket.socket] = []
        self.cuts_behind: bytes | None = None
        self._said_last = ""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def cut(self) -> None:
        """End all connections."""
        for client in self.clients:
            with suppress(OSError):  # the connection has ended
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.clients.append(client)
                server = socket.create_connection(("127.0.0.1", self.server_port))
                for source, sink, name in ((client, server, "store"), (server, client, "server")):
                    work = (source, sink, name)
                    threading.Thread(target=self._pass_on, args=work, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, name: str) -> None:
        with source, sink:
            with suppress(OSError):
                self._copy(source, sink, name)
            for one in (source, sink):  # closing alone would not wake a thread that reads from it
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _drip(self, data: bytes, sink: socket.socket) -> None:
        never = threading.Event()
        for byte in data:
            sink.sendall(bytes([byte]))
            never.wait(self.pause)

    def _copy(self, source: socket.socket, sink: socket.socket, name: str) -> None:
        while data := source.recv(65_536):
            self.count += name == "store" and self._said_last != name
            self._said_last = name
            if name == "server" and self.is_silent.is_set():
                continue
            is_last = name == "store" and self.cuts_behind and self.cuts_behind in data
            if is_last:
                source.shutdown(socket.SHUT_RDWR)
            if name == "server" and self.pause:
                self._drip(data, sink)
            else:
                sink.sendall(data)
            if is_last:
                return
