"""Reads many streams of live events and discards them: `listeners.py PORT TOKEN COUNT`.

Prints a line when all streams have begun, and ends with its input.
"""

from __future__ import annotations

import selectors
import socket
import sys


def main() -> int:
    port, token, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    request = f"GET /api/events HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n"
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), 30)
            connection.sendall(request.encode())
            if not connection.recv(64 * 1024).startswith(b"HTTP/1.1 200"):
                return 1
            selector.register(connection, selectors.EVENT_READ)
        print("listening", flush=True)
        selector.register(sys.stdin, selectors.EVENT_READ)
        received = 0
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    print(received, flush=True)
                    return 0
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(256 * 1024)
                if not data:
                    return 1
                received += data.count(b"\ndata:")


if __name__ == "__main__":
    sys.exit(main())
