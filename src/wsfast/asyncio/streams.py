"""The byte-stream view of a connection: a reader and a writer, as if it were a TCP connection."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from ..connection import State
from ..events import BytesLike, Fragment
from ..exceptions import InvalidState
from ..octets import copied
from .channel import PAUSED_HELD

if TYPE_CHECKING:
    from .protocol import ConnectionProtocol
    from .websocket import WebSocket

__all__ = ["Reader", "Writer", "open_streams"]

_FRAGMENT = 65536
"""Bytes written without a flush that are held at most; then they are sent as a fragment."""


class Reader(asyncio.StreamReader):
    """The payloads of the peer's messages, text and binary, as one stream of bytes without boundaries.

    `readexactly`, `readuntil`, `readline`, ``async for`` (lines) and `at_eof` are those of `asyncio.StreamReader`.
    The end is a Close frame with 1000, 1001 or no code; with ``half_close=True`` an empty message is an end too, while
    without it an empty message adds nothing. Any other end raises `ConnectionClosedError` after the last byte, so that
    a stream that was cut off cannot pass for a whole one.
    """

    if TYPE_CHECKING:
        _buffer: bytearray
        _eof: bool

    def __init__(self, channel: ConnectionProtocol, limit: int, *, half_close: bool = False) -> None:
        super().__init__(limit=limit, loop=channel.turn.loop)
        self._channel = channel
        self._half_close = half_close
        self._within = False  # a message, of which a piece has come
        self._error: Exception | None = None

    def feed(self, message: str | bytes | Fragment) -> None:
        """Take a message, or a piece of one, from the connection."""
        data, final = message if isinstance(message, Fragment) else (message, True)
        if self._eof:
            return  # the peer has ended its direction: what it still sends is dropped
        if self._half_close:
            if not data and final and not self._within:
                self.feed_eof()
            self._within = not final
        if data:
            self._channel.owes = True
            self.feed_data(data.encode() if isinstance(data, str) else data)
            if len(self._buffer) > self._channel.high_water:
                self._channel.pause(PAUSED_HELD)

    def end(self) -> None:
        """Note that nothing will follow, since the connection has ended. Without effect if that is known already."""
        if not self._eof:
            connection = self._channel.connection
            self._error = None if connection.closed_ok else connection.closed_error()
            self.feed_eof()

    # `asyncio.StreamReader` calls these two where it needs more, and after it has handed some out; its own
    # backpressure, which has other limits, is not in use because it has no transport.

    async def _wait_for_data(self, func_name: str) -> None:
        self._channel.unpause(PAUSED_HELD)  # else `readexactly` of more than is held would wait for ever
        self._channel.idle()
        if not self._eof:
            await super()._wait_for_data(func_name)  # type: ignore[misc]

    def _maybe_resume_transport(self) -> None:
        if len(self._buffer) * 4 <= self._channel.high_water:
            self._channel.unpause(PAUSED_HELD)

    async def read(self, n: int = -1) -> bytes:
        """Read what has arrived, but at least one byte: wait for it if nothing has.

        Args:
            n: the most bytes to return; -1, the default, for all that has arrived.

        Returns:
            ``b""`` only at the end, or if `n` is 0.

        Raises:
            ConnectionClosedError: the connection ended without a proper close.
        """
        data = await super().read(sys.maxsize if n < 0 else n)
        if not data and n and self._error is not None:
            raise self._error
        return data

    async def readexactly(self, n: int) -> bytes:
        """Read exactly `n` bytes.

        Raises:
            asyncio.IncompleteReadError: the end came before; `partial` has the bytes there were.
            ConnectionClosedError: the connection ended without a proper close, and there were none.
        """
        try:
            return await super().readexactly(n)
        except asyncio.IncompleteReadError as exc:
            raise self._cut_off(exc) from self._error

    async def readuntil(self, separator: bytes = b"\n") -> bytes:  # type: ignore[override]
        """Read up to a separator, and return it too.

        Raises:
            asyncio.IncompleteReadError: the end came before; `partial` has the bytes there were.
            asyncio.LimitOverrunError: there is no separator in the first `read_limit` bytes.
            ConnectionClosedError: the connection ended without a proper close, and no byte was left.
        """
        try:
            return await super().readuntil(separator)
        except asyncio.IncompleteReadError as exc:
            raise self._cut_off(exc) from self._error

    def _cut_off(self, exc: asyncio.IncompleteReadError) -> Exception:
        return exc if exc.partial or self._error is None else self._error


class Writer:
    """The sending half of the stream: what is written between two flushes is one message, however large.

    Args:
        ws: the connection.
        text: send text messages instead of binary ones. Default: False.
        half_close: whether an empty message is the end of a direction. Default: False.
    """

    __slots__ = ("_buffer", "_ended", "_eof_sent", "_half_close", "_size", "_started", "_text", "_ws")

    def __init__(self, ws: WebSocket, *, text: bool = False, half_close: bool = False) -> None:
        self._ws = ws
        self._text = text
        self._half_close = half_close
        self._ended = self._eof_sent = False
        self._buffer: list[bytes] = []
        self._size = 0
        self._started = False

    @property
    def ws(self) -> WebSocket:
        """The connection: for its request, addresses, close code and so on."""
        return self._ws

    async def write(self, data: str | BytesLike) -> None:
        """Add to the message that the next `flush` ends.

        From 64 KiB on, what was written goes out as a fragment of the message, so that memory stays bounded.

        Args:
            data: bytes-like, or `str`, which is encoded in UTF-8.

        Raises:
            ConnectionClosed: the connection is closed.
            UnicodeDecodeError: the writer sends text and `data` is not UTF-8; nothing of it is sent.
            InvalidState: `write_eof` was called.
        """
        if self._ended:
            raise InvalidState("write() was called after write_eof()")
        if isinstance(data, str):
            payload = data.encode()
        else:
            payload = copied(data)
            if self._text:
                payload.decode()
        if not payload:
            return
        self._buffer.append(payload)
        self._size += len(payload)
        if self._size >= _FRAGMENT:
            await self._send(fin=False)

    async def flush(self) -> None:
        """Send what was written as one message, and wait until the peer takes it; do nothing if nothing was written.

        Raises:
            ConnectionClosed: the connection is closed.
        """
        if self._buffer or self._started:
            await self._send(fin=True)

    def can_write_eof(self) -> bool:
        """Tell whether the stream was opened with ``half_close=True``."""
        return self._half_close

    async def write_eof(self) -> None:
        """Flush, and tell the peer that nothing follows in this direction: its reader comes to the end, ours goes on.

        Both ends must have opened the stream with ``half_close=True``. Without it there is no such end (RFC 6455 has
        none): `close` ends both directions, and what the peer still sends then is lost to the reader.

        Raises:
            ConnectionClosed: the connection is closed.
            InvalidState: the stream was opened without ``half_close=True``.
        """
        if not self._half_close:
            raise InvalidState("write_eof() needs half_close=True at both ends: RFC 6455 has no half-close")
        self._ended = True  # what another task wrote while this one flushes would come after the end
        await self.flush()
        if not self._eof_sent:  # though a call was cancelled before it sent it; who has come to the end ignores another
            await self._ws.send("" if self._text else b"")
            self._eof_sent = True

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Flush, and close the connection with the closing handshake."""
        await self.flush()
        await self._ws.close(code, reason)

    def finish(self) -> None:
        """Send what was written, without waiting: the handler has returned."""
        # Nothing can be added to a message that another task has begun, and that message will not be finished.
        if (self._buffer or self._started) and not self._ws._open_channel().gated:
            self._ws._send_piece(self._take(fin=True), fin=True, text=self._text)

    async def _send(self, *, fin: bool) -> None:
        channel = self._ws._open_channel()
        if channel.gated or channel.connection.state is not State.OPEN:
            async with channel.outbox.turn():  # which waits for the end of a connection that is closing
                if self._buffer or self._started:  # else another task's call has sent it meanwhile
                    self._ws._send_piece(self._take(fin=fin), fin=fin, text=self._text)
        else:
            self._ws._send_piece(self._take(fin=fin), fin=fin, text=self._text)
        await self._ws._drain()

    def _take(self, *, fin: bool) -> bytes:
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._size = 0
        self._started = not fin
        return data


def open_streams(channel: ConnectionProtocol, *, text: bool, half_close: bool = False) -> tuple[Reader, Writer]:
    """Make the byte-stream view of a connection, which receives messages piece by piece from now on.

    Args:
        channel: the connection's protocol.
        text, half_close: those of `Writer`.
    """
    ws = channel.ws
    ws.writer = Writer(ws, text=text, half_close=half_close)
    ws.reader = channel.reader = Reader(channel, channel.host.limits.read_limit, half_close=half_close)
    channel.consume(ws.reader.feed)
    channel.connection.decoder.streaming = True
    channel.show_held()
    return ws.reader, ws.writer
