"""A connection as a byte stream of trio's: whatever takes a `trio.abc.Stream` runs over a WebSocket."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from wsfast.codes import CloseCode
from wsfast.events import Fragment
from wsfast.exceptions import ONE_RECEIVER, ConcurrencyError, ConnectionClosed, ConnectionClosedOK, InvalidState
from wsfast.handlers import check_handler

from .websocket import WebSocket

__all__ = ["ByteStream", "StreamBroken", "stream_handler"]

_MESSAGE: Final = 65536
"""Bytes that are sent as one message at the most, so that memory is bounded by `write_limit`."""


class StreamBroken(trio.BrokenResourceError):
    """The connection has ended; `__cause__` is the `ConnectionClosed` that says why."""


class ByteStream(trio.abc.HalfCloseableStream):
    """The bytes that a connection carries, without the bounds of its messages.

    ::

        async with wsfast.trio.connect(uri) as ws:
            stream = wsfast.trio.ByteStream(ws)
            await stream.send_all(b"hello")
            print(await stream.receive_some())

    Bytes are sent as binary messages; those of text messages are received too, as UTF-8. A message is handed out as it
    arrives, so that `read_limit` bounds what is held of it; `max_size` limits the whole message here too. The end of
    the stream is a Close frame with 1000, 1001 or no code; any other end breaks it. `WebSocket.recv` cannot be called
    any more.

    It follows the rules of `trio.abc.Stream`, exceptions included: `trio.BrokenResourceError` if the connection has
    ended, with the `ConnectionClosed` as its cause, `trio.ClosedResourceError` after `aclose`, and
    `trio.BusyResourceError` if two tasks send, or receive.

    Args:
        ws: the connection; it must be open.
        half_close: take an empty message for the end of what the peer sends, and send one by `send_eof`. RFC 6455 has
            no such end, so both peers must know of it. Default: False.

    Attributes:
        ws: the connection: for its request, addresses, close code and so on.

    Raises:
        InvalidState: the opening handshake is not finished.
        ConcurrencyError: a task receives from the connection.
    """

    def __init__(self, ws: WebSocket, *, half_close: bool = False) -> None:
        connection = ws._connection
        if ws._receiving:
            raise ConcurrencyError(ONE_RECEIVER.format("ByteStream"))
        ws._receiving = True  # for good
        connection.decoder.streaming = True
        ws._show_held()
        self.ws: WebSocket = ws
        self._half_close = half_close
        self._rest = b""  # received, and not taken
        self._within = False  # a message, of which a piece was received
        self._at_end = False
        self._sending = self._receiving = False
        self._eof_sent = False
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, and wait while more than `write_limit` is unsent.

        If it is cancelled, some of them may have been sent.

        Raises:
            trio.BrokenResourceError: the connection has ended.
            trio.ClosedResourceError: `aclose` or `send_eof` was called.
            trio.BusyResourceError: another task sends.
        """
        self._begin_sending()
        try:
            await trio.lowlevel.checkpoint()
            self._check_sender()
            with memoryview(data) as view, view.cast("B") as octets:
                for start in range(0, len(octets), _MESSAGE):
                    await self.ws.send(bytes(octets[start : start + _MESSAGE]))
        except ConnectionClosed as exc:
            raise self._ended(exc) from exc
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until `send_all` might not wait.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError: as for `send_all`.
        """
        self._begin_sending()
        try:
            await trio.lowlevel.checkpoint()
            self._check_sender()
            await self.ws._wait_for_room()
            if self._closed:
                raise trio.ClosedResourceError("the stream was closed meanwhile")
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Tell the peer that nothing follows in this direction; it goes on in the other one.

        Raises:
            InvalidState: the stream was made without ``half_close=True``.
            trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError: as for `send_all`.
        """
        if not self._half_close:
            raise InvalidState("send_eof() needs half_close=True at both ends: RFC 6455 has no half-close")
        self._begin_sending()
        try:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("the stream is closed")
            if not self._eof_sent:
                await self.ws.send(b"")
                self._eof_sent = True
        except ConnectionClosed as exc:
            raise self._ended(exc) from exc
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and return them, or nothing at the end of the stream. Cancelling it loses none.

        Args:
            max_bytes: the most bytes to return; None, the default, for what has come.

        Raises:
            trio.BrokenResourceError: the connection did not end with 1000, 1001 or no code.
            trio.ClosedResourceError: `aclose` was called.
            trio.BusyResourceError: another task receives.
            ValueError, TypeError: `max_bytes` is not a positive `int`.
        """
        if max_bytes is not None:
            if not isinstance(max_bytes, int):
                raise TypeError(f"max_bytes must be int or None, got {type(max_bytes).__name__}")
            if max_bytes < 1:
                raise ValueError(f"max_bytes must be positive, got {max_bytes}")
        if self._receiving:
            raise trio.BusyResourceError("another task receives from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("the stream is closed")
            while not self._rest and not self._at_end:
                self._take(await self.ws._next())
        except ConnectionClosedOK as exc:
            if self._closed:
                raise self._ended(exc) from exc
            self._at_end = True
        except ConnectionClosed as exc:
            raise self._ended(exc) from exc
        finally:
            self._receiving = False
        data = self._rest if max_bytes is None else self._rest[:max_bytes]
        self._rest = self._rest[len(data) :]
        return data

    async def aclose(self) -> None:
        """Close the connection with 1000 and wait for its end; if that is cancelled, it goes on closing."""
        self._closed = True
        await self.ws.close(CloseCode.NORMAL_CLOSURE)

    def _take(self, event: str | bytes | Fragment) -> None:
        data, final = event if isinstance(event, Fragment) else (event, True)
        self._at_end = self._half_close and not data and final and not self._within
        self._within = not final
        self._rest = data.encode() if isinstance(data, str) else data

    def _begin_sending(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task sends to this stream")
        self._sending = True

    def _check_sender(self) -> None:
        if self._closed or self._eof_sent:
            raise trio.ClosedResourceError("the stream is closed" if self._closed else "send_eof() was called")

    def _ended(self, exc: ConnectionClosed) -> Exception:
        """Return what is raised because the connection has ended."""
        if self._closed:
            return trio.ClosedResourceError("the stream was closed")
        return StreamBroken(str(exc))


def stream_handler(
    handler: Callable[[ByteStream], Awaitable[object]], *, half_close: bool = False
) -> Callable[[WebSocket], Awaitable[None]]:
    """Make a handler for `serve` of one that takes a byte stream, as those of `trio.serve_tcp` do.

    ::

        async def echo(stream):
            async for data in stream:
                await stream.send_all(data)

        await wsfast.trio.serve(wsfast.trio.stream_handler(echo), "127.0.0.1", 8765)

    Args:
        handler: an async function that is called with a `ByteStream`. When it returns, the connection is closed with
            1000, after what it sent.
        half_close: as for `ByteStream`. Default: False.

    Raises:
        TypeError: `handler` cannot be called with a stream, or is no async function.
    """
    check_handler(handler, "stream")

    @functools.wraps(handler)
    async def handle(ws: WebSocket) -> None:
        await handler(ByteStream(ws, half_close=half_close))

    return handle
