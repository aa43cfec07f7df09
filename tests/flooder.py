"""A process that floods a server: ``flooder.py PORT``, the request and what is sent after it on standard input."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress


def main(port: int, request: bytes, data: bytes) -> None:
    """Ask, then send `data` again and again, and read what comes, until the connection ends."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(request)
    while b"\r\n\r\n" not in sock.recv(65536):
        pass
    sock.setblocking(False)
    view = memoryview(data * max(1, 262144 // len(data)))
    at = 0
    while True:
        try:
            at += sock.send(view[at:])
            if at == len(view):
                at = 0
        except BlockingIOError:
            pass
        except OSError:
            return
        with suppress(BlockingIOError):
            if not sock.recv(1 << 20):
                return


if __name__ == "__main__":
    head, end, rest = sys.stdin.buffer.read().partition(b"\r\n\r\n")
    main(int(sys.argv[1]), head + end, rest)
