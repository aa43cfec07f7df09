"""`broadcast`: one message to many connections, encoded once, and what topics share with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ..codec import encode_frame
from ..codes import Opcode
from ..connection import Side, State
from ..events import BytesLike
from ..exceptions import SKIPPED, ConcurrencyError, ConnectionClosed, Skipped
from ..handshake.uri import format_address
from ..octets import copied
from ..telling import tell
from ..transport.loops import OtherThread

if TYPE_CHECKING:
    from .protocol import ConnectionProtocol
    from .websocket import WebSocket

__all__ = ["Prepared", "broadcast"]


_SERVER: Final = Side.SERVER  # in Python 3.11, to get a member from its class takes a call
_OPEN: Final = State.OPEN
_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY


def broadcast(
    connections: Iterable[WebSocket],
    message: str | BytesLike,
    raise_exceptions: bool = False,
    *,
    text: bool | None = None,
    compress: bool | None = None,
) -> None:
    """Send a message to several connections, without waiting.

    The frame is built once for all of a server's connections, and compressed once for all that agreed on the same
    parameters, by the call itself. A client masks it for each.

    Connections that are not open are skipped. One that is sending another message in fragments is skipped too, with a
    warning in the log. So is one that has more unsent than its `max_buffered`, if its `overflow` is ``"error"``; with
    ``"drop"`` it is skipped silently, and with ``"close"`` it is closed with 1013. A peer that does not read thus never
    makes the others wait, nor lets memory grow without bound.

    Call it in a thread in which an event loop runs. Connections of other loops, as in a server with several threads,
    get the message from their own loops a moment later; what is skipped there is logged in any case.

    Args:
        connections: those to send to.
        message: `str` for a text message, bytes-like for a binary one.
        raise_exceptions: raise what would be logged, in an `ExceptionGroup`, after all were tried. Default: False.
        text: True sends bytes-like, which must be UTF-8, as text; False sends `str` as binary. Default: by type.
        compress: whether to compress the message, where that was agreed on and makes it smaller; None, the default,
            leaves the choice to `compression`.

    Raises:
        TypeError: `message` is neither `str` nor bytes-like.
        UnicodeError: the message is not text.
        RuntimeError: no event loop runs in this thread; `loop.call_soon_threadsafe` brings the call to one.
        ExceptionGroup: of `ConcurrencyError`, `BufferFull` and `ExtensionError`, if `raise_exceptions` is set.
    """
    failures = []
    for ws, exc in broadcast_each(connections, message, text, compress):
        if raise_exceptions:
            failures.append(exc)
        else:
            _tell_skipped(ws, exc)
    if failures:
        raise ExceptionGroup("broadcast skipped connections", failures)


def broadcast_each(
    connections: Iterable[WebSocket], message: str | BytesLike, text: bool | None, compress: bool | None
) -> Iterator[tuple[WebSocket, Skipped]]:
    """Do the work of `broadcast`; yield each connection that was skipped though it is open, and why."""
    shared = Prepared(message, text, compress)
    elsewhere: dict[asyncio.AbstractEventLoop, list[WebSocket]] = {}
    yield from _send_here(connections, shared, elsewhere)
    for loop, others in elsewhere.items():
        with suppress(RuntimeError):  # that loop is closed
            loop.call_soon_threadsafe(_send_there, others, shared)


def _send_there(connections: list[WebSocket], shared: Prepared) -> None:
    """Send, in the thread of their loop, to connections that a broadcast in another thread was given."""
    for ws, exc in _send_here(connections, shared, {}):
        _tell_skipped(ws, exc)


def _tell_skipped(ws: WebSocket, exc: Exception) -> None:
    tell(ws._channel.host.logger.warning, "broadcast skipped %s: %s", format_address(ws.remote_address), exc)


def _send_here(
    connections: Iterable[WebSocket], shared: Prepared, elsewhere: dict[asyncio.AbstractEventLoop, list[WebSocket]]
) -> Iterator[tuple[WebSocket, Skipped]]:
    """Send to connections of this thread's loop; note those that are `elsewhere`."""
    frame = shared.frame
    for ws in connections:
        try:
            if ws._send_encoded(frame):
                continue
        except OtherThread:
            if asyncio._get_running_loop() is None:
                raise
            elsewhere.setdefault(ws._channel.turn.loop, []).append(ws)
            continue
        channel: Any = ws._channel
        if channel is None:
            continue
        try:
            shared.send(channel)
        except SKIPPED as exc:
            yield ws, exc


class Prepared:
    """One message and its encodings, for any number of connections.

    Args:
        message, text, compress: those of `broadcast`.
        key: by which topics conflate it.

    Attributes:
        opcode, payload: the message.
        frame: as servers send it, uncompressed.
        key: the argument.
    """

    __slots__ = ("_compress", "_packed", "frame", "key", "opcode", "payload")

    def __init__(
        self,
        message: str | BytesLike,
        text: bool | None = None,
        compress: bool | None = None,
        key: object = None,
    ) -> None:
        self._compress = compress
        if type(message) is bytes and not text:  # as nearly all that other processes send
            self.payload: bytes = message
            self.opcode: Opcode = _BINARY
        elif isinstance(message, str):
            self.opcode = _BINARY if text is False else _TEXT
            self.payload = message.encode()
        else:
            try:
                self.payload = copied(message)
            except TypeError:
                raise TypeError(f"a message must be str or bytes-like, got {type(message).__name__}") from None
            self.opcode = _BINARY
            if text:
                self.opcode = _TEXT
                self.payload.decode()
        self.frame: bytes = encode_frame(self.opcode, self.payload)
        self.key: object = key
        self._packed: dict[Any, tuple[bytes, bytes]] | None = None

    def send(self, channel: ConnectionProtocol) -> bool:
        """Send the message to one connection, if that is open; tell whether it was sent.

        Raises:
            ConcurrencyError: a message in fragments is under way there.
            BufferFull: too much is unsent there.
        """
        if not channel.has_room(len(self.payload)):
            if channel.connection.state is not _OPEN:
                return False
            if channel.is_sending:
                raise ConcurrencyError("sending a fragmented message")
            try:
                if not channel.may_buffer(self.payload):
                    return False
            except ConnectionClosed:
                return False  # closed by the policy "close"
        self.put(channel)
        return True

    def put(self, channel: ConnectionProtocol) -> None:
        """Send the message to a connection that is open and has no message in fragments under way, whatever is unsent.

        Raises:
            ConcurrencyError: a connection in threads has begun one meanwhile.
        """
        connection = channel.connection
        if connection.outgoing is None:
            channel.write_shared(self)  # a connection in threads chooses the encoding under its lock
            return
        payload, frame, compressed = self.encoded(connection.compression)
        if connection.side is _SERVER and connection.outgoing is connection.encoder:
            channel.write_encoded(frame)
        else:
            channel.settle_gathered()
            connection.send_prepared((self.opcode, payload, compressed))
            channel.count_sent()
            channel.written()

    def encoded(self, compression: Any) -> tuple[bytes, bytes, bool]:
        """Return what a connection is to send next: payload, a server's frame, and whether they are compressed.

        Args:
            compression: the connection's `PerMessageDeflate`, which takes the result for sent; or None.
        """
        size = len(self.payload)
        if compression is not None and (
            compression.should_compress(size) if self._compress is None else self._compress
        ):
            key = compression.shared_key
            packed = self._packed.get(key) if self._packed is not None else None
            if packed is None:
                packed = self._pack(key)
            left = len(packed[0])
            compression.judge(size, left)
            if left < size or not compression.parameters.threshold:
                compression.note_shared()
                return *packed, True
        return self.payload, self.frame, False

    def _pack(self, key: Any) -> tuple[bytes, bytes]:
        """Make the compressed payload for a class of connections, and its frame."""
        payload: bytes = key.compress(self.payload)
        if self._packed is None:
            self._packed = {}
        packed = self._packed[key] = payload, encode_frame(self.opcode, payload, rsv1=True)
        return packed
