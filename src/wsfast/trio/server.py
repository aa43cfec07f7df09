"""`serve` for trio: each connection has a task, which runs the opening handshake and the handler."""

from __future__ import annotations

import os
import socket
import ssl as ssl_module
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack

import trio

from wsfast.closing import encode_close
from wsfast.codes import CloseCause, CloseCode
from wsfast.connection import Side, State
from wsfast.exceptions import ConnectionClosed, HandshakeRefused, is_only
from wsfast.handlers import check_handler
from wsfast.handshake import Request, RequestParser, Response, refuse
from wsfast.handshake.forwarded import Proxied, read_proxied
from wsfast.options import connection_class, refuse_unknown
from wsfast.serving import (
    STOPPING,
    CountingServer,
    ServerOptions,
    check_context,
    finish_answer,
    handlers_of,
    used_topics,
)
from wsfast.session import LINGER
from wsfast.transport.binding import (
    BACKLOG,
    EXHAUSTED,
    PAUSE,
    BindOptions,
    GivenSocket,
    Refusals,
    SocketFile,
    bind,
    check_backlog,
    part_listen,
)
from wsfast.transport.unacknowledged import Progress, unacknowledged

from ..telling import tell
from .bytestream import StreamBroken
from .stream import CHUNK, Transport, as_os_error, close_now, secure
from .websocket import WebSocket

if TYPE_CHECKING:
    from wsfast.bus import Position
    from wsfast.events import BytesLike
    from wsfast.topics import Present, Published, Topics

    from .topics import Bridge

__all__ = ["Handler", "Server", "serve", "unix_serve"]

Handler: TypeAlias = Callable[[WebSocket], Awaitable[object]]
ProcessRequest: TypeAlias = Callable[[WebSocket, Request], "Response | Awaitable[Response | None] | None"]
ProcessResponse: TypeAlias = Callable[[WebSocket, Request, Response], "Response | Awaitable[Response | None] | None"]
SelectSubprotocol: TypeAlias = Callable[[WebSocket, Sequence[str]], "str | None"]

_PIECE: Final = 4096
"""Bytes of a response that are sent at a time, so that it shows that a slow peer takes them."""
_MOST_SURPLUS: Final = 64
"""With `max_connections` reached, so many clients at a time are answered 503; others are dropped."""


class ServeOptions(ServerOptions, BindOptions, total=False):
    """The options of `serve`, for type checkers."""

    process_request: ProcessRequest | None
    process_response: ProcessResponse | None
    select_subprotocol: SelectSubprotocol | None
    topics: Topics | None


class Server(CountingServer):
    """A server that `serve` runs, as ``await nursery.start(...)`` returns it.

    Attributes:
        topics: the argument of `serve`.
    """

    def __init__(
        self,
        handlers: Mapping[str | None, Handler],
        *,
        ssl: ssl_module.SSLContext | None,
        create_connection: Callable[..., WebSocket],
        topics: Topics | None = None,
        **options: Any,
    ) -> None:
        check_context(ssl)
        super().__init__(handlers, **options)
        if topics is not None:
            from wsfast.topics.thread import check_topics  # with asyncio, which is not needed without

            check_topics(topics)
        self.topics: Topics | None = topics
        self._bridge: Bridge | None = None
        self._ssl = ssl
        self._create_connection = create_connection
        self._sockets: list[socket.socket] = []
        self._left: SocketFile | GivenSocket | None = None
        self._served: dict[trio.lowlevel.Task, WebSocket | None] = {}  # None in the opening handshake
        self._openings: set[trio.CancelScope] = set()
        self._surplus = 0  # connections that are being refused
        self._changed = trio.lowlevel.ParkingLot()  # a connection has ended
        self._accepting = trio.CancelScope()
        self._handling = trio.CancelScope()
        self._listening_ended = trio.Event()

    def __repr__(self) -> str:
        return f"<wsfast.trio.Server {'closing' if self.closing else 'open'}, {len(self._served)} connections>"

    # --- What it is

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets, one for each address of `host`; empty once the server is closed."""
        return tuple(self._sockets)

    @property
    def connections(self) -> set[WebSocket]:
        """The connections that are open, as a new set."""
        return {ws for ws in self._served.values() if ws is not None and ws._connection.state is State.OPEN}

    # --- What it does

    async def shutdown(
        self, close_connections: bool = True, code: int = CloseCode.GOING_AWAY, reason: str = ""
    ) -> None:
        """Stop: accept no more, close each connection with 1001, and wait until all handlers have returned.

        An opening handshake under way is answered 503, if the request has come. When most of `stop_timeout` has passed
        the handlers that are left are cancelled; at its end their connections are dropped. A handler that calls this is
        not waited for. Then `serve` returns.

        Args:
            close_connections: False waits for connections that are open to end by themselves, however long that takes.
                Default: True.
            code: the close code to send. Default: 1001.
            reason: the close reason to send. Default: none.

        Raises:
            ValueError, TypeError: another code, or a reason that is too long.
        """
        encode_close(code, reason)
        timeout = self.stop_timeout if close_connections else None
        end = inf if timeout is None else trio.current_time() + timeout
        self.closing = True
        self._accepting.cancel()
        for scope in self._openings:
            scope.cancel()
        if close_connections:
            for ws in self._served.values():
                if ws is not None:
                    ws._start_close(code, reason, CloseCause.STOP)
        await self._listening_ended.wait()
        if await self._wait_for_others(end if timeout is None else end - 0.2 * timeout):
            return
        self._handling.cancel()
        if not await self._wait_for_others(end):
            for ws in self._others():
                if ws is not None:
                    ws._abort(CloseCause.STOP)
            tell(self.logger.error, "handlers were still running %s s after the server was told to stop", timeout)

    # --- Topics

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
            InvalidState: the server has no topics, or is closed.
        """
        bridge = self._topics_bridge()
        return bridge.hub.publish(topic, message, key, text, compress, None, bridge.part())

    def present(self, topic: str) -> list[Present]:
        """Return who is present in a topic; see `Topics.present`."""
        return self._topics_bridge().topics.present(topic)

    def history(self, topic: str, since: Position | str | None = None) -> AsyncIterator[Published]:
        """Iterate over the messages that are kept of a topic, oldest first; see `Topics.history`."""
        bridge = self._topics_bridge()
        return bridge.hub.history(bridge.part(), topic, since)

    def _topics_bridge(self) -> Bridge:
        return used_topics(self.topics, self._bridge)

    # --- The end

    def _others(self) -> list[WebSocket | None]:
        current = trio.lowlevel.current_task()
        return [ws for task, ws in self._served.items() if task is not current]

    async def _wait_for_others(self, deadline: float) -> bool:
        with trio.CancelScope(deadline=deadline):
            while self._others():
                await self._changed.park()
        return not self._others()

    async def _run(
        self,
        sockets: list[socket.socket],
        left: SocketFile | GivenSocket | None,
        backlog: int,
        task_status: trio.TaskStatus[Server],
    ) -> None:
        self._sockets, self._left = sockets, left
        try:
            if self.topics is not None:
                from .topics import Bridge

                bridge = Bridge(self.topics)
                await bridge.start()
                self._bridge = bridge
            for sock in sockets:
                sock.listen(backlog)
            refusals = Refusals(self.logger)
            listeners = [_Listener(one, refusals) for one in self._listeners()]
            for sock in self._sockets:
                self._tell_listening(sock.getsockname())
            async with trio.open_nursery() as handling:
                self._handling = handling.cancel_scope
                with self._accepting:
                    try:
                        await trio.serve_listeners(
                            self._serve_one,
                            listeners,
                            handler_nursery=handling,
                            task_status=_Started(self, task_status),
                        )
                    finally:
                        self._release()
        finally:
            self._release()
            ended, self._bridge = self._bridge, None
            if ended is not None:
                with trio.CancelScope(shield=True):
                    await ended.close()

    def _listeners(self) -> list[trio.SocketListener]:
        return [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in self._sockets]

    def _release(self) -> None:
        """Close the listening sockets."""
        self.closing: bool = True
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            sock.close()
        if self._left is not None:
            self._left.remove()
        self._listening_ended.set()

    # --- One connection

    async def _serve_one(self, inner: trio.abc.Stream) -> None:
        transport = Transport(inner)
        if self._is_full(len(self._served)):
            await self._refuse(transport)
            return
        task = trio.lowlevel.current_task()
        self._served[task] = ws = None
        try:
            ws = await self._open(transport)
            if ws is not None:
                await self._handle(ws)
        except Exception as exc:
            tell(self.logger.error, "a connection's task failed", exc_info=exc)
        finally:
            await close_now(transport)
            known = self._served.pop(task)
            if known is not None and ws is None:
                known._never_ran()
                self._connection_ended(known)
            self._changed.unpark_all()

    async def _refuse(self, transport: Transport) -> None:
        if self._ssl is not None or self._surplus >= _MOST_SURPLUS:
            await close_now(transport)
            return
        self._surplus += 1
        try:
            await self._send(transport, transport, self._no_room().response, None)
        finally:
            self._surplus -= 1

    async def _open(self, transport: Transport) -> WebSocket | None:
        """Do the opening handshake; None if it ends without an open connection."""
        stream: trio.abc.Stream = transport
        peer = transport.address("getpeername")
        request: Request | None = None
        proxied: Proxied | None = None
        answer: Any = None
        accepted = set_up = False
        timeout = self.limits.open_timeout
        with trio.CancelScope(deadline=inf if timeout is None else trio.current_time() + timeout) as scope:
            self._openings.add(scope)
            try:
                if self._sends_header(peer):
                    proxied = await self._take_proxied(transport, peer)
                    if proxied is None:
                        return None
                    peer = proxied.source or peer
                if self._ssl is not None:
                    stream = await secure(transport, self._ssl, server_side=True)
                set_up = True
                parser = RequestParser(self.head_limits)
                while request is None:
                    data = await stream.receive_some(CHUNK)
                    if not data:
                        raise ConnectionResetError("the client ended it")
                    request = parser.feed(data)
                try:
                    ws = self._create_connection(
                        transport, self.limits, stream=stream, request=request, logger=self.logger
                    )
                    ws._bridge = self._bridge
                    peer = self._place(ws, request, peer, proxied)
                except Exception as exc:  # of the program's class
                    answer = self._failed(exc)
                else:
                    answer = await finish_answer(self._answer(ws, request, lambda: peer))
                if self.closing or isinstance(answer, Response):
                    await trio.lowlevel.checkpoint_if_cancelled()
                else:
                    accepted = True
                    # First, so that the server knows of it by the time that the client does.
                    ws._open(
                        Side.SERVER,
                        Response.from_head(answer.head),
                        answer.subprotocol,
                        answer.compression,
                        parser.trailing,
                    )
                    self._served[trio.lowlevel.current_task()] = ws
                    self._connection_opened(ws)
                    await stream.send_all(answer.head)
                    return ws
            except HandshakeRefused as exc:
                answer = self._unreadable(exc, peer)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                self._tell_early_end(peer, request, str(as_os_error(exc, str(exc))), set_up)
                return None
            finally:
                self._openings.discard(scope)
        if accepted:
            return None
        if scope.cancelled_caught and not self.closing:
            self._tell_late(peer, request, set_up)
            return None
        if not isinstance(answer, Response):
            if request is None:
                return None
            answer = refuse(503, STOPPING).response
        await self._send(transport, stream, answer, request)
        return None

    async def _take_proxied(self, transport: Transport, peer: Any) -> Proxied | None:
        """Receive the header of the PROXY protocol; None if it is not valid, which the log is told."""
        held = b""
        while True:
            data = await transport.receive_some(CHUNK)
            if not data:
                raise ConnectionResetError("the proxy ended it")
            held += data
            try:
                proxied = read_proxied(held)
            except ValueError as exc:
                self._tell_no_header(exc, peer)
                return None
            if proxied is not None:
                transport.early = held[proxied.size :]
                return proxied

    async def _send(
        self, transport: Transport, stream: trio.abc.Stream, response: Response, request: Request | None
    ) -> None:
        """Send a response, and end (RFC 9112, 9.6: in steps, so that the peer can read it)."""
        transport.linger = True
        status_code, data = self._serialize(response, request)
        self._request_answered(status_code)
        rest = len(data)

        async def give_up() -> None:
            progress = Progress(rest)
            while True:
                await trio.sleep(LINGER)
                if self.closing or not progress.goes_on(rest + unacknowledged(transport.sock)):
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                while rest:
                    start = len(data) - rest
                    await stream.send_all(data[start : start + _PIECE])
                    rest = max(0, rest - _PIECE)
                await stream.aclose()
            nursery.cancel_scope.cancel()

    def _places(self) -> int:
        return len(self._served)

    async def _handle(self, ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws._work)
            code, cause = CloseCode.INTERNAL_ERROR, CloseCause.HANDLER_ERROR
            try:
                await self._registered[ws.subprotocol](ws)
                code, cause = CloseCode.NORMAL_CLOSURE, CloseCause.LOCAL
            except BaseException as exc:
                errors, others = _parted(exc)
                if errors is not None and (
                    ws._connection.state is State.OPEN
                    or self._tells_closed
                    or not is_only(errors, (ConnectionClosed, StreamBroken))
                ):
                    self._tell_failure(ws, errors)
                if others is not None:
                    # It was cancelled, or it raised what trio passes on: either way the server stops.
                    if is_only(others, (trio.Cancelled,)):
                        code, cause = CloseCode.GOING_AWAY, CloseCause.STOP
                    if others is exc:
                        raise
                    raise others from None
            finally:
                await ws._leave(code, cause)
                self._connection_ended(ws)


class _Listener(trio.abc.Listener[trio.SocketStream]):
    """A listener that waits while the system refuses to accept, where `trio.serve_listeners` would log each try."""

    def __init__(self, inner: trio.SocketListener, refusals: Refusals) -> None:
        self._inner = inner
        self._refusals = refusals

    async def accept(self) -> trio.SocketStream:
        """Wait for a connection."""
        while True:
            try:
                stream = await self._inner.accept()
            except OSError as exc:
                if exc.errno not in EXHAUSTED:
                    raise
                self._refusals.refused(exc, trio.current_time())
                await trio.sleep(PAUSE)
            else:
                self._refusals.accepted(trio.current_time())
                return stream

    async def aclose(self) -> None:
        """Listen no more."""
        await self._inner.aclose()


class _Started(trio.TaskStatus[Any]):
    """The `task_status` for `trio.serve_listeners`: when that has started, it passes on the `Server`."""

    def __init__(self, server: Server, task_status: trio.TaskStatus[Server]) -> None:
        self._server = server
        self._task_status = task_status

    def started(self, value: object = None) -> None:
        """Pass it on."""
        self._task_status.started(self._server)


def _parted(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Part what a handler raised: errors of its own, and what must go on, as `trio.Cancelled` has to."""
    if isinstance(exc, Exception):
        return exc, None
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(Exception)
    return None, exc


async def serve(
    handler: Handler | Mapping[str | None, Handler],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    sock: socket.socket | None = None,
    path: str | os.PathLike[str] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    subprotocols: Sequence[str] | None = None,
    create_connection: type[WebSocket] | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve WebSocket connections, until it is cancelled or `Server.shutdown` is called.

    ::

        async def echo(ws):
            async for message in ws:
                await ws.send(message)

        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(wsfast.trio.serve, echo, "127.0.0.1", 8765))
            ...
            await server.shutdown()

    Returning from a handler closes the connection with 1000; an exception closes it with 1011 and is logged. If this is
    cancelled, so are the handlers, and their connections are closed with 1001, within `close_timeout`. What a handler
    raises that is not an `Exception`, such as SystemExit, is passed on, as trio does everywhere: it closes that
    connection with 1011, cancels the others, and comes out of this in an exception group.

    Args:
        handler: an async function that is called with each `WebSocket`, or a mapping of subprotocols to such functions,
            None being the key for clients that offer none.
        host: a name or an address, several of them, or None for all interfaces. Default: None.
        port: 0 for any free one; ``server.sockets[0].getsockname()[1]`` tells which. Default: none.
        sock: a bound socket, instead of host and port. It is the server's from then on, and is closed with it. Default:
            none.
        path: of a Unix socket, instead of host and port. Default: none.
        ssl: for wss://, a server's context. Default: none.
        subprotocols: names that a single `handler` serves as well as clients that offer none. Default: none.
        process_request, process_response, select_subprotocol: hooks as of `wsfast.Server`, plain or async functions.
        origins, proxy_protocol, forwarded, compression, response_headers, server_header: those of `wsfast.Server`.
        max_line, max_head, max_headers, max_size, max_fragments, read_limit, write_limit: those of `wsfast.Server`.
        open_timeout, ping_interval, ping_timeout, close_timeout: those of `wsfast.Server`.
        topics: a `wsfast.Topics`, to which connections can subscribe. It runs on an asyncio event loop in a thread;
            there `on_gap`, `on_presence`, and `encode` for messages from the bus, are called.
        max_connections: the most connections at a time, those in their opening handshake and those whose handler has
            not returned among them; further clients are answered 503. None, the default, for no limit.
        stop_timeout: seconds within which `Server.shutdown` ends; None waits for handlers however long they take.
            Default: 10.
        logger: default: ``logging.getLogger("wsfast.server")``.
        create_connection: the class of the connections: a subclass of `WebSocket` with methods of the program's own.
            If it has an `__init__`, that takes the arguments of `WebSocket` and passes them on. Default: `WebSocket`.
        task_status: told of the `Server` once it listens; for ``nursery.start``.
        options: those above without a default in the signature, and `backlog`, the connections that the system may hold
            before they are accepted (default 1024); with host and port, `family`, `flags`, `reuse_address`,
            `reuse_port` and `keep_alive` as `asyncio` takes them.

    Raises:
        OSError: the address cannot be bound.
        ValueError, TypeError: an argument is wrong; the text names it.
    """
    refuse_unknown("serve()", options, ServeOptions.__annotations__, serve.__kwdefaults__ or ())
    listen, rest = part_listen(options)
    handlers = handlers_of(handler, subprotocols)
    for each in handlers.values():
        check_handler(each, "ws")
    server = Server(
        handlers,
        ssl=ssl,
        create_connection=connection_class(create_connection, WebSocket),
        **rest,
    )
    backlog = check_backlog(listen.pop("backlog", BACKLOG))
    sockets, file = await trio.to_thread.run_sync(bind, host, port, sock, path, listen)
    await server._run(sockets, file, backlog, task_status)


async def unix_serve(
    handler: Handler | Mapping[str | None, Handler], path: str | os.PathLike[str] | None = None, **options: Any
) -> None:
    """Serve on a Unix socket.

    Args:
        handler, options: those of `serve`.
        path: of the socket; None if `sock` is given. Its file is removed at the end. Default: none.

    Raises:
        ValueError: neither `path` nor `sock` is given, or both are; else those of `serve`.
    """
    if (path is None) == (options.get("sock") is None):
        raise ValueError("expected either path or sock")
    await serve(handler, path=path, **options)
