"""A peer that does as it is told, however wrong, and a server that must not make a sound about it.

`Peer` is a bare socket: nothing is read that a test does not read, so it can stall, flood, drip and drop.
`serving` runs a server and fails the test if anything reached the event loop's exception handler or the logger of
asyncio, or if wsfast logged more than INFO without being told that it may.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from shared import SLOWNESS, echo, stream_echo

import wsfast

TEXT, BINARY, CLOSE, PING, PONG, CONT = 1, 2, 8, 9, 10, 0
PATIENCE = 5.0 * SLOWNESS  # seconds that anything in these tests may take at most


def head(subprotocol: str | None = None, *extra: str) -> bytes:
    """Make an opening handshake that is right."""
    lines = [
        "GET / HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *([f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []),
        *extra,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\0\0\0\0"
) -> bytes:
    """Make a frame; the mask of zeros keeps the payload readable and is as good as any."""
    first = (0x80 if fin else 0) | rsv | opcode
    flag = 0 if mask is None else 0x80
    size = len(payload)
    if size < 126:
        start = struct.pack("!BB", first, flag | size)
    elif size < 65536:
        start = struct.pack("!BBH", first, flag | 126, size)
    else:
        start = struct.pack("!BBQ", first, flag | 127, size)
    if mask is None:
        return start + payload
    if any(mask):
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return start + mask + payload


def close_frame(code: int | None = 1000, reason: str = "") -> bytes:
    """Make a Close frame."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode())


class Peer:
    """The client's end of a connection, as a bare socket; `serving` closes it at last."""

    dialled: ClassVar[list[Peer]] = []

    def __init__(self, sock: socket.socket) -> None:
        self.dialled.append(self)
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.buffer = b""
        self.response = b""
        self.unsent = b""
        self.fin = False

    @classmethod
    async def dial(cls, server: wsfast.Server, *, buffers: int | None = None) -> Peer:
        """Connect, and send nothing."""
        address = server.sockets[0].getsockname()
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffers is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        await asyncio.get_running_loop().sock_connect(sock, address[:2])
        return cls(sock)

    @classmethod
    async def open(
        cls, server: wsfast.Server, subprotocol: str | None = None, *extra: str, buffers: int | None = None
    ) -> Peer:
        """Connect, and finish the opening handshake."""
        peer = await cls.dial(server, buffers=buffers)
        await peer.send(head(subprotocol, *extra))
        await peer.read_response()
        assert peer.response.startswith(b"HTTP/1.1 101 "), peer.response
        return peer

    async def read_response(self) -> bytes:
        """Read the head of the server's response; what follows stays in `buffer`."""
        while b"\r\n\r\n" not in self.buffer:
            await self._more()
        self.response, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return self.response

    async def _more(self) -> None:
        async with asyncio.timeout(PATIENCE):
            data = await self.loop.sock_recv(self.sock, 262144)
        if not data:
            raise EOFError
        self.buffer += data

    async def send(self, *data: bytes) -> None:
        """Send bytes, as they are."""
        async with asyncio.timeout(4 * PATIENCE):
            await self.loop.sock_sendall(self.sock, b"".join(data))

    def send_what_goes(self, data: bytes, most: int = 1 << 40) -> int:
        """Send bytes over and over until the socket takes no more; return how many it took."""
        sent = 0
        with suppress(BlockingIOError):
            while sent < most:
                sent += self.sock.send(data)
        return sent

    async def read(self) -> tuple[int, bytes]:
        """Read a frame: its opcode and its payload; `fin` has its flag. `EOFError` at the end."""
        while True:
            if len(self.buffer) >= 2:
                size, at = self.buffer[1] & 0x7F, 2
                assert not self.buffer[1] & 0x80, "a server must not mask"
                if size == 126 and len(self.buffer) >= 4:
                    size, at = int.from_bytes(self.buffer[2:4], "big"), 4
                elif size == 127 and len(self.buffer) >= 10:
                    size, at = int.from_bytes(self.buffer[2:10], "big"), 10
                if (size < 126 or at > 2) and len(self.buffer) >= at + size:
                    opcode, payload = self.buffer[0] & 15, self.buffer[at : at + size]
                    self.fin = self.buffer[0] > 127
                    self.buffer = self.buffer[at + size :]
                    return opcode, payload
            await self._more()

    async def read_close(self) -> tuple[int, str]:
        """Read on to the Close frame, and then to the end; return the code, 1006 without one, and the reason."""
        result = 1006, ""
        with suppress(EOFError, ConnectionError):
            while True:
                opcode, payload = await self.read()
                if opcode == CLOSE:
                    result = int.from_bytes(payload[:2], "big") if payload else 1005, payload[2:].decode()
                    break
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
            while True:
                await self._more()
        return result

    async def read_to_end(self) -> bytes:
        """Read all that comes until the end."""
        with suppress(EOFError, ConnectionError):
            while True:
                await self._more()
        return self.buffer

    async def answered(self, message: bytes = b"?") -> None:
        """Wait until an echo server has dealt with all that was sent before."""
        await self.send(frame(BINARY, message))
        while await self.read() != (BINARY, message):
            pass

    def close(self) -> None:
        """End the connection with a FIN, or with a reset if something is unread."""
        self.sock.close()

    def reset(self) -> None:
        """End the connection with a reset."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Records(logging.Handler):
    """What was logged, but for what asyncio tells in its debug mode of each connection and process, and of time."""

    def __init__(self) -> None:
        super().__init__(0)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        told = record.levelno <= logging.INFO or " took " in record.getMessage()
        if record.name != "asyncio" or not told:
            self.records.append(record)

    def of(self, name: str, level: int = 0) -> list[str]:
        """Return the lines of a logger at or above a level."""
        return [record.getMessage() for record in self.records if record.name == name and record.levelno >= level]


@contextmanager
def records() -> Any:
    """Gather what wsfast and asyncio log."""
    held = Records()
    loggers = [logging.getLogger(name) for name in ("wsfast", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(held)
        logger.setLevel(logging.DEBUG)
    try:
        yield held
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(held)
            logger.setLevel(level)


@asynccontextmanager
async def serving(
    handler: Any, *, noise: bool = False, ssl: Any = None, buffers: int | None = None, **options: Any
) -> AsyncIterator[Any]:
    """Run a server; `server.log` has the records.

    Args:
        handler: a handler of any form, or a mapping of subprotocols to such.
        noise: it may log warnings and errors.
        ssl: its context.
        buffers: bytes that the system holds for each connection, in each direction, about; default what it likes.
        options: those of `Server`.
    """
    loop = asyncio.get_running_loop()
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    options.setdefault("stop_timeout", 0.5)  # many tests leave a peer that does not answer
    server: Any = wsfast.Server(**options)
    for name, one in (handler if isinstance(handler, dict) else {None: handler}).items():
        if isinstance(one, type):
            server.register_listener(name, one)
        elif len(inspect.signature(one).parameters) == 2:
            server.register_stream_handler(name, one)
        else:
            server.register_handler(name, one)
    with records() as held:
        try:
            async with server:
                sock = socket.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if buffers is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers // 2)  # Linux doubles it
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers // 2)
                sock.bind(("127.0.0.1", 0))
                await server.start(sock=sock, ssl=ssl)
                server.log = held
                yield server
                for peer in Peer.dialled:
                    peer.close()
        finally:
            loop.set_exception_handler(None)
            while Peer.dialled:
                Peer.dialled.pop().close()
    assert not unhandled, unhandled
    assert not held.of("asyncio")
    if not noise:
        assert not held.of("wsfast.server", logging.WARNING)
        assert not [record for record in held.records if record.exc_info]


class Echo(wsfast.Listener):
    """Answer each message with itself."""

    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


FORMS: dict[str | None, Any] = {None: echo, "listener": Echo, "stream": stream_echo}


async def flood(peer: Peer, server: wsfast.Server, data: bytes, total: int) -> int:
    """Send the same bytes over and over until `total`, or until no byte gets through for a while; return how many."""
    sent = 0
    last = time.monotonic()
    at = -len(peer.unsent) % len(data)
    while sent < total and time.monotonic() - last < 0.15 * SLOWNESS and server.counters["connections"]:
        try:
            n = peer.sock.send(data[at:])
        except BlockingIOError:
            n = 0
        if n:
            at = (at + n) % len(data)
            sent += n
            last = time.monotonic()
        await asyncio.sleep(0)
    peer.unsent = data[at:] if at else b""
    return sent


def memory() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a certificate for localhost; return a server's and a client's context."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    client = ssl.create_default_context(cafile=str(cert))
    return server, client
