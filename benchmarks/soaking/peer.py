"""Frames, one connection of the load, and what all of them share."""

import array
import asyncio
import base64
import collections
import contextlib
import random
import socket
import struct
import time

from .server import SUBPROTOCOLS

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "Peer", "World", "frame"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def _mask(payload: bytes, key: bytes) -> bytes:
    n = len(payload)
    wide = int.from_bytes((key * (n // 4 + 1))[:n], "little")
    return (int.from_bytes(payload, "little") ^ wide).to_bytes(n, "little")


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """Make one frame of a client; with rsv or without a mask it is a wrong one."""
    first, bit, n = (0x80 if fin else 0) | rsv << 4 | opcode, 0x80 if masked else 0, len(payload)
    if n < 126:
        head = bytes((first, bit | n))
    elif n < 65536:
        head = struct.pack("!BBH", first, bit | 126, n)
    else:
        head = struct.pack("!BBQ", first, bit | 127, n)
    if not masked:
        return head + payload
    key = random.randbytes(4)
    return head + key + _mask(payload, key)


class Peer(asyncio.Protocol):
    """One connection of the load: parses what comes, answers pings and closes, checks echoes against `pending`."""

    def __init__(self, world: "World", kind: str) -> None:
        self.world = world
        self.kind = kind
        self.transport: asyncio.Transport | None = None
        self.upgraded: asyncio.Future[bool] = world.loop.create_future()
        self.closed: asyncio.Future[None] = world.loop.create_future()
        self.drained: asyncio.Future[None] | None = None  # awaited while there is too much to write
        self.emptied: asyncio.Future[None] | None = None  # awaited until all echoes are here
        self.pending: collections.deque[tuple[int, bytes, float]] = collections.deque()
        self.close_code: int | None = None
        self.received = 0
        self.pongs = 0
        self.answering = True
        self.expected = 0  # of a flood: so many messages are to come back
        self._buffer = bytearray()
        self._opcode = 0
        self._message = bytearray()
        self._can_write = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.upgraded, self.closed, self.drained, self.emptied):
            if future is not None and not future.done():
                future.set_result(None)  # type: ignore[arg-type]

    def pause_writing(self) -> None:
        self._can_write = False

    def resume_writing(self) -> None:
        self._can_write = True
        if self.drained is not None and not self.drained.done():
            self.drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.upgraded.done():
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.upgraded.set_result(self._buffer.startswith(b"HTTP/1.1 101"))
            del self._buffer[: end + 4]
        self._parse()

    def _parse(self) -> None:
        buffer, at, size = self._buffer, 0, len(self._buffer)
        while size - at >= 2:
            length, start = buffer[at + 1], at + 2
            if length == 126:
                start += 2
                if size < start:
                    break
                length = int.from_bytes(buffer[at + 2 : start], "big")
            elif length == 127:
                start += 8
                if size < start:
                    break
                length = int.from_bytes(buffer[at + 2 : start], "big")
            elif length > 127:
                self.world.fail(f"{self.kind}: a masked frame from the server")
                self.abort()
                return
            if size < start + length:
                break
            first = buffer[at]
            self._frame(first >> 7, first & 15, bytes(buffer[start : start + length]))
            at = start + length
        del buffer[:at]

    def _frame(self, fin: int, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            if self.answering:
                self.write(frame(PONG, payload))
        elif opcode == PONG:
            self.pongs += 1
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            self.write(frame(CLOSE, payload))
        else:
            if opcode:
                self._opcode, self._message = opcode, bytearray()
            self._message += payload
            if fin:
                self._echo(self._opcode, bytes(self._message))
                self._message = bytearray()

    def _echo(self, opcode: int, payload: bytes) -> None:
        self.received += 1
        if self.kind in ("half-open", "misbehaving"):
            if self.received == self.expected and self.emptied is not None and not self.emptied.done():
                self.emptied.set_result(None)
            return
        if not self.pending:
            self.world.fail(f"{self.kind}: an echo of nothing that was sent")
            return
        sent_opcode, sent, at = self.pending.popleft()
        if (sent_opcode, sent) != (opcode, payload):
            what = f"sent opcode {sent_opcode}, {len(sent)} bytes, got opcode {opcode}, {len(payload)} bytes"
            self.world.differs(self.kind, what)
        self.world.received[self.kind] += 1
        if self.kind == "chatty":
            self.world.latencies.append(time.perf_counter() - at)
        if not self.pending and self.emptied is not None and not self.emptied.done():
            self.emptied.set_result(None)

    def write(self, data: bytes) -> None:
        """Write bytes, unless the connection is gone."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    async def upgrade(self) -> bool:
        """Do a right handshake; whether it was accepted, a failure noted otherwise."""
        self.write(self.world.request())
        await asyncio.wait([self.upgraded], timeout=30)
        if self.upgraded.done() and self.upgraded.result():
            return True
        self.world.fail(f"{self.kind}: the handshake {'was refused' if self.upgraded.done() else 'was not answered'}")
        self.abort()
        return False

    async def drain(self) -> None:
        """Wait while the transport holds too much."""
        if not self._can_write and not self.closed.done():
            self.drained = self.world.loop.create_future()
            await self.drained

    def send(self, opcode: int, payload: bytes, pieces: int = 1) -> None:
        """Send a message and note it, in one frame or in several."""
        self.pending.append((opcode, payload, time.perf_counter()))
        self.world.sent[self.kind] += 1
        if pieces == 1:
            self.write(frame(opcode, payload))
            return
        step = len(payload) // pieces + 1
        parts = [payload[i : i + step] for i in range(0, len(payload), step)] or [b""]
        last = len(parts) - 1
        for i, part in enumerate(parts):
            self.write(frame(opcode if i == 0 else 0, part, fin=i == last))

    async def all_back(self, seconds: float) -> bool:
        """Wait for every echo; whether all came."""
        if self.pending and not self.closed.done():
            self.emptied = self.world.loop.create_future()
            await asyncio.wait([self.emptied], timeout=seconds)
        return not self.pending

    async def flood_back(self, seconds: float) -> bool:
        """Wait until `expected` messages came back; whether they did."""
        if self.received < self.expected and not self.closed.done():
            self.emptied = self.world.loop.create_future()
            await asyncio.wait([self.emptied], timeout=seconds)
        return self.received == self.expected

    async def gone(self, seconds: float) -> bool:
        """Wait for the end of the connection; whether it came."""
        if not self.closed.done():
            await asyncio.wait([self.closed], timeout=seconds)
        return self.closed.done()

    def abort(self) -> None:
        """Drop the connection."""
        if self.transport is not None:
            self.transport.abort()

    def reset(self) -> None:
        """Drop the connection with a reset."""
        if self.transport is not None and not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


REQUEST = (
    "GET /soak HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
)


class World:
    """What the peers share: where the server is, counts, failures, the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.loop = loop
        self.port = port
        self.stopping = asyncio.Event()
        self.sent: collections.Counter[str] = collections.Counter()
        self.received: collections.Counter[str] = collections.Counter()
        self.events: collections.Counter[str] = collections.Counter()
        self.failures: collections.Counter[str] = collections.Counter()
        self.latencies = array.array("d")
        self.open: collections.Counter[str] = collections.Counter()
        self.dialling = asyncio.Semaphore(100)  # a listening socket's backlog is short
        self.rate = 1.0  # messages per second of one chatty peer

    def fail(self, text: str) -> None:
        """Note a failure; equal ones are counted."""
        self.failures[text] += 1

    def differs(self, kind: str, what: str) -> None:
        """Note an echo that is wrong: after a lost one all that follow are, so only the first is told in full."""
        text = f"{kind}: an echo is not what was sent"
        if not self.failures[text]:
            self.fail(f"{kind}: the first such: {what}")
        self.fail(text)

    async def pause(self, seconds: float) -> bool:
        """Sleep; whether to go on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
        return not self.stopping.is_set()

    def request(self) -> bytes:
        """Make a request that is right."""
        key = base64.b64encode(random.randbytes(16)).decode()
        return REQUEST.format(port=self.port, key=key, subprotocol=random.choice(SUBPROTOCOLS)).encode()

    async def dial(self, kind: str, receive_buffer: int | None = None) -> Peer:
        """Connect, without a handshake."""
        async with self.dialling:
            sock = socket.socket()
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if receive_buffer is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                # Many source addresses: one has only 28,000 ports, each kept for a minute after its connection.
                sock.bind((f"127.0.0.{random.randint(2, 250)}", 0))
                async with asyncio.timeout(30):
                    await self.loop.sock_connect(sock, ("127.0.0.1", self.port))
                    _, peer = await self.loop.create_connection(lambda: Peer(self, kind), sock=sock)
            except BaseException:
                sock.close()
                raise
            return peer

    async def join(self, kind: str, receive_buffer: int | None = None) -> Peer | None:
        """Connect and upgrade; None and a failure noted when that does not work."""
        try:
            peer = await self.dial(kind, receive_buffer)
        except OSError as exc:
            self.fail(f"{kind}: could not connect: {exc}")
            return None
        return peer if await peer.upgrade() else None
