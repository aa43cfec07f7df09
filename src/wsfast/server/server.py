"""`Server`: listening, dispatch by subprotocol, and an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
import os
import random
import socket as socket_module
import ssl as ssl_module
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self, TypeVar, Unpack, cast

from ..asyncio.protocol import ConnectionProtocol, turn_of
from ..asyncio.streams import open_streams
from ..asyncio.websocket import Known, WebSocket
from ..closing import encode_close
from ..codes import CloseCause, CloseCode
from ..connection import Side, State
from ..deflate import Deflate, PerMessageDeflate
from ..events import BytesLike
from ..exceptions import ENDS_PROGRAM, InvalidState
from ..extensions import Chain, ServerExtensionFactory
from ..handlers import check_handler
from ..handshake import Origins, Request
from ..handshake.http11 import MAX_HEAD, MAX_HEADERS, MAX_LINE
from ..options import check_values, connection_class, refuse_unknown
from ..serving import BaseServer, check_context
from ..session import Overflow
from ..shell import COUNTED
from ..telling import tell
from ..transport.binding import BACKLOG, check_address, check_backlog
from ..transport.timers import CoarseTimer
from ..transport.tls import TLSTransport, buffer_of
from .accepting import ServerOpening
from .listening import Listening
from .listening import listen as begin_listening
from .options import (
    LISTEN,
    Handler,
    ListenerFactory,
    ListenOptions,
    NoOptions,
    ProcessRequest,
    ProcessResponse,
    SelectSubprotocol,
    ServerOptions,
    StartOptions,
    StreamHandler,
    check_drain,
    check_listen,
    check_threads,
)
from .prelude import Prelude
from .signals import stopping_on_signals
from .threads import Crew

if TYPE_CHECKING:
    from socket import socket

    from ..asyncio.channel import Turn
    from ..bus.interface import Position
    from ..topics.topics import Topics

__all__ = ["Server"]

_F = TypeVar("_F", bound=Callable[..., Any])

_OPEN: Final = State.OPEN  # to get a member from its class takes CPython 3.11 some 900 instructions
_MOST_SURPLUS: Final = 64
"""With `max_connections` reached, so many clients at a time are answered 503; others wait to be accepted."""


class _Registration(NamedTuple):
    """The handler of one subprotocol, in exactly one of the three forms."""

    handler: Handler | None = None
    stream_handler: StreamHandler | None = None
    listener: ListenerFactory | None = None
    text: bool = False
    half_close: bool = False


class _Totals:
    """The sums of many connections' counters; a dict would take three times as long."""

    __slots__ = COUNTED

    def __init__(self) -> None:
        self.messages_received = 0
        self.messages_sent = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.pings_received = 0
        self.pings_sent = 0


class Server(BaseServer):
    """A WebSocket server: one handler for each subprotocol, any number of addresses to listen on.

    ::

        server = Server()

        @server.handler("chat.v2")
        async def chat(ws):
            async for message in ws:
                await ws.send(message)

        asyncio.run(server.serve_forever("127.0.0.1", 8765))

    Args:
        process_request: called as ``process_request(ws, request)`` before the upgrade, plain or async: return None to
            go on, or a `Response` (``ws.respond(200, "OK\\n")``) to answer an ordinary HTTP request. It is asked for
            every well-formed request, also for HEAD, OPTIONS and HTTP/1.0, as health checks send them: look at
            ``request.method``. A request that it does not answer and that asks for no WebSocket gets 405 or 426. A
            request's body is not read. Default: none.
        process_response: called as ``process_response(ws, request, response)`` before any response to a request is
            sent, plain or async. It may change the response's headers and return None, or return another `Response`;
            one with another status than 101 refuses. A response that refused already cannot become a 101. Default:
            none.
        origins: the Origin headers that are accepted; clients with another get 403. Exact strings, compiled patterns
            that must match the whole value, and None for clients that send no Origin. Default: any.
        select_subprotocol: called as ``select_subprotocol(ws, offers)`` in place of the choice by the client's
            preference; returns an offered name that is registered, or None for the handler under None. It may raise
            `NegotiationError` to refuse with 400; its text goes to the log only. Default: the client's preference.
        create_connection: the class of the connections: a subclass of `WebSocket` with methods of the program's own.
            If it has an `__init__`, that takes the arguments of `WebSocket` and passes them on. Default: `WebSocket`.
        proxy_protocol: True if a proxy on this machine (a loopback address, or a Unix socket) begins each connection
            with a header of the PROXY protocol, version 1 or 2, before TLS if there is any. For proxies elsewhere,
            their addresses and networks, as for `forwarded`. `WebSocket.remote_address` is then the client's. A
            connection from a proxy is refused without the header; connections from elsewhere are taken as they are.
            Default: False.
        forwarded: addresses and networks of proxies (``["10.0.0.0/8"]``, and ``"unix"`` for Unix sockets) whose
            Forwarded or X-Forwarded-For headers tell `WebSocket.remote_address`. Anybody can send these headers:
            name no network that others than your proxies connect from. Default: none.
        compression: None, ``"deflate"``, or a `Deflate`. Default: None.
        extensions: factories of a program's own extensions to accept, each a `ServerExtensionFactory`; default none.
        max_line: the most bytes of a line of a request's head; beyond it, 431 (or 414 for the first line). Default: 8
            KiB.
        max_head: the most bytes of a request's head in all; beyond it, 431. Default: 16 KiB.
        max_headers: the most headers of a request; beyond it, 431. Default: 128.
        max_size: the most bytes of a received message, after decompression; None for no limit. Default: 1 MiB.
        max_fragments: the most frames of a received message; None, the default, for no limit.
        read_limit: bytes received and not yet consumed; above that, reading is paused until a quarter of it is left.
            Each message counts as 64 bytes more than its size. Default: 64 KiB.
        write_limit: bytes written and not yet sent; above that, `send` waits until a quarter of it is left. Default: 64
            KiB.
        max_connections: the most connections at a time, those in their opening handshake and those whose handler has
            not returned among them; None for no limit. Further clients are answered 503 with Retry-After, at most 64 at
            a time; the others wait until the system has no room for them either (`backlog`). Default: None.
        max_buffered: unsent bytes above which `send_nowait` obeys `overflow`; None for no limit. Default: 4 MiB.
        overflow: what `send_nowait` then does: ``"error"`` raises `BufferFull`, ``"drop"`` drops the message and
            returns False, ``"close"`` closes the connection with 1013. Default: ``"error"``.
        open_timeout: seconds for the opening handshake, TLS included; None for no limit. Default: 10.
        ping_interval: seconds between keepalive pings, busy or not; None for no keepalive. Default: 20.
        ping_timeout: seconds after a ping in which anything must be received, or the connection is closed with 1011;
            None for no limit. Default: 20.
        close_timeout: seconds for the peer to answer a Close frame; None for no limit. Default: 10.
        stop_timeout: seconds within which a stop ends: handlers are cancelled when most of it has passed. None waits
            for handlers however long they take. Default: 10.
        topics: a `Topics`, to which connections can subscribe; it starts and stops with the server. Default: none.
        response_headers: headers to add to each opening handshake's response. Default: none.
        server_header: the value of its Server header; None for none. Default: ``"wsfast"``.
        logger: default: ``logging.getLogger("wsfast.server")``.

    Raises:
        ValueError, TypeError: an option is out of range; the text names it.
    """

    def __init__(
        self,
        *,
        process_request: ProcessRequest | None = None,
        process_response: ProcessResponse | None = None,
        origins: Origins | None = None,
        select_subprotocol: SelectSubprotocol | None = None,
        create_connection: type[WebSocket] | None = None,
        proxy_protocol: bool | Sequence[str] = False,
        forwarded: Sequence[str] | None = None,
        compression: Literal["deflate"] | Deflate | None = None,
        extensions: Sequence[ServerExtensionFactory] | None = None,
        max_line: int = MAX_LINE,
        max_head: int = MAX_HEAD,
        max_headers: int = MAX_HEADERS,
        max_size: int | None = 1048576,
        max_fragments: int | None = None,
        read_limit: int = 65536,
        write_limit: int = 65536,
        max_connections: int | None = None,
        max_buffered: int | None = 4194304,
        overflow: Overflow = "error",
        open_timeout: float | None = 10.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        close_timeout: float | None = 10.0,
        stop_timeout: float | None = 10.0,
        topics: Topics | None = None,
        response_headers: Mapping[str, str] | None = None,
        server_header: str | None = "wsfast",
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        **unknown: Unpack[NoOptions],
    ) -> None:
        refuse_unknown("Server()", unknown, ServerOptions.__annotations__)
        super().__init__(
            {},
            process_request=process_request,
            process_response=process_response,
            origins=origins,
            select_subprotocol=select_subprotocol,
            proxy_protocol=proxy_protocol,
            forwarded=forwarded,
            max_connections=max_connections,
            stop_timeout=stop_timeout,
            response_headers=response_headers,
            server_header=server_header,
            logger=logger,
            compression=compression,
            extensions=extensions,
            max_line=max_line,
            max_head=max_head,
            max_headers=max_headers,
            max_size=max_size,
            max_fragments=max_fragments,
            read_limit=read_limit,
            write_limit=write_limit,
            max_buffered=max_buffered,
            overflow=overflow,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
        )
        if topics is not None:
            from ..topics.thread import check_topics  # which is not needed without

            check_topics(topics)
        self.topics = topics
        self._websocket_type = connection_class(create_connection, WebSocket)
        self._crew: Crew | None = None
        self._reset()

    def _reset(self) -> None:
        """Make what belongs to one event loop."""
        self._topics_started = False
        self.timer: CoarseTimer
        self._turn: Turn
        self._answered: dict[int, int] = {}
        self._opened = 0
        self._totals = _Totals()  # of connections that have ended
        self._causes: dict[str, int] = {}
        self._listening: list[Listening] = []
        self._handshakes: set[ServerOpening] = set()
        self._surplus = 0  # handshakes that will be refused because there are too many connections
        # Handshakes and connections that count for `max_connections`. Other threads read it, so it is one number: a
        # handshake that becomes a connection is counted all the time.
        self._places = 0
        self._connections: dict[ConnectionProtocol, None] = {}  # used as a set, see Bucket of timers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: list[asyncio.Task[None]] = []
        self._told_connections = False  # whether the connections were told to close too
        self._idle = asyncio.Event()  # set while there is no connection
        self._idle.set()
        self._told = asyncio.Event()  # set when the server was told to stop
        self._hurry = asyncio.Event()  # set when the rest of `drain` is skipped

    # --- Threads ------------------------------------------------------------------------------------------

    def _new_part(self) -> Server:
        """Make the part of this server that runs in another thread."""
        part = copy.copy(self)  # of the same class, and with the attributes of a subclass
        part._reset()
        return part

    async def _serve_part(self, ready: Callable[[], object]) -> None:
        """Serve as one part, until it is closed."""
        self._attach()
        ready()
        await self._stopped()

    async def _abandon(self) -> None:
        """Drop all connections, because the loop of this part ends."""
        self.close()
        for protocol in list(self._connections):
            protocol.abort(CloseCause.STOP)
        for _ in range(3):
            await asyncio.sleep(0)

    def _parts(self) -> list[Server]:
        return [self] if self._crew is None else self._crew.parts

    @property
    def _own_crew(self) -> Crew | None:
        """The parts in threads, if this is the program's own part."""
        return self._crew if self._crew is not None and self._crew.parts[0] is self else None

    # --- Dispatch -----------------------------------------------------------------------------------------

    def register_handler(self, name: str | None, handler: Handler) -> None:
        """Serve a subprotocol by messages: ``async def handler(ws)``.

        Returning from it closes the connection with 1000; an exception closes it with 1011 and is logged.

        Args:
            name: the subprotocol, a token (RFC 9110, 5.6.2); None for clients that offer no subprotocol.
            handler: called with the `WebSocket`, in a task of its own.

        Raises:
            ValueError: the name is registered already, or is not a token.
            TypeError: the name is neither `str` nor None, or the handler cannot serve: it is not callable, takes other
                arguments, or, as far as can be told, returns no awaitable.
        """
        check_handler(handler, "ws")
        self._register(name, handler, _Registration(handler=handler))

    def register_stream_handler(
        self, name: str | None, handler: StreamHandler, *, text: bool = False, half_close: bool = False
    ) -> None:
        """Serve a subprotocol as a byte stream: ``async def handler(reader, writer)``.

        Args:
            name: as in `register_handler`.
            handler: called with a `Reader` and a `Writer`, in a task of its own. What it wrote is flushed when it
                returns.
            text: send text messages instead of binary ones. Default: False.
            half_close: take an empty message for the end of what the peer sends, and send one by `Writer.write_eof`, so
                that each direction ends by itself, as TCP's do. RFC 6455 has no such end, so both peers must know of
                it: without it, whoever closes first cuts off what the other still sends. Default: False.

        Raises:
            ValueError, TypeError: as in `register_handler`.
        """
        check_handler(handler, "reader", "writer")
        self._register(name, handler, _Registration(stream_handler=handler, text=text, half_close=half_close))

    def register_listener(self, name: str | None, factory: ListenerFactory) -> None:
        """Serve a subprotocol by callbacks.

        Args:
            name: as in `register_handler`.
            factory: called with the `WebSocket`, returns a `Listener`; mostly a subclass of it.

        Raises:
            ValueError, TypeError: as in `register_handler`.
        """
        self._register(name, factory, _Registration(listener=factory))

    def handler(self, name: str | None) -> Callable[[_F], _F]:
        """Decorate a coroutine function to serve a subprotocol by messages; see `register_handler`."""
        return self._decorator(name, self.register_handler)

    def stream_handler(self, name: str | None, *, text: bool = False, half_close: bool = False) -> Callable[[_F], _F]:
        """Decorate a coroutine function to serve a subprotocol as a byte stream; see `register_stream_handler`."""
        return self._decorator(name, functools.partial(self.register_stream_handler, text=text, half_close=half_close))

    def listener(self, name: str | None) -> Callable[[_F], _F]:
        """Decorate a `Listener` class to serve a subprotocol by callbacks; see `register_listener`."""
        return self._decorator(name, self.register_listener)

    def _decorator(self, name: str | None, register: Callable[[str | None, Any], None]) -> Callable[[_F], _F]:
        # Fail now: `@server.handler` without parentheses passes the function as the name, and would register nothing.
        self._check_name(name)

        def decorate(served: _F) -> _F:
            register(name, served)
            return served

        return decorate

    def _register(self, name: str | None, served: object, registration: _Registration) -> None:
        self._check_name(name)
        if not callable(served):
            raise TypeError(f"a handler must be callable, got {type(served).__name__}")
        if name in self._registered:
            raise ValueError(f"subprotocol {name!r} is registered already")
        self._registered[name] = registration

    def _registration(self, name: str | None) -> _Registration:
        registration: _Registration = self._registered[name]
        return registration

    # --- Listening ----------------------------------------------------------------------------------------

    async def start(
        self,
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        sock: socket | None = None,
        ssl: ssl_module.SSLContext | None = None,
        backlog: int = BACKLOG,
        threads: int = 1,
        **listen: Unpack[StartOptions],
    ) -> Server:
        """Listen on one more address; it can be called any number of times.

        Args:
            host: a name or an address, several of them, or None for all interfaces. Default: None.
            port: 0 for any free one; `sockets` tells which. Default: none.
            path: of a Unix socket, instead of host and port. Default: none.
            sock: a bound socket, instead of host and port. It is the server's from then on, and is closed with it.
                Default: none.
            ssl: for wss://, a server's context. Default: none.
            backlog: connections that the operating system may hold before they are accepted. Default: 1024.
            threads: how many event loops accept connections: the running one, and others of its kind, each in a thread
                of its own, where handlers and hooks run too. More than 1 pays on CPython without a GIL; see
                `docs/threads.md`. The port is then bound with `reuse_port`. Default: 1.
            listen: with host and port, `family`, `flags`, `reuse_address`, `reuse_port` and `keep_alive` as
                `loop.create_server` takes them; in any case ``start_serving=False`` to bind only.

        Raises:
            OSError: the address cannot be bound.
            ValueError: `path` is given together with host or port, or nothing at all; `ssl` is a client's context.
            RuntimeError: the server is closed, or was while this waited, or it runs on another event loop.
        """
        check_listen("start()", listen, LISTEN)
        check_threads(threads)
        check_address(host, port)
        backlog = check_backlog(backlog)
        check_values({"path": path, "sock": sock, **listen})
        self._attach()
        if threads > 1 and path is None and sock is None and hasattr(socket_module, "SO_REUSEPORT"):
            listen.setdefault("reuse_port", True)
        if self.topics is not None and not self._topics_started:
            self._topics_started = True
            try:
                await self.topics.start()
            except BaseException:
                self._topics_started = False
                raise
        factory: Callable[[], asyncio.BaseProtocol] = self._new_protocol
        check_context(ssl)
        if ssl is not None:
            factory = functools.partial(self._new_tls_transport, ssl)
        if path is not None and (host is not None or port is not None):
            raise ValueError("path goes without host and port")
        listening = await begin_listening(
            factory,
            host,
            port,
            path=path,
            sock=sock,
            backlog=backlog,
            logger=self.logger,
            has_room=self._has_room,
            **listen,
        )
        if self.closing:
            # `close` was called while the address was looked up, and could not close this listener.
            listening.close()
            raise RuntimeError("the server was closed before it listened")
        self._listening.append(listening)
        if threads > 1:
            if self._crew is None:
                self._crew = Crew(self)
            serving = listen.get("start_serving", True)
            await self._crew.listen(threads, listening.sockets, ssl=ssl, backlog=backlog, start_serving=serving)
        if self._crew is None or self._own_crew is not None:
            for bound in listening.sockets:
                self._tell_listening(bound.getsockname())
        return self

    def _has_room(self) -> bool:
        return self._surplus < _MOST_SURPLUS

    def new_protocol(self) -> asyncio.BaseProtocol:
        """Make the asyncio protocol of one more connection, for a transport that the server did not accept itself.

        It is what ``loop.connect_accepted_socket(server.new_protocol, sock)`` takes.

        Raises:
            RuntimeError: the server is closed, or runs on another event loop.
        """
        self._attach()
        return self._new_protocol()

    def _new_protocol(self) -> asyncio.BaseProtocol:
        opening = ServerOpening(self)
        return self._behind_proxy(opening, ConnectionProtocol(self._turn, opening))

    def _new_tls_transport(self, context: ssl_module.SSLContext) -> asyncio.BaseProtocol:
        assert self._loop is not None
        opening = ServerOpening(self)
        protocol = ConnectionProtocol(self._turn, opening)
        accepted: Callable[[Any], None] = opening.accepted
        tls = TLSTransport(protocol, buffer_of(self._loop), context, server_side=True, accepted=accepted)
        return self._behind_proxy(opening, tls)

    def _behind_proxy(self, opening: ServerOpening, protocol: asyncio.BufferedProtocol) -> asyncio.BaseProtocol:
        return protocol if self._proxies is None else Prelude(opening, self._sends_header, protocol)

    def _attach(self) -> asyncio.AbstractEventLoop:
        """Bind the server to the running event loop, on the first call."""
        loop = asyncio.get_running_loop()
        if self.closing:
            raise RuntimeError("the server is closed")
        if self._loop is None:
            self._loop = loop
            self.timer = CoarseTimer(loop)
            self._turn = turn_of(loop)  # which knows the loop's thread from now on
        elif self._loop is not loop:
            raise RuntimeError("the server runs on another event loop")
        return loop

    def publish(
        self,
        topic: str,
        message: str | BytesLike,
        *,
        key: str | None = None,
        text: bool | None = None,
        compress: bool | None = None,
    ) -> Awaitable[Position | None]:
        """Send a message to all who subscribed to a topic, in all processes; see `Topics.publish`.

        Raises:
            InvalidState: the server has no topics.
        """
        if self.topics is None:
            raise InvalidState("the server has no topics: give it some, Server(topics=wsfast.Topics())")
        return self.topics.publish(topic, message, key=key, text=text, compress=compress)

    @property
    def sockets(self) -> tuple[socket, ...]:
        """The listening sockets, of all addresses: ``server.sockets[0].getsockname()[1]`` is the first port."""
        return tuple(cast("socket", sock) for listening in self._listening for sock in listening.sockets)

    @property
    def connections(self) -> set[WebSocket]:
        """The connections that are open, or closing, as a new set."""
        return {ws for part in self._parts() for ws in part._own_connections()}

    def _own_connections(self) -> list[WebSocket]:
        # A connection that has ended is kept until its handler has; another thread may let go of it meanwhile.
        open_ones = [protocol for protocol in list(self._connections) if protocol.transport is not None]
        return [ws for protocol in open_ones if (ws := getattr(protocol, "ws", None)) is not None]

    @property
    def counters(self) -> dict[str, Any]:
        """Totals since the start, of all threads, as a new dict.

        ``connections`` open now, ``handshakes`` under way, ``opened`` so far, ``refused``: how many requests were
        answered by each HTTP status instead, by `process_request` or because they broke a rule, the sums of what
        `WebSocket.counters` has, ``latency``: the mean over the open connections whose latency is known (0.0 if none
        is), and ``causes``: how many ended by each `CloseCause`.
        """
        totals: Counter[str] = Counter()
        answered: Counter[int] = Counter()
        causes: Counter[str] = Counter()
        parts = self._parts() if self._crew is None else self._crew.parts + self._crew.ended
        connections: list[WebSocket] = []
        for part in parts:
            totals.update({name: getattr(part._totals, name) for name in COUNTED})
            answered.update(dict(part._answered))
            causes.update(dict(part._causes))
            connections += part._own_connections()
        for ws in connections:
            totals.update(ws.counters)
        latencies = [ws.latency for ws in connections if ws.latency]
        return {
            "connections": len(connections),
            "handshakes": sum(len(part._handshakes) for part in parts),
            "opened": sum(part._opened for part in parts),
            "refused": dict(answered),
            **{name: totals[name] for name in COUNTED},
            "latency": sum(latencies) / len(latencies) if latencies else 0.0,
            "causes": dict(causes),
        }

    async def serve_forever(
        self,
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        signals: bool = False,
        drain: float = 0.0,
        **listen: Unpack[ListenOptions],
    ) -> None:
        """Listen, if an address is given or none was before, and serve until cancelled; then stop in order.

        Args:
            host, port, listen: those of `start`.
            signals: True to stop in order, and return, on SIGINT and SIGTERM too; a second signal ends the process at
                once, as it does by default. Afterwards the signals are handled as before. Only in the main thread, and
                not on Windows. Default: False.
            drain: seconds over which `close` spreads the Close frames after a signal; default 0.

        Raises:
            ValueError: `drain` is negative, or not finite.
            OSError, ValueError, RuntimeError: those of `start`.
            RuntimeError: that of `wait_closed`.
        """
        check_drain(drain)
        told = False

        def stop() -> None:
            nonlocal told
            told = True
            self.close(drain=drain)

        with stopping_on_signals(stop) if signals else contextlib.nullcontext():
            if host is not None or port is not None or listen or not self._listening:
                try:
                    await self.start(host, port, **listen)
                except RuntimeError:
                    if not told:
                        raise
            await self._serve_until_told()

    async def _serve_until_told(self) -> None:
        try:
            await self._stopped()
        finally:
            self.close()
            await self.wait_closed()

    def is_serving(self) -> bool:
        """Tell whether the server accepts connections on any address."""
        return not self.closing and any(listening.is_serving() for listening in self._listening)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that the server runs on.

        Raises:
            RuntimeError: it has not listened yet.
        """
        if self._loop is None:
            raise RuntimeError("the server has not listened yet, and so belongs to no event loop")
        return self._loop

    async def start_serving(self) -> None:
        """Accept connections on the addresses that `start` was given ``start_serving=False`` for.

        Raises:
            RuntimeError: the server is closed.
        """
        self._attach()
        for listening in self._listening:
            await listening.start_serving()
        if (crew := self._own_crew) is not None:
            for part in crew.others:
                await crew.ask(part, part.start_serving())

    def close(
        self,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "",
        *,
        close_connections: bool = True,
        drain: float = 0.0,
    ) -> None:
        """Begin to stop: accept no more, and close each connection with 1001; `wait_closed` waits for the end.

        Connections get the closing handshake, and handlers the chance to end by themselves; handlers that are left when
        most of `stop_timeout` has passed are cancelled, and at its end connections are dropped. Opening handshakes
        under way are answered 503.

        Args:
            code: the close code to send. Default: 1001.
            reason: the close reason to send. Default: none.
            close_connections: False leaves the connections that are open to end by themselves, however long that takes;
                a later call may still close them. Default: True.
            drain: seconds over which the Close frames are spread, each sent at a random moment, so that the clients do
                not come back all at once. `stop_timeout` counts from their end on; a later call with 0, the default,
                closes those that are left at once.

        Raises:
            ValueError, TypeError: another code, a reason that is too long, or `drain` is negative or not finite.
            RuntimeError: this is another thread than the event loop's; ``loop.call_soon_threadsafe(server.close)`` is
                the way there.
        """
        check_drain(drain)
        encode_close(code, reason)  # a wrong code raises here, not in a task whose exception nobody sees
        crew = self._own_crew

        def close(part: Server) -> None:
            part.close(code, reason, close_connections=close_connections, drain=drain)

        if crew is not None and crew.here() is not self:
            # Called in a thread of a part: the program's own part tells the others.
            crew.tell_first(close)
            return
        if self._loop is not None and not self._loop.is_closed():
            self._turn.check_thread()
        if crew is not None:
            crew.tell_others(close)
        if not drain:
            self._hurry.set()
        if self.closing and (self._told_connections or not close_connections):
            return
        self.closing = True
        self._told_connections = close_connections
        for listening in self._listening:
            listening.close()
        if self._loop is not None and not self._loop.is_closed():
            self._stopping.append(self._loop.create_task(self._stop(code, reason, close_connections, drain)))
        self._told.set()

    async def drain(self, timeout: float) -> None:
        """Accept no more connections, and wait until the opening handshakes under way are finished.

        Open connections go on until `close`. Call it where another process takes over, so that no client is refused.

        Args:
            timeout: the most seconds to wait.
        """
        for listening in self._listening:
            listening.close()
        if self._loop is None:
            return
        end = self._loop.time() + timeout
        if (crew := self._own_crew) is not None:
            await asyncio.gather(*(crew.ask(part, part.drain(timeout)) for part in crew.others))
        # A connection that the event loop has accepted already becomes a handshake within the next turns.
        for _ in range(3):
            await asyncio.sleep(0)
        while self._handshakes and self._loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def wait_closed(self) -> None:
        """Wait until the server has stopped: `close` was called, and no connection and no handler is left.

        Raises:
            RuntimeError: the event loop of one of its `threads` has failed, which closed the server;
                ``__cause__`` is its exception.
        """
        await self._stopped()
        if (crew := self._own_crew) is not None and crew.failure is not None:
            raise RuntimeError("the server was closed because one of its threads has failed") from crew.failure

    async def _stopped(self) -> None:
        if self._loop is None:
            return
        await self._told.wait()
        if self._stopping:
            # After a `close` that left the connections open, this waits until a later call closes them.
            await asyncio.shield(self._stopping[-1])

    async def _stop(self, code: int, reason: str, close_connections: bool, drain: float) -> None:
        try:
            await self._stop_connections(code, reason, close_connections, drain)
            if (crew := self._own_crew) is not None:
                patient = self.stop_timeout is None or not close_connections
                await crew.join(None if patient else (self.stop_timeout or 0.0) + drain)
        finally:
            if self._topics_started and not self._connections:
                self._topics_started = False
                assert self.topics is not None
                await self.topics.close()

    async def _stop_connections(self, code: int, reason: str, close_connections: bool, drain: float) -> None:
        for handshake in list(self._handshakes):
            handshake.stop()
        if not close_connections:
            await self._settled(None)
            return
        await self._tell_connections(code, reason, drain)
        timeout = self.stop_timeout
        if await self._settled(None if timeout is None else timeout * 0.8):
            return
        assert timeout is not None
        for protocol in list(self._connections):
            if protocol.task is not None:
                protocol.task.cancel()
            protocol.abort(CloseCause.STOP)
        if not await self._settled(timeout * 0.2):
            left, running = len(self._connections), sum(protocol.task is not None for protocol in self._connections)
            told = "%s s after the server was told to stop %d connections are left, with %d handlers that still run"
            tell(self.logger.error, told, timeout, left, running)

    async def _tell_connections(self, code: int, reason: str, drain: float) -> None:
        """Begin to close all connections, over `drain` seconds in random order, or at once when `_hurry` is set."""
        loop = asyncio.get_running_loop()
        waiting = list(self._connections)
        if drain:
            random.shuffle(waiting)
        began = loop.time()
        for n, protocol in enumerate(waiting):
            # Each connection has an equal share of the time, and is closed at a random moment of it.
            left = began + drain * (n + random.random()) / len(waiting) - loop.time() if drain else 0.0
            if left > 0 and not self._hurry.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._hurry.wait()
            if protocol in self._connections:
                protocol.start_close(code, reason, CloseCause.STOP)

    async def _settled(self, timeout: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def __aenter__(self) -> Self:
        """Return the server itself; it listens on the addresses that `start` was given."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and wait for the end."""
        self.close()
        await self.wait_closed()

    # --- What the protocols call ----------------------------------------------------------------------------

    def _new_websocket(self, request: Request, peer: Known | None, transport: asyncio.Transport | None) -> WebSocket:
        """Make the `WebSocket` of a connection, for its hooks and its handler; hooks run before it has a transport."""
        return self._websocket_type(request, None, peer)

    def _handshake_began(self, handshake: ServerOpening) -> bool:
        """Register a connection that was accepted; return False if the server is stopping."""
        if self.closing:
            return False
        if self.max_connections is None:
            handshake.has_place = True
            self._places += 1
        elif self._crew is None:
            self._take_place(handshake, self._places)
        else:
            with self._crew.lock:
                self._take_place(handshake, sum(part._places for part in self._crew.parts))
        self._handshakes.add(handshake)
        return True

    def _take_place(self, handshake: ServerOpening, taken: int) -> None:
        """Give a handshake a place among `max_connections`, or note that there is none."""
        assert self.max_connections is not None
        if taken >= self.max_connections:
            handshake.surplus = True
            self._surplus += 1
        else:
            handshake.has_place = True
            self._places += 1

    def _handshake_ended(self, handshake: ServerOpening) -> None:
        """Record that an opening handshake was finished, refused or given up."""
        self._handshakes.discard(handshake)
        if handshake.has_place:
            handshake.has_place = False
            self._places -= 1
        if handshake.surplus:
            handshake.surplus = False
            self._surplus -= 1
            for listening in self._listening:
                listening.wake()

    def _request_answered(self, status_code: int) -> None:
        """Count a request that was answered by HTTP."""
        self._answered[status_code] = self._answered.get(status_code, 0) + 1

    def _open_connection(
        self,
        protocol: ConnectionProtocol,
        ws: WebSocket,
        transport: asyncio.Transport,
        compression: PerMessageDeflate | Chain | None,
        head: bytes,
        trailing: bytes,
    ) -> None:
        """Start a connection by the `head` that accepts it; `trailing` are the bytes that came behind the request."""
        registration = self._registration(ws.subprotocol)
        protocol.open(self, Side.SERVER, ws, transport, compression, head)
        self._note_response(ws, head)
        self._opened += 1
        try:
            if registration.listener is not None:
                protocol.use_listener(registration.listener(ws))
            elif registration.stream_handler is not None:
                streams = open_streams(protocol, text=registration.text, half_close=registration.half_close)
                self._run(protocol, registration.stream_handler(*streams))
            else:
                assert registration.handler is not None
                self._run(protocol, registration.handler(ws))
        except ENDS_PROGRAM:
            raise
        except BaseException as exc:
            self._handler_failed(protocol, exc)
        if trailing:
            protocol.feed(trailing)

    def _note_response(self, ws: WebSocket, head: bytes) -> None:
        """Keep the response that opened a connection where it cannot be made again: it has some 200 bytes."""
        if self.process_response is not None or self.limits.extensions:
            ws.response = head

    def _run(self, protocol: ConnectionProtocol, running: Awaitable[Any]) -> None:
        assert self._loop is not None
        loop = self._loop
        if isinstance(running, CoroutineType):
            task = loop.create_task(running)
        elif isawaitable(running):
            task = asyncio.ensure_future(running, loop=loop)
        else:
            raise TypeError(f"a handler must be an `async def` or return an awaitable, got {type(running).__name__}")
        protocol.task = task
        task.add_done_callback(protocol.handler_done)

    def _handler_done(self, protocol: ConnectionProtocol, task: asyncio.Task[Any]) -> None:
        protocol.task = None
        if task.cancelled():
            if self.closing:
                protocol.start_close(CloseCode.GOING_AWAY, "", CloseCause.STOP)
            else:
                self._tell_cancelled(protocol.ws)
                protocol.start_close(CloseCode.INTERNAL_ERROR, "", CloseCause.HANDLER_ERROR)
        else:
            exc = task.exception()
            if exc is not None:
                self._handler_failed(protocol, exc)
            elif protocol.connection.state is _OPEN:
                if protocol.ws.writer is not None:
                    protocol.ws.writer.finish()
                protocol.start_close(CloseCode.NORMAL_CLOSURE, "", CloseCause.LOCAL)
        protocol.discard()
        self._forget(protocol)

    def _tell_cancelled(self, ws: WebSocket) -> None:
        """Tell the log that a handler was cancelled though the server goes on; a face may be silent."""
        tell(self.logger.warning, "handler for subprotocol %r was cancelled", ws.subprotocol)

    def _handler_failed(self, protocol: ConnectionProtocol, exc: BaseException) -> None:
        """Close a connection with 1011 because its handler raised; log it once."""
        protocol.consumer_failed(exc)

    def _knows(self, protocol: ConnectionProtocol) -> bool:
        """Tell whether a connection is registered as open, and has not ended."""
        return protocol in self._connections

    def _connection_opened(self, protocol: ConnectionProtocol) -> None:
        """Register a connection that has just opened."""
        self._connections[protocol] = None
        self._idle.clear()

    def _connection_closed(self, protocol: ConnectionProtocol) -> None:
        """Record that a connection has ended; its handler may still run."""
        totals, session = self._totals, protocol.session
        # Spelt out: a loop over `COUNTED` takes three times as long.
        totals.messages_received += protocol.messages_received
        totals.messages_sent += protocol.messages_sent
        totals.bytes_received += protocol.bytes_received
        totals.bytes_sent += protocol.bytes_sent
        totals.pings_received += session.pings_received
        totals.pings_sent += session.pings_sent
        cause = protocol.connection.cause or CloseCause.LOST
        self._causes[cause] = self._causes.get(cause, 0) + 1
        self._tell_end(protocol.connection, protocol.ws)
        self._forget(protocol)

    def _forget(self, protocol: ConnectionProtocol) -> None:
        """Let go of a connection whose transport and handler have both ended."""
        if protocol.transport is None and protocol.task is None:
            if protocol in self._connections:
                del self._connections[protocol]
                self._places -= 1
            # The program may still hold the WebSocket, which refers to the protocol. With this cycle broken, both are
            # freed at once, and the garbage collector has no work with them.
            del protocol.ws
            if not self._connections:
                self._idle.set()
