"""A PostgreSQL server that refuses each connection with the error that its database name states.

The name is a SQLSTATE, a space and a message. It runs as a separate program, because the client
library waits for the server without releasing the GIL. It prints its port, and ends when its
standard input is closed.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from contextlib import suppress

SSL_REQUEST = struct.pack(">II", 8, 80_877_103)


def error(code: str, message: str) -> bytes:
    """Return an ErrorResponse of PostgreSQL's protocol."""
    fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": message}
    payload = b"".join(f"{key}{value}".encode() + b"\0" for key, value in fields.items()) + b"\0"
    return b"E" + struct.pack(">I", len(payload) + 4) + payload


def serve(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        packet = connection.recv(4096)
        if packet == SSL_REQUEST:
            connection.sendall(b"N")
            packet = connection.recv(4096)
        parameters = packet[8:].split(b"\0")
        name = parameters[parameters.index(b"database") + 1].decode()
        connection.sendall(error(*name.split(" ", 1)))


def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=listening.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
