"""`WebSocket`: what a handler, a listener or a client's program holds of a connection."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, Self, overload

from ..assembly import PieceCheck, check_pieces, is_whole
from ..codes import CloseCause, CloseCode
from ..connection import Connection, State
from ..events import BytesLike
from ..exceptions import ONE_RECEIVER, ConcurrencyError, InvalidState
from ..handshake import Request, Response
from ..octets import is_bytes_like
from ..shell import COUNTED, Facts, Pieces
from ..transport.loops import OtherThread
from ..transport.sockets import SocketTransport
from .channel import Endpoint

if TYPE_CHECKING:
    import ssl

    from ..bus.interface import Position
    from ..session import Session
    from ..topics.topics import Topics
    from ..transport.sockets import Addresses
    from .protocol import ConnectionProtocol
    from .streams import Reader, Writer

__all__ = ["WebSocket"]

_OF_SESSION: Final = frozenset({"pings_received", "pings_sent"})


class Known(NamedTuple):
    """The addresses of a connection, kept apart from its transport."""

    remote: Any
    """The peer's address, None on a Unix socket."""
    local: Any
    """This side's address."""
    transport: asyncio.Transport | None = None
    """The transport, for hooks that run before the connection is open."""


# What `Known` does is written in Python and takes as long as three calls.
_known: Callable[[tuple[Any, Any, asyncio.Transport | None]], Known] = partial(tuple.__new__, Known)


def addresses_of(transport: asyncio.BaseTransport, local: Any = None) -> Known:
    """Return the addresses that a transport knows; if this side's is equal to `local`, it is that object."""
    peer, mine = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    # The address of a Unix socket does not identify the peer, and is mostly empty.
    return _known((None if isinstance(peer, (str, bytes)) else peer, local if mine == local else mine, None))


class WebSocket(Facts, Endpoint):
    """One WebSocket connection.

    Iterate over it for messages, or call `recv`; `str` is a text message, `bytes` a binary one::

        async for message in ws:
            await ws.send(message)

    The iteration ends when the connection is closed with 1000, 1001 or no code, and raises
    `ConnectionClosedError` when it ends otherwise. Every call can be cancelled without losing or
    duplicating a message; ``async with asyncio.timeout(5): await ws.recv()`` is the way to wait with a limit.

    Attributes:
        request: the opening handshake's `Request`: path and headers.
        username: who the client is, as `basic_auth` found out; else None.
        subprotocol: the name that was agreed on, or None.
        reader, writer: the byte-stream view, where the connection was opened for it; else None.
    """

    __slots__ = (
        "__dict__",  # for attributes that a program sets; the dict is made on first use
        "__weakref__",
        "_id",
        "_peer",
        "_response",
        "reader",
        "request",
        "subprotocol",
        "username",
        "writer",
    )

    connection_type: ClassVar[type[Connection]] = Connection
    """The sans-IO state machine that a connection is made with."""

    # Inherited from Endpoint, where they are fast: __aiter__, __anext__, send_nowait.

    def __init__(
        self, request: Request | None = None, subprotocol: str | None = None, peer: Known | None = None
    ) -> None:
        self.request: Request | None = request
        self._response: Response | bytes | None = None
        self.subprotocol: str | None = subprotocol
        self.username: str | None = None
        self._id: uuid.UUID | None = None
        self.reader: Reader | None = None
        self.writer: Writer | None = None
        # None while the transport can be asked for the addresses: to keep them here would take 300 bytes.
        self._peer: Known | Addresses | None = peer

    def __repr__(self) -> str:
        return f"<{type(self).__module__.partition('.')[0]}.WebSocket {self.state.name} {self.remote_address!a}>"

    # --- What it is ---------------------------------------------------------------------------------------

    @property
    def response(self) -> Response | None:
        """The opening handshake's `Response`, as it was sent or received; None before there is one."""
        response = self._response
        if response is None and self._channel is not None and self.request is not None:
            # Made anew: the head that was sent would take 200 bytes for each connection, and few programs ask for it.
            anew = getattr(self._open_channel().host, "_response_anew", None)  # servers and the Host of ASGI have it
            response = None if anew is None else anew(self.request, self.subprotocol)
        elif isinstance(response, bytes):
            response = Response.from_head(response)
        self._response = response
        return response

    @response.setter
    def response(self, response: Response | bytes | None) -> None:
        self._response = response

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """A new adapter of the server's or client's logger, which adds this connection to records as ``websocket``."""
        return logging.LoggerAdapter(self._open_channel().host.logger, {"websocket": self})

    def _known_session(self) -> Session | None:
        return None if self._channel is None else self._channel.session

    @property
    def remote_address(self) -> Any:
        """The peer's address as `socket.getpeername` gives it, also after the end; None on a Unix socket.

        Behind a proxy it is the client's, if the server was told to trust the proxy.
        """
        return None if (known := self._known()) is None else known.remote

    @property
    def local_address(self) -> Any:
        """This side's address as `socket.getsockname` gives it, also after the end."""
        return None if (known := self._known()) is None else known.local

    @property
    def transport(self) -> asyncio.Transport | None:
        """The asyncio transport, for `get_extra_info`, as in ``ws.transport.get_extra_info("ssl_object")``.

        It is there in `process_request` too, and None once the connection is closed.
        """
        if self._channel is None:
            return self._peer.transport if isinstance(self._peer, Known) else None
        if self._channel.moves:
            # The caller may keep the transport: the connection is moved to another now or never.
            with suppress(OtherThread):  # which must not move it
                self._own_channel().move()
            self._channel.moves = 0
        return self._channel.transport  # type: ignore[no-any-return]

    @property
    def ssl_object(self) -> ssl.SSLObject | ssl.SSLSocket | None:
        """The TLS of the connection: it has `version`, `cipher`, and `getpeercert` for the peer's certificate.

        It is there in `process_request` too; None without TLS, and once the connection is closed.
        """
        transport = self.transport
        found: ssl.SSLObject | None = None if transport is None else transport.get_extra_info("ssl_object")
        return found

    def _known(self) -> Known | Addresses | None:
        if self._peer is not None or self._channel is None or self._channel.transport is None:
            return self._peer
        return addresses_of(self._channel.transport)

    def _keep_addresses(self) -> None:
        """Keep the addresses, because the transport is about to forget them."""
        if self._peer is None and self._channel is not None:
            transport = self._channel.transport
            kept = transport.addresses() if isinstance(transport, SocketTransport) else None
            self._peer = self._known() if kept is None else kept

    @property
    def buffered_amount(self) -> int:
        """Bytes that were sent by this program and not yet taken by the operating system."""
        return 0 if self._channel is None else self._channel.buffered

    @property
    def counters(self) -> dict[str, int]:
        """Messages, bytes (of frames, before TLS) and pings, received and sent so far, as a new dict."""
        if self._channel is None:
            return dict.fromkeys(COUNTED, 0)
        channel = self._open_channel()
        return {name: getattr(channel.session if name in _OF_SESSION else channel, name) for name in COUNTED}

    # --- Receiving ----------------------------------------------------------------------------------------

    @overload
    async def recv(self, decode: Literal[True]) -> str: ...

    @overload
    async def recv(self, decode: Literal[False]) -> bytes: ...

    @overload
    async def recv(self, decode: bool | None = None) -> str | bytes: ...

    async def recv(self, decode: bool | None = None) -> str | bytes:
        """Receive the next message. Cancelling it loses none.

        Args:
            decode: None, the default, for `str` from a text message and `bytes` from a binary one; True for `str`,
                False for `bytes` always.

        Raises:
            ConnectionClosed: the connection is closed and no message is left.
            ConcurrencyError: another task waits in `recv` already.
            UnicodeDecodeError: with ``decode=True``, a binary message is not UTF-8.
        """
        return await self._receive(decode)  # type: ignore[no-any-return]

    @overload
    def recv_streaming(self, decode: Literal[True]) -> AsyncIterator[str]: ...

    @overload
    def recv_streaming(self, decode: Literal[False]) -> AsyncIterator[bytes]: ...

    @overload
    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[str | bytes]: ...

    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[str | bytes]:
        """Receive one message in pieces, as they arrive, so that it need not fit into memory.

        Each piece is what has just arrived, whatever the sender's frames were. If the iterator is given up before the
        end of the message, or cancelled within it, the rest of the message is dropped. `max_size` limits the whole
        message here too.

        Args:
            decode: None, the default, for `str` from a text message and `bytes` from a binary one; True for `str`,
                False for `bytes` always.

        Raises:
            ConnectionClosed: the connection ended before the message or within it.
            ConcurrencyError: another task receives, or another iteration is not finished.
            UnicodeDecodeError: with ``decode=True``, a binary message is not UTF-8.
        """
        self._own_channel()  # raises if it is not open yet, or another thread's
        return Pieces(self._begin_streaming, self._recv_piece, self._end_streaming, decode)

    def _begin_streaming(self) -> None:
        channel = self._open_channel()
        if channel.streaming:
            raise ConcurrencyError(ONE_RECEIVER.format("recv_streaming"))
        channel.fragments.begin()

    def _end_streaming(self, skip: bool) -> None:
        channel = self._open_channel()
        try:
            channel.turn.check_thread()
        except OtherThread:
            # The iterator was given up elsewhere: it was handed on, or was garbage, which any thread may collect.
            with suppress(RuntimeError):  # that loop is closed
                channel.turn.loop.call_soon_threadsafe(partial(channel.fragments.end, skip=skip))
        else:
            channel.fragments.end(skip=skip)

    # --- Sending ------------------------------------------------------------------------------------------

    async def send(
        self,
        message: str | BytesLike | Iterable[str | BytesLike] | AsyncIterable[str | BytesLike],
        text: bool | None = None,
        *,
        compress: bool | None = None,
    ) -> None:
        """Send a message, and wait while more than `write_limit` is unsent.

        Messages go out in the order in which their `send` was first awaited. A message is sent whole or not at all,
        whatever is cancelled.

        Args:
            message: `str` for a text message, bytes-like for a binary one, or an iterable or asynchronous iterable of
                either, each item being sent as a fragment of one message.
            text: True sends bytes-like, which must be UTF-8, as text; False sends `str` as binary. Default: by type.
            compress: whether to compress the message; None, the default, leaves that to `compression`. Without effect
                if the peer did not agree to compression.

        Raises:
            ConnectionClosed: the connection is closed; where it is closing, this waits for the end to tell how it was.
            TypeError: `message` is of another type.
            UnicodeError: `message` is not text.
        """
        rest = self._send_first(message, text, compress)
        if rest is not None:
            await rest

    async def _send(
        self,
        message: str | BytesLike | Iterable[str | BytesLike] | AsyncIterable[str | BytesLike],
        text: bool | None,
        compress: bool | None,
    ) -> None:
        """Send what may take several steps: all but a plain `str` or `bytes` on an open connection."""
        channel = self._open_channel()
        if isinstance(message, AsyncIterable) and not is_bytes_like(message):
            await self._send_fragments(message, text, compress)
        elif is_whole(message):
            await channel.outbox.send_whole(message, text, compress)  # type: ignore[arg-type]
        else:
            check_pieces(message)
            await self._send_fragments(_each(message), text, compress)  # type: ignore[arg-type]

    async def _send_fragments(
        self, pieces: AsyncIterable[str | BytesLike], text: bool | None, compress: bool | None
    ) -> None:
        channel = self._open_channel()
        check = PieceCheck()
        async with channel.outbox.turn():
            if channel.connection.in_message:
                raise InvalidState("a message in fragments is unfinished")  # begun by a `Writer`
            try:
                async for piece in pieces:
                    check(piece)
                    # At once, as the next piece may be long in coming; so an empty fragment ends the message.
                    await channel.outbox.send_step(piece, fin=False, text=text, compress=compress)
                if check.kind is not None:
                    await channel.outbox.send_step(check.kind(), fin=True, text=text, compress=compress)
            except BaseException:
                # A message that was begun can neither be finished nor taken back (RFC 6455, 5.4).
                if channel.connection.in_message:
                    channel.start_close(CloseCode.INTERNAL_ERROR, "a message was not finished", CloseCause.LOCAL)
                raise

    def _send_piece(self, data: bytes, *, fin: bool, text: bool) -> None:
        """Send a fragment of the message that a `Writer` has begun."""
        self._own_channel().outbox.send_fragment(data, fin=fin, text=text, compress=None)

    async def _drain(self) -> None:
        await self._open_channel().outbox.drain()

    async def ping(self, data: str | BytesLike | None = None) -> Awaitable[float]:
        """Send a Ping frame.

        Args:
            data: at most 125 bytes; None, the default, for random ones.

        Returns:
            An awaitable of the round trip's seconds: ``latency = await (await ws.ping())``. It raises
            `ConnectionClosed` if the connection ends first, and can be left alone.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: a ping with the same data is unanswered.
            InvalidState: 64 pings are unanswered.
            ValueError: `data` is too long.
        """
        return await self._own_channel().outbox.ping(data)

    async def pong(self, data: str | BytesLike = b"") -> None:
        """Send an unsolicited Pong frame: a heartbeat that asks for no answer (RFC 6455, 5.5.3).

        Raises:
            ConnectionClosed: the connection is closed.
            ValueError: `data` has more than 125 bytes.
        """
        await self._own_channel().outbox.pong(data)

    # --- Topics ---------------------------------------------------------------------------------------------

    def subscribe(self, topic: str, *, info: str | None = None) -> Awaitable[None]:
        """Subscribe to a topic: what is published to it from now on is sent to the peer, until the connection ends.

        Without effect if the connection has subscribed already.

        Args:
            topic: 1 to 200 of ``A-Z a-z 0-9 _ . : @ / -``.
            info: what others learn of this connection, in a topic with presence; at most 1024 bytes in UTF-8. Default:
                none.

        Returns:
            An awaitable, which need not be awaited. It is done when the subscription holds in other processes too: the
            bus, if there is one, brings what they publish.

        Raises:
            ValueError, TypeError: `topic` is not a valid name, or `info` is not valid.
            NotAuthorized: the hook `authorize` does not allow it.
            TooManySubscriptions: a limit of `Topics` is reached.
            ConnectionClosed: the connection is closed.
            InvalidState: its server has no topics; or `recover` is about to subscribe it to this.
            BusUnavailable: by the awaitable: other processes cannot be reached; this process' messages are sent.
        """
        return self._host_topics().subscribe(self, topic, info)

    def unsubscribe(self, topic: str) -> bool:
        """Unsubscribe from a topic; return False if there was no subscription. What was published before is sent."""
        return self._host_topics().unsubscribe(self, topic)

    async def recover(self, topic: str, since: Position | str | None, *, info: str | None = None) -> int:
        """Send the peer what it missed of a topic with a history, and subscribe, without a gap and without repeating.

        Args:
            topic, info: those of `subscribe`.
            since: the position of the latest message that the peer has, as a `Position` or its `str`; None to send
                all that is kept.

        Returns:
            How many messages it had missed.

        Raises:
            NotRecovered: some of them are not kept any more; the connection has not been subscribed.
            ValueError, TypeError: as `subscribe`, or the topic has no history, or `since` is not a position.
            BusUnavailable: the history cannot be read now.
            NotAuthorized, TooManySubscriptions, ConnectionClosed: as `subscribe`.
            InvalidState: as `subscribe`, or it has subscribed to the topic already.
        """
        return await self._host_topics().recover(self, topic, since, info)

    def publish(
        self,
        topic: str,
        message: str | BytesLike,
        *,
        key: str | None = None,
        text: bool | None = None,
        compress: bool | None = None,
    ) -> Awaitable[Position | None]:
        """Send a message to all others who subscribed to a topic; `Topics.publish` has arguments and errors.

        Raises:
            ConnectionClosed: the connection is closed, or closing; `Topics.publish` needs no connection.
            InvalidState: its server has no topics.
        """
        topics = self._host_topics()
        channel = self._open_channel()
        if channel.connection.state is not State.OPEN:
            raise channel.connection.closed_error()
        return topics._publish_from(channel, topic, message, key, text, compress)

    @property
    def topics(self) -> set[str]:
        """The topics that this connection has subscribed to, as a new set."""
        member = None if self._channel is None else self._open_channel().member
        return set() if member is None else set(member.topics)

    def _host_topics(self) -> Topics:
        topics: Topics | None = getattr(self._own_channel().host, "topics", None)
        if topics is None:
            raise InvalidState(
                "the connection's server has no topics: give it some, Server(topics=wsfast.Topics()), "
                "or behind uvicorn wsfast.uvicorn.configure(topics=wsfast.Topics())"
            )
        return topics

    # --- Closing ------------------------------------------------------------------------------------------

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection with the closing handshake and wait for its end, for at most `close_timeout`.

        On a connection that is closed or closing already it only waits. A message that a thread still compresses goes
        out first; if that takes longer than half of `close_timeout`, the message's `send` raises instead.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; 1005 for a Close frame without a code. Default: 1000.
            reason: at most 123 bytes in UTF-8. Default: none.

        Raises:
            ValueError, TypeError: another code, or a reason that is too long.
        """
        channel = self._own_channel()
        channel.start_close(code, reason, CloseCause.LOCAL)
        await channel.wait_closed()

    def close_nowait(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Start the closing handshake and return; arguments and errors are those of `close`.

        While a message that a thread compresses is not sent yet, `state` stays OPEN.

        Raises:
            RuntimeError: this is another thread than the event loop's.
        """
        channel = self._own_channel()
        channel.start_close(code, reason, CloseCause.LOCAL)

    async def __aenter__(self) -> Self:
        """Return the connection itself; the end of the block closes it: with 1011 if it raised, else with 1000."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(failed=kind is not None)

    async def _leave(self, *, failed: bool) -> None:
        """Close at the end of an ``async with`` block."""
        if failed:
            await self.close(CloseCode.INTERNAL_ERROR)
            return
        if self.writer is not None and self.state is State.OPEN:
            self.writer.finish()
        await self.close()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended, whoever ends it."""
        await self._own_channel().wait_closed()

    def abort(self) -> None:
        """Drop the connection at once, without a closing handshake; unsent data is lost.

        Raises:
            RuntimeError: this is another thread than the event loop's.
        """
        channel = self._own_channel()
        channel.abort(CloseCause.LOCAL)

    def _open_channel(self) -> ConnectionProtocol:
        channel = self._channel
        if channel is None:
            raise InvalidState("the opening handshake is not finished")
        return channel  # type: ignore[no-any-return]

    def _own_channel(self) -> ConnectionProtocol:
        """Return the channel to a caller that acts on it, which only its event loop's thread may do.

        Raises:
            RuntimeError: this is another thread, or another event loop runs in this one.
        """
        channel = self._open_channel()
        channel.turn.check_thread()
        return channel


async def _each(items: Iterable[str | BytesLike]) -> AsyncIterator[str | BytesLike]:
    for item in items:
        yield item
