"""Look for leaks: memory and file descriptors over many messages, and over connections dropped at every stage.

``python -m tests.leaks`` sends 1,000,000 messages in each form, and opens and drops 50,000 connections at each stage of
their life; `tests/test_leaks.py` does it with fewer. Before each part, a tenth of it warms up what is kept on purpose
(caches, free lists). Afterwards `tracemalloc`, which sees what Python's allocators gave away, the resident memory,
which sees all, and the open file descriptors must be where they were.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import logging
import os
import resource
import socket
import ssl
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

if __package__:
    sys.path.insert(0, os.path.dirname(__file__))

from certificates import make_certificates
from shared import echo

import wsfast
from wsfast.codec import encode_frame

STAGES = (
    "before request",
    "mid-request",
    "after 101",
    "mid-frame",
    "mid-message",
    "unread replies",
    "after Close",
    "TLS",
)
FORMS = ("messages", "callbacks", "stream")
BATCH = 100
AT_ONCE = 20
WARM_UP = 40
MASK = b"\x37\xfa\x21\x3d"
# What a part may grow by: noise, and for each item less than the smallest object has.
SLACK = 96 * 1024
RSS_SLACK = 16 * 1024 * 1024


class Reading(NamedTuple):
    """What is held."""

    traced: int
    resident: int
    files: int


class Echo(wsfast.Listener):
    """Sends back each message."""

    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


async def echo_stream(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
    """Send back what comes."""
    while data := await reader.read():
        await writer.write(data)
        await writer.flush()


def request(form: str, *, compressed: bool = False) -> bytes:
    """Build the request of a client."""
    lines = [
        "GET / HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {form}",
    ]
    if compressed:
        lines.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    return "\r\n".join([*lines, "", ""]).encode()


def read() -> Reading:
    """Read what is held, without what is garbage."""
    gc.collect()
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Reading(tracemalloc.get_traced_memory()[0], pages * resource.getpagesize(), len(os.listdir("/proc/self/fd")))


class Leaks:
    """The parts of the run.

    Args:
        messages: how many messages, in each form.
        connections: how many connections, at each stage.
        contexts: TLS contexts of the server and of the client.
        only: the parts to run, of `FORMS` and `STAGES`; default all.
    """

    def __init__(
        self,
        messages: int,
        connections: int,
        contexts: tuple[ssl.SSLContext, ssl.SSLContext],
        only: Sequence[str] = (*FORMS, *STAGES),
    ) -> None:
        self.only = only
        self.messages = messages
        self.connections = connections
        self.contexts = contexts
        self.failures: list[str] = []

    async def run(self) -> None:
        """Run all parts; what leaked is in `failures`."""
        self.loop = asyncio.get_running_loop()
        started_here = not tracemalloc.is_tracing()
        if started_here:
            tracemalloc.start(1)
        logger = logging.getLogger("wsfast.server")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        options = {"compression": "deflate", "ping_interval": None}
        server = wsfast.Server(**options)  # type: ignore[arg-type]
        server.register_handler("messages", echo)
        server.register_listener("callbacks", Echo)
        server.register_stream_handler("stream", echo_stream)
        try:
            async with server:
                await server.start("127.0.0.1", 0)
                await server.start("127.0.0.1", 0, ssl=self.contexts[0])
                self.server = server
                self.address, self.tls_address = (sock.getsockname() for sock in server.sockets)
                # From the first connection of its own on, here a client's, uvloop keeps a spare descriptor.
                _, writer = await asyncio.open_connection(*self.address)
                writer.close()
                await writer.wait_closed()
                await self.settled()
                before = read()
                for form in [form for form in FORMS if form in self.only]:
                    for large in (False, True):
                        part = f"{'large ' if large else ''}messages to {form}"
                        count = self.messages // 100 if large else self.messages
                        await self.measure(part, count, partial(self.send_messages, form, large=large))
                for stage in [stage for stage in STAGES if stage in self.only]:
                    await self.measure(stage, self.connections, partial(self.drop_connections, stage))
                files = read().files
                if files != before.files:
                    self.failures.append(f"{files} file descriptors are open, {before.files} were at the start")
        finally:
            # Other tests of the same process look at what is logged.
            logger.setLevel(level)
            if started_here:
                tracemalloc.stop()

    async def measure(self, name: str, count: int, part: Callable[[int], Awaitable[None]]) -> None:
        """Run a part and compare what is held before and afterwards."""
        await part(max(count // 10, WARM_UP))
        await self.settled()
        before = read()
        began = time.monotonic()
        await part(count)
        took = time.monotonic() - began
        await self.settled()
        after = read()
        traced, resident = after.traced - before.traced, after.resident - before.resident
        leaked = []
        if traced > SLACK + count // 2:
            leaked.append(f"{traced} bytes of Python objects")
        if resident > RSS_SLACK + 2 * count:
            leaked.append(f"{resident} bytes of resident memory")
        if after.files != before.files:
            leaked.append(f"{after.files - before.files} file descriptors")
        print(
            f"{name:26} {count:9,} in {took:6.1f} s   traced {traced:+9,} B   resident {resident // 1024:+7,} KiB   "
            f"files {before.files} -> {after.files}   {'LEAK' if leaked else 'ok'}",
            flush=True,
        )
        self.failures += [f"{name}: {what}" for what in leaked]

    async def settled(self) -> None:
        """Wait until the server has forgotten all connections."""
        for _ in range(1000):
            counters = self.server.counters
            if not counters["connections"] and not counters["handshakes"]:
                break
            await asyncio.sleep(0.01)
        else:
            raise RuntimeError(f"connections are never forgotten: {self.server.counters}")
        await asyncio.sleep(0.02)
        if wsfast.IMPLEMENTATION == "cython":
            importlib.import_module("wsfast._codec")._drop_spares()

    # --- Messages

    async def send_messages(self, form: str, count: int, large: bool) -> None:
        """Send messages on one connection and read as many bytes as must come back."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(request(form))
        await reader.readuntil(b"\r\n\r\n")
        bodies = [bytes(20000)] * 10 if large else [b"x" * (n % 200) for n in range(BATCH)]
        frames = b"".join(
            encode_frame(2, part, mask=MASK) if n % 4 else encode_frame(1, part.decode(), mask=MASK)
            for n, part in enumerate(bodies)
        )
        # A stream has no borders of messages to count: there a byte is as good as a message.
        size = sum(len(encode_frame(2, part)) for part in bodies)
        payload = sum(map(len, bodies))
        for _ in range(max(1, count // len(bodies))):
            writer.write(frames)
            if form == "stream":
                got = 0
                while got < payload:
                    head = await reader.readexactly(2)
                    length = head[1] & 127
                    if length > 125:
                        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
                    await reader.readexactly(length)
                    got += length
            else:
                await reader.readexactly(size)
        writer.write(encode_frame(8, b"\x03\xe8", mask=MASK))
        await reader.read()
        writer.close()
        await writer.wait_closed()

    # --- Connections

    async def drop_connections(self, stage: str, count: int) -> None:
        """Open connections and drop them at a stage, some at once."""
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                if stage == "TLS":
                    await self.drop_tls(number)
                else:
                    await self.drop_plain(stage, number)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def drop_plain(self, stage: str, number: int) -> None:
        """Open a connection and drop it at a stage, now with a FIN, now with a reset."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if number & 1:
                # A reset; it also leaves no port in TIME_WAIT.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif sys.platform == "linux":
                sock.bind((f"127.0.0.{2 + number // 2 % 200}", 0))
            await self.loop.sock_connect(sock, self.address)
            if stage == "before request":
                return
            form = FORMS[number % 3]
            asked = request(form, compressed=number % 5 == 0)
            if stage == "mid-request":
                await self.loop.sock_sendall(sock, asked[: 20 + number % (len(asked) - 21)])
                return
            await self.loop.sock_sendall(sock, asked)
            got = b""
            while not got.endswith(b"\r\n\r\n"):
                part = await self.loop.sock_recv(sock, 4096)
                if not part:
                    raise RuntimeError(f"refused: {got!r}")
                got += part
            frame = encode_frame(2, bytes(1000 if number % 7 else 20000), mask=MASK)
            if stage == "mid-frame":
                await self.loop.sock_sendall(sock, frame[: 1 + number % 500 if number & 2 else 5000])
            elif stage == "mid-message":
                sent = encode_frame(1, "begun", fin=False, mask=MASK) + encode_frame(9, b"ping", mask=MASK)
                await self.loop.sock_sendall(sock, sent)
                if number & 2:
                    await self.loop.sock_recv(sock, 4096)
            elif stage == "unread replies":
                await self.loop.sock_sendall(sock, frame * 5)
            elif stage == "after Close":
                await self.loop.sock_sendall(sock, frame[:1] + b"\x80" + MASK + encode_frame(8, b"\x03\xe8", mask=MASK))
                if number & 2:
                    while await self.loop.sock_recv(sock, 4096):
                        pass
        finally:
            sock.close()

    async def drop_tls(self, number: int) -> None:
        """Open a TLS connection and drop it within its handshake, after it, or when it is a WebSocket."""
        if number % 4 == 0:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await self.loop.sock_connect(sock, self.tls_address)
                if number & 4:
                    await self.loop.sock_sendall(sock, b"\x16\x03\x01\x02\x00\x01\x00")  # the start of a ClientHello
            finally:
                sock.close()
            return
        reader, writer = await asyncio.open_connection(*self.tls_address, ssl=self.contexts[1])
        if number % 4 > 1:
            writer.write(request(FORMS[number % 3], compressed=number % 5 == 0))
            await reader.readuntil(b"\r\n\r\n")
        if number % 4 == 3:
            writer.write(encode_frame(1, "begun", fin=False, mask=MASK))
        if number & 8:
            writer.transport.abort()
        else:
            writer.close()
        with contextlib.suppress(OSError):  # ssl.SSLError is one
            await writer.wait_closed()


def make_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make TLS contexts of a server and of a client that trusts it."""
    with tempfile.TemporaryDirectory() as directory:
        made = make_certificates(Path(directory))
        server = made.server_context()
        # OpenSSL keeps up to 20,480 sessions for those who come again; that is no leak, but looks like one.
        server.num_tickets = 0
        return server, made.client_context()


def main() -> None:
    """Run everything; the exit status is 1 if something leaked."""
    parser = argparse.ArgumentParser(prog="python -m tests.leaks", description="Look for leaks.")
    parser.add_argument("--messages", type=int, default=1_000_000, help="in each form (default: 1,000,000)")
    parser.add_argument("--connections", type=int, default=50_000, help="at each stage (default: 50,000)")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop instead of asyncio's loop")
    parser.add_argument("--only", nargs="+", choices=[*FORMS, *STAGES], help="the parts to run (default: all)")
    args = parser.parse_args()
    leaks = Leaks(args.messages, args.connections, make_contexts(), args.only or (*FORMS, *STAGES))
    if args.uvloop:
        import uvloop

        uvloop.run(leaks.run())
    else:
        asyncio.run(leaks.run())
    for failure in leaks.failures:
        print(f"LEAK: {failure}")
    print("leaks found" if leaks.failures else "no leaks found")
    sys.exit(1 if leaks.failures else 0)


if __name__ == "__main__":
    main()
