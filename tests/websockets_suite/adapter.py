"""What websockets' tests of connections build on its inside, on wsfast's instead.

They record the frames that one side receives, and keep bytes that it sends back, by subclasses of the sans-IO protocol
and by a transport in between. The same is done here by a protocol and a transport in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import trio
from websockets.asyncio.connection import Connection
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol
from websockets.sync.connection import Connection as SyncConnection
from websockets.sync.server import Server as SyncServer
from websockets.trio.connection import Connection as TrioConnection

from wsfast import encode_frame
from wsfast.sync.link import Link
from wsfast.trio.stream import Transport


class RecordingProtocol(Protocol):
    """Keeps the frames that came."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._buffer = bytearray()
        self._frames: list[Frame] = []

    def get_frames_rcvd(self) -> list[Frame]:
        """Return the frames since the last call."""
        frames, self._frames = self._frames, []
        return frames

    def record(self, data: bytes) -> None:
        """Take the bytes that came."""
        self._buffer += data
        while (frame := self._take()) is not None:
            self._frames.append(frame)

    def _take(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[:2]
        size, start = second & 127, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big")
        key = bytes(4)
        if second & 128:
            key = bytes(buffer[start : start + 4])
            start += 4
        if len(buffer) < start + size:
            return None
        data = bytes(byte ^ key[i % 4] for i, byte in enumerate(buffer[start : start + size]))
        del buffer[: start + size]
        bits = bool(first & 64), bool(first & 32), bool(first & 16)
        return Frame(Opcode(first & 15), data, bool(first & 128), *bits)


class Tap(asyncio.BufferedProtocol):
    """Shows what a protocol receives to a `RecordingProtocol`."""

    def __init__(self, protocol: Any, recorder: RecordingProtocol) -> None:
        self._protocol = protocol
        self._recorder = recorder
        self._view = memoryview(b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def get_buffer(self, sizehint: int) -> Any:
        buffer = self._protocol.get_buffer(sizehint)
        self._view = memoryview(buffer).cast("B")
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._view[:nbytes])
        self._view = memoryview(b"")
        self._recorder.record(data)
        self._protocol.buffer_updated(nbytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def eof_received(self) -> Any:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class InterceptingAsyncioTransport:
    """Keeps back or drops what is sent."""

    def __init__(self, transport: Any, recorder: RecordingProtocol) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport = transport
        self.recorder = recorder
        self.delay_write: float | None = None
        self.delay_write_eof: float | None = None
        self.drop_write = False
        self.drop_write_eof = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def set_protocol(self, protocol: Any) -> None:
        self.transport.set_protocol(Tap(protocol, self.recorder))

    def write(self, data: Any) -> None:
        if self.delay_write is not None:
            self.loop.call_later(self.delay_write, self.transport.write, bytes(data))
        elif not self.drop_write:
            self.transport.write(data)

    def write_eof(self) -> None:
        if self.delay_write_eof is not None:
            self.loop.call_later(self.delay_write_eof, self.transport.write_eof)
        elif not self.drop_write_eof:
            self.transport.write_eof()

    def close(self) -> None:
        if self.delay_write_eof is not None:
            self.loop.call_later(self.delay_write_eof, self.transport.close)
        elif not self.drop_write_eof:
            self.transport.close()


class InterceptingConnection(Connection):
    """A connection whose frames can be kept back or dropped on their way out."""

    _between: InterceptingAsyncioTransport

    async def send(self, message: Any, *, text: bool | None = None, compress: bool | None = None) -> None:
        if text and isinstance(message, bytes):
            try:
                message.decode()
            except UnicodeDecodeError:
                # wsfast does not send such text; here it is what a bad peer sends.
                mask = os.urandom(4) if self.protocol.side is CLIENT else None
                self._between.write(encode_frame(Opcode.TEXT, message, mask=mask))
                return
        await super().send(message, text=text, compress=compress)

    def connection_made(self, transport: Any) -> None:
        self._between = InterceptingAsyncioTransport(transport, self.protocol)  # type: ignore[arg-type]
        super().connection_made(self._between)

    @contextlib.contextmanager
    def _setting(self, name: str, value: Any) -> Iterator[None]:
        before = getattr(self._between, name)
        setattr(self._between, name, value)
        try:
            yield
        finally:
            setattr(self._between, name, before)

    def delay_frames_sent(self, delay: float) -> contextlib.AbstractContextManager[None]:
        return self._setting("delay_write", delay)

    def delay_eof_sent(self, delay: float) -> contextlib.AbstractContextManager[None]:
        return self._setting("delay_write_eof", delay)

    def drop_frames_sent(self) -> contextlib.AbstractContextManager[None]:
        return self._setting("drop_write", True)

    def drop_eof_sent(self) -> contextlib.AbstractContextManager[None]:
        return self._setting("drop_write_eof", True)


class InterceptingLink(Link):
    """A link that keeps back or drops what is sent, and shows what is received to a `RecordingProtocol`."""

    recorder: RecordingProtocol
    delay_write: float | None = None
    delay_eof: float | None = None
    drop_write = False
    drop_eof = False

    def read(self) -> bytes | None:
        data = super().read()
        if data:
            self.recorder.record(data)
        return data

    def write(self, data: bytes) -> None:
        if self.delay_write is not None:
            time.sleep(self.delay_write)
        if not self.drop_write:
            super().write(data)

    def close(self) -> None:
        if not self.drop_eof:
            super().close()

    def _shut_down(self) -> None:
        if self.delay_eof is not None:
            time.sleep(self.delay_eof)
        if not self.drop_eof:
            super()._shut_down()


class InterceptingSyncConnection(SyncConnection):
    """The same in threads."""

    def __init__(self, sock: Any, protocol: Any, **options: Any) -> None:
        link = InterceptingLink(sock)
        link.recorder = protocol
        super().__init__(link, protocol, **options)

    def send(self, message: Any, text: bool | None = None, *, compress: bool | None = None) -> None:
        if text and isinstance(message, bytes):
            try:
                message.decode()
            except UnicodeDecodeError:
                mask = os.urandom(4) if self.protocol.side is CLIENT else None
                self._link.write(encode_frame(Opcode.TEXT, message, mask=mask))
                return
        super().send(message, text, compress=compress)

    @contextlib.contextmanager
    def _setting(self, name: str, value: Any) -> Iterator[None]:
        before = getattr(self._link, name)
        setattr(self._link, name, value)
        try:
            yield
        finally:
            setattr(self._link, name, before)

    def delay_frames_sent(self, delay: float) -> contextlib.AbstractContextManager[None]:
        return self._setting("delay_write", delay)

    def delay_eof_sent(self, delay: float) -> contextlib.AbstractContextManager[None]:
        return self._setting("delay_eof", delay)

    def drop_frames_sent(self) -> contextlib.AbstractContextManager[None]:
        return self._setting("drop_write", True)

    def drop_eof_sent(self) -> contextlib.AbstractContextManager[None]:
        return self._setting("drop_eof", True)


class InterceptingTransport(Transport):
    """A trio transport that keeps back or drops what is sent, and shows what is received to a `RecordingProtocol`."""

    recorder: RecordingProtocol
    delay_write: float | None = None
    delay_eof: float | None = None
    drop_write = False
    drop_eof = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await super().receive_some(max_bytes)
        self.recorder.record(bytes(data))
        return data

    async def send_all(self, data: Any) -> None:
        if self.delay_write is not None:
            await trio.sleep(self.delay_write)
        if not self.drop_write:
            await super().send_all(data)

    async def aclose(self) -> None:
        if self.delay_eof is not None:
            await trio.sleep(self.delay_eof)
        if not self.drop_eof:
            await super().aclose()


class InterceptingTrioConnection(TrioConnection):
    """The same on trio."""

    def __init__(self, nursery: Any, stream: Any, protocol: Any, **options: Any) -> None:
        super().__init__(nursery, stream, protocol, **options)
        link = InterceptingTransport(stream)
        link.recorder = protocol
        self._between = self._transport = self._stream = link

    async def send(self, message: Any, text: bool | None = None, *, compress: bool | None = None) -> None:
        if text and isinstance(message, bytes):
            try:
                message.decode()
            except UnicodeDecodeError:
                mask = os.urandom(4) if self.protocol.side is CLIENT else None
                await self._stream.send_all(encode_frame(Opcode.TEXT, message, mask=mask))
                return
        await super().send(message, text, compress=compress)

    @contextlib.contextmanager
    def _setting(self, name: str, value: Any) -> Iterator[None]:
        before = getattr(self._between, name)
        setattr(self._between, name, value)
        try:
            yield
        finally:
            setattr(self._between, name, before)

    def delay_frames_sent(self, delay: float) -> contextlib.AbstractContextManager[None]:
        return self._setting("delay_write", delay)

    def delay_eof_sent(self, delay: float) -> contextlib.AbstractContextManager[None]:
        return self._setting("delay_eof", delay)

    def drop_frames_sent(self) -> contextlib.AbstractContextManager[None]:
        return self._setting("drop_write", True)

    def drop_eof_sent(self) -> contextlib.AbstractContextManager[None]:
        return self._setting("drop_eof", True)


def start_keepalive(self: Any) -> None:
    """Begin to ping, by the times that are set on the connection now; it has none if it is made without a handshake."""
    asynchronous = isinstance(self, Connection)
    session = self._channel.session if asynchronous else self._session
    session.limits = dataclasses.replace(
        session.limits, ping_interval=self.ping_interval, ping_timeout=self.ping_timeout
    )
    now = trio.current_time() if isinstance(self, TrioConnection) else time.monotonic()
    session._ping_at = None if self.ping_interval is None else now + self.ping_interval
    if asynchronous:
        self._channel._schedule()
    elif isinstance(self, SyncConnection):
        self._link.wake()
    else:
        self._reschedule()


class Keepalive:
    """What stands for the task, or the thread, of keepalive."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def done(self) -> bool:
        return not self.is_alive()

    def is_alive(self) -> bool:
        return self._session._ping_at is not None

    def join(self, timeout: float) -> None:
        time.sleep(timeout)


def keepalive_of(self: Any) -> Keepalive | None:
    """Return what stands for the task of keepalive."""
    if self.ping_interval is None:
        return None
    return Keepalive(self._channel.session if isinstance(self, Connection) else self._session)


def same_pings(first: Any, second: Any) -> Any:
    """Return the frames that came, with the data of pings as the tests expect it: they set what is random."""
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for came, expected in zip(first, second, strict=True):
            if getattr(expected, "data", None) == b"rand" and came.opcode is Opcode.PING and len(came.data) == 4:
                came.data = b"rand"
    return first


def join_pieces(first: Any, second: Any) -> tuple[Any, Any]:
    """Join pieces of `recv_streaming`, which follow the stream as it arrives, not the frames."""
    for kind in (str, bytes):
        if all(isinstance(one, list) and one and {*map(type, one)} == {kind} for one in (first, second)):
            return kind().join(first), kind().join(second)
    return first, second


def soften_sync(module: Any) -> None:
    """Let tests of connections in threads pass where only the cut of a message in pieces is another."""
    tests = module.ClientConnectionTests
    equal = tests.assertEqual

    def assert_equal(self: Any, first: Any, second: Any, msg: Any = None) -> None:
        equal(self, *join_pieces(same_pings(first, second), second), msg)

    tests.assertEqual = assert_equal
    if hasattr(tests, "keepalive_task_is_running"):
        tests.keepalive_task_is_running = lambda self: self.connection._session._ping_at is not None
    for kind in (SyncConnection, TrioConnection):
        kind.start_keepalive = start_keepalive  # type: ignore[attr-defined]
        kind.keepalive_thread = property(keepalive_of)  # type: ignore[attr-defined]


class _SocketClosed:
    """`socket_closed` of `websockets`' server in threads: whether nothing is accepted any more."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def is_set(self) -> bool:
        return not self._server.sockets

    def wait(self) -> None:
        while self._server.sockets:
            time.sleep(0.001)


SyncServer.socket_closed = property(_SocketClosed)  # type: ignore[assignment]
SyncServer.SHUTDOWN_POLLING_INTERVAL = 0.1


def soften(module: Any) -> None:
    """Let tests of connections pass where only the loop's turn or the cut of a message in pieces is another."""
    tests = module.ClientConnectionTests
    equal = tests.assertEqual

    async def wait_for_remote_side(self: Any) -> None:
        # wsfast writes at the end of the turn, not by the call.
        for _ in range(6):
            await asyncio.sleep(0)

    def assert_equal(self: Any, first: Any, second: Any, msg: Any = None) -> None:
        equal(self, *join_pieces(same_pings(first, second), second), msg)

    within = tests.test_recv_streaming_cancellation_while_receiving

    async def in_more_turns(self: Any) -> None:
        sleep = asyncio.sleep

        async def longer(delay: float, result: Any = None) -> Any:
            for _ in range(6):
                await sleep(0)
            return await sleep(delay, result)

        with mock.patch.object(asyncio, "sleep", longer):
            await within(self)

    tests.test_recv_streaming_cancellation_while_receiving = in_more_turns
    Connection.start_keepalive = start_keepalive  # type: ignore[attr-defined]
    Connection.keepalive_task = property(keepalive_of)  # type: ignore[attr-defined]
    tests.wait_for_remote_side = wait_for_remote_side
    tests.assertEqual = assert_equal
    Connection.pause_writing = lambda self: self._channel.pause_writing()  # type: ignore[attr-defined]
    Connection.resume_writing = lambda self: self._channel.resume_writing()  # type: ignore[attr-defined]
