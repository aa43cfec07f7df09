"""Servers of `deflate_servers.py`, their load, and what it costs them.

The load is frames that were compressed and masked beforehand, on blocking sockets, and counts the replies by their
heads: it is the same for all. What is compared is the CPU time of the servers' processes, whatever else the
machine does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator

from benchmarks.deflate_cases import PAYLOADS, incoming
from wsfast.codec import encode_frame

__all__ = ["MESSAGES", "Client", "Echo", "Stream", "echo"]

MESSAGES = 200
"""Messages of a stream. The next round begins with a compressor of its own, which every inflater can follow."""

_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)


class Stream:
    """A payload's messages, plain and as the frames that a browser would send."""

    def __init__(self, payload: str, *, takeover: bool = True) -> None:
        self.opcode = 1 if payload == "json" else 2
        self.messages = PAYLOADS[payload](MESSAGES)
        packed = incoming(self.messages, takeover=takeover)
        self.frames = [encode_frame(self.opcode, one, rsv1=True, mask=b"\x12\x34\x56\x78") for one in packed]


class Client:
    """One connection that sends a stream's frames, one after the other, again and again."""

    def __init__(self, port: int, stream: Stream) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = stream
        self._next = 0
        self._rest = b""
        self._socket.sendall(_REQUEST)
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        self.extension = next(
            (
                line.partition(b":")[2].strip().decode()
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"sec-websocket-extensions:")
            ),
            "",
        )
        if not head.startswith(b"HTTP/1.1 101 ") or "permessage-deflate" not in self.extension:
            raise RuntimeError(f"the server does not compress: {head!r}")

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("the server closed the connection")
        self._rest += data

    def send(self) -> None:
        """Send the next frame."""
        self._socket.sendall(self._stream.frames[self._next])
        self._next = (self._next + 1) % MESSAGES

    def receive(self) -> tuple[int, bytes]:
        """Return the first byte and the payload of the next frame that is no Ping."""
        while True:
            while len(self._rest) < 4:
                self._more()
            rest = self._rest
            length, start = rest[1], 2
            if length == 126:
                length, start = int.from_bytes(rest[2:4], "big"), 4
            while len(self._rest) < start + length:
                self._more()
            payload, self._rest = self._rest[start : start + length], self._rest[start + length :]
            if rest[0] & 15 < 8:
                return rest[0], payload

    def check(self) -> float:
        """Send the whole stream, see that it comes back, and return the share of its size that came."""
        inflater = zlib.decompressobj(-15)
        takeover = "server_no_context_takeover" not in self.extension
        size = 0
        for message in self._stream.messages:
            self.send()
            first, payload = self.receive()
            size += len(payload)
            if first & 0x40:
                if not takeover:
                    inflater = zlib.decompressobj(-15)
                payload = inflater.decompress(payload + b"\x00\x00\xff\xff")
            if payload != message or first & 15 != self._stream.opcode:
                raise RuntimeError("the server answers something else than it was sent")
        return size / sum(map(len, self._stream.messages))

    def close(self) -> None:
        """Drop the connection."""
        self._socket.close()


class Echo:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._pid = process.pid
        self.clients: list[Client] = []

    def connect(self, count: int, stream: Stream) -> None:
        """Open connections."""
        self.clients += [Client(self.port, stream) for _ in range(count)]

    @property
    def cpu(self) -> float:
        """Seconds of CPU time that all its threads have used; Linux's clock of the process (clock_getcpuclockid(3))."""
        return time.clock_gettime((~self._pid << 3) | 2)

    @property
    def resident(self) -> int:
        """Bytes of resident memory."""
        with open(f"/proc/{self._pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def run(self, rounds: int) -> float:
        """Send a message on each connection and await the replies, so many times; return CPU seconds a message."""
        start = self.cpu
        for _ in range(rounds):
            for client in self.clients:
                client.send()
            for client in self.clients:
                client.receive()
        return (self.cpu - start) / rounds / len(self.clients)


@contextlib.contextmanager
def echo(peer: str, loop: str) -> Iterator[Echo]:
    """Run one of `deflate_servers.SERVERS` until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.deflate_servers", peer, loop], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    server = None
    try:
        server = Echo(process, int(process.stdout.readline()))
        yield server
    finally:
        for client in () if server is None else server.clients:
            client.close()
        process.kill()
        process.wait()
        process.stdout.close()
