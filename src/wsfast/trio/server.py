"""`serve` for trio: each connection has a task, which runs the opening handshake and the handler."""

from __future__ import annotations

import logging
import os
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final, Literal, TypeAlias

import trio

from wsfast.closing import encode_close
from wsfast.codes import CloseCause, CloseCode
from wsfast.connection import Side, State
from wsfast.deflate.negotiate import Deflate, as_deflate
from wsfast.exceptions import ConnectionClosed, HandshakeRefused
from wsfast.handshake import HeadLimits, Origins, Request, RequestParser, Response, refuse
from wsfast.handshake.http11 import MAX_HEAD, MAX_HEADERS, MAX_LINE
from wsfast.handshake.uri import format_address
from wsfast.options import refuse_unknown
from wsfast.serving import STOPPING, Reception, check_server_options, handlers_of, tell_end
from wsfast.session import LINGER, Limits
from wsfast.transport.binding import SocketFile, bind

from .stream import CHUNK, Transport, close_now, secure
from .websocket import WebSocket

__all__ = ["Handler", "Server", "serve", "unix_serve"]

Handler: TypeAlias = Callable[[WebSocket], Awaitable[object]]
ProcessRequest: TypeAlias = Callable[[WebSocket, Request], "Response | Awaitable[Response | None] | None"]
ProcessResponse: TypeAlias = Callable[[WebSocket, Request, Response], "Response | Awaitable[Response | None] | None"]
SelectSubprotocol: TypeAlias = Callable[[WebSocket, Sequence[str]], "str | None"]

_MOST_SURPLUS: Final = 64
"""Connections that are refused at a time because there are too many; others are dropped."""
_LISTEN: Final = frozenset({"backlog", "family", "flags", "keep_alive", "reuse_address", "reuse_port"})


class Server(Reception):
    """A server that `serve` runs, as ``await nursery.start(...)`` returns it."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        handlers: Mapping[str | None, Handler],
        limits: Limits,
        head_limits: HeadLimits,
        *,
        ssl: ssl_module.SSLContext | None,
        file: SocketFile | None,
        max_connections: int | None,
        stop_timeout: float | None,
        create_connection: Callable[..., WebSocket],
        **options: Any,
    ) -> None:
        super().__init__(limits, head_limits, handlers, **options)
        self._sockets = list(sockets)
        self._ssl = ssl
        self._file = file
        self._max_connections = max_connections
        self._stop_timeout = stop_timeout
        self._create_connection = create_connection
        self._served: dict[trio.lowlevel.Task, WebSocket | None] = {}  # None in the opening handshake
        self._openings: set[trio.CancelScope] = set()
        self._surplus = 0  # connections that are being refused
        self._told_full = False
        self._changed = trio.lowlevel.ParkingLot()  # a connection has ended
        self._accepting = trio.CancelScope()
        self._handling = trio.CancelScope()
        self._listening_ended = trio.Event()

    def __repr__(self) -> str:
        return f"<wsfast.trio.Server {'closing' if self.closing else 'open'}, {len(self._served)} connections>"

    # --- What it is

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The sockets that it listens on, one for each address of `host`; none once it is closed."""
        return tuple(self._sockets)

    @property
    def connections(self) -> set[WebSocket]:
        """The connections that are open, as a new set."""
        return {ws for ws in self._served.values() if ws is not None and ws.state is State.OPEN}

    # --- What it does

    async def shutdown(
        self, close_connections: bool = True, code: int = CloseCode.GOING_AWAY, reason: str = ""
    ) -> None:
        """Stop: accept no more, close each connection with 1001, and wait until all handlers have returned.

        Who is in the opening handshake is answered 503, if the request has come. When most of `stop_timeout` has passed
        the handlers that are left are cancelled; at its end their connections are dropped. A handler that calls this is
        not waited for. Then `serve` returns.

        Args:
            close_connections: False waits for connections that are open to end by themselves, however long that takes.
            code: the close code to send.
            reason: the close reason to send.

        Raises:
            ValueError, TypeError: another code, or a reason that is too long.
        """
        encode_close(code, reason)
        timeout = self._stop_timeout if close_connections else None
        end = inf if timeout is None else trio.current_time() + timeout
        self.closing = True
        self._accepting.cancel()
        for scope in self._openings:
            scope.cancel()
        if close_connections:
            for ws in self._served.values():
                if ws is not None:
                    ws._begin_close(code, reason, CloseCause.STOP)
        await self._listening_ended.wait()
        if await self._wait_for_others(end if timeout is None else end - 0.2 * timeout):
            return
        self._handling.cancel()
        if not await self._wait_for_others(end):
            for ws in self._others():
                if ws is not None:
                    ws._abort(CloseCause.STOP)
            self.logger.error("handlers were still running %s s after the server was told to stop", timeout)

    def _others(self) -> list[WebSocket | None]:
        current = trio.lowlevel.current_task()
        return [ws for task, ws in self._served.items() if task is not current]

    async def _wait_for_others(self, deadline: float) -> bool:
        with trio.CancelScope(deadline=deadline):
            while self._others():
                await self._changed.park()
        return not self._others()

    async def _run(self, task_status: trio.TaskStatus[Server]) -> None:
        try:
            listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in self._sockets]
            for sock in self._sockets:
                self.logger.info("listening on %s", format_address(sock.getsockname()))
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

    def _release(self) -> None:
        """Close what is listened on."""
        self.closing = True
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            sock.close()
        if self._file is not None:
            self._file.remove()
        self._listening_ended.set()

    # --- One connection

    async def _serve_one(self, inner: trio.abc.Stream) -> None:
        transport = Transport(inner)
        full = self._max_connections is not None and len(self._served) >= self._max_connections
        if full != self._told_full:
            self._told_full = full
            if full:
                told = "connections are refused: there are %d, as many as max_connections allows"
                self.logger.warning(told, self._max_connections)
        if full:
            await self._refuse(transport)
            return
        task = trio.lowlevel.current_task()
        self._served[task] = None
        try:
            ws = await self._open(transport)
            if ws is not None:
                self._served[task] = ws
                await self._handle(ws)
        except Exception as exc:
            self.logger.error("a connection's task failed", exc_info=exc)
        finally:
            await close_now(transport)
            del self._served[task]
            self._changed.unpark_all()

    async def _refuse(self, transport: Transport) -> None:
        if self._ssl is not None or self._surplus >= _MOST_SURPLUS:
            await close_now(transport)
            return
        self._surplus += 1
        try:
            refused = refuse(503, "There are too many connections", headers={"Retry-After": "1"})
            await self._answer(transport, transport, refused.response, None)
        finally:
            self._surplus -= 1

    async def _open(self, transport: Transport) -> WebSocket | None:
        """Do the opening handshake; None if it ends without an open connection."""
        stream: trio.abc.Stream = transport
        peer = transport.address("getpeername")
        request: Request | None = None
        answer: Any = None
        accepted = False
        timeout = self.limits.open_timeout
        with trio.CancelScope(deadline=inf if timeout is None else trio.current_time() + timeout) as scope:
            self._openings.add(scope)
            try:
                if self._ssl is not None:
                    stream = await secure(transport, self._ssl, server_side=True)
                parser = RequestParser(self._head_limits)
                while request is None:
                    data = await stream.receive_some(CHUNK)
                    if not data:
                        raise ConnectionResetError("the client ended it")
                    request = parser.feed(data)
                ws = self._create_connection(transport, self.limits, stream=stream, request=request, logger=self.logger)
                answer = await self.respond(ws, request)
                if self.closing or isinstance(answer, Response):
                    await trio.lowlevel.checkpoint_if_cancelled()
                else:
                    accepted = True
                    await stream.send_all(answer.head)
                    ws._open(
                        Side.SERVER,
                        Response.from_head(answer.head),
                        answer.subprotocol,
                        answer.compression,
                        parser.trailing,
                    )
                    if self.closing:
                        ws._begin_close(CloseCode.GOING_AWAY, "", CloseCause.STOP)
                    return ws
            except HandshakeRefused as exc:
                answer = self.refused(exc, peer)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                told = "connection from %s ended before its opening handshake: %a"
                self.logger.debug(told, format_address(peer), str(exc.__cause__ or exc))
                return None
            finally:
                self._openings.discard(scope)
        if accepted:
            return None
        if scope.cancelled_caught and not self.closing:
            told = "connection from %s refused: its opening handshake took too long"
            self.logger.info(told, format_address(peer))
            return None
        if not isinstance(answer, Response):
            if request is None:
                return None
            answer = refuse(503, STOPPING).response
        await self._answer(transport, stream, answer, request)
        return None

    async def _answer(
        self, transport: Transport, stream: trio.abc.Stream, response: Response, request: Request | None
    ) -> None:
        """Send a response, and end (RFC 9112, 9.6: in steps, so that the peer can read it)."""
        transport.linger = True
        with trio.move_on_after(LINGER), suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(self.serialize(response, request))
            await stream.aclose()

    async def _handle(self, ws: WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws._work)
            code, cause = CloseCode.INTERNAL_ERROR, CloseCause.HANDLER_ERROR
            try:
                await self._registered[ws.subprotocol](ws)
                code, cause = CloseCode.NORMAL_CLOSURE, CloseCause.LOCAL
            except BaseException as exc:
                errors, others = _parted(exc)
                if errors is not None and (ws.state is State.OPEN or not _tells_of_the_end(errors)):
                    self.logger.error("handler for subprotocol %r raised", ws.subprotocol, exc_info=errors)
                if others is not None:
                    # It is cancelled: the server stops.
                    code, cause = CloseCode.GOING_AWAY, CloseCause.STOP
                    if others is exc:
                        raise
                    raise others from None
            finally:
                await ws._leave(code, cause)
                tell_end(self.logger, ws._connection, ws.remote_address)


class _Started(trio.TaskStatus[Any]):
    """What `trio.serve_listeners` tells that it has started; who waits for the server is told of the server."""

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


def _tells_of_the_end(exc: BaseException) -> bool:
    """Tell whether an exception only says that the connection has ended, which is no fault of the handler's."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(ConnectionClosed)[1] is None
    return isinstance(exc, ConnectionClosed)


async def serve(
    handler: Handler | Mapping[str | None, Handler],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    sock: socket.socket | None = None,
    path: str | os.PathLike[str] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    subprotocols: Sequence[str] | None = None,
    process_request: ProcessRequest | None = None,
    process_response: ProcessResponse | None = None,
    origins: Origins | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: Literal["deflate"] | Deflate | None = None,
    max_line: int = MAX_LINE,
    max_head: int = MAX_HEAD,
    max_headers: int = MAX_HEADERS,
    max_connections: int | None = None,
    max_size: int | None = 1048576,
    max_fragments: int | None = None,
    read_limit: int = 65536,
    write_limit: int = 65536,
    open_timeout: float | None = 10.0,
    ping_interval: float | None = 20.0,
    ping_timeout: float | None = 20.0,
    close_timeout: float | None = 10.0,
    stop_timeout: float | None = 10.0,
    response_headers: Mapping[str, str] | None = None,
    server_header: str | None = "wsfast",
    logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    create_connection: Callable[..., WebSocket] | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **listen: Any,
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
    cancelled, so are the handlers, and their connections are closed with 1001, within `close_timeout`.

    Args:
        handler: an async function that is called with each `WebSocket`, or a mapping of subprotocols to such functions,
            None being the key for clients that offer none.
        host: a name or an address, several of them, or None for all interfaces.
        port: 0 for any free one; ``server.sockets[0].getsockname()[1]`` tells which.
        sock: a bound socket, instead of host and port.
        path: of a Unix socket, instead of host and port.
        ssl: for wss://, a server's context.
        subprotocols: names that a single `handler` serves as well as clients that offer none.
        process_request, process_response, select_subprotocol: hooks as of `wsfast.Server`, plain or async functions.
        origins, compression, response_headers, server_header: those of `wsfast.Server`.
        max_line, max_head, max_headers, max_size, max_fragments, read_limit, write_limit: those of `wsfast.Server`.
        open_timeout, ping_interval, ping_timeout, close_timeout: those of `wsfast.Server`.
        max_connections: the most connections at a time, those in their opening handshake and those whose handler has
            not returned among them; who comes then is answered 503. None, the default, for no limit.
        stop_timeout: seconds for `Server.shutdown` to end in; None waits for handlers however long they take.
            Default: 10.
        logger: default: ``logging.getLogger("wsfast.server")``.
        create_connection: called in place of `WebSocket`, a subclass of it mostly.
        task_status: told of the `Server` once it listens; for ``nursery.start``.
        listen: `backlog`, the connections that the system may hold before they are accepted (default 1024); with host
            and port, `family`, `flags`, `reuse_address`, `reuse_port` and `keep_alive` as `asyncio` takes them.

    Raises:
        OSError: the address is not to be had.
        ValueError, TypeError: an argument is wrong; the text names it.
    """
    refuse_unknown("serve()", listen, [*_LISTEN, *_OPTIONS])
    check_server_options(max_connections, stop_timeout, ssl)
    reception = {
        "process_request": process_request,
        "process_response": process_response,
        "origins": origins,
        "select_subprotocol": select_subprotocol,
        "response_headers": response_headers,
        "server_header": server_header,
        "logger": logging.getLogger("wsfast.server") if logger is None else logger,
    }
    limits = Limits(
        max_size=max_size,
        max_fragments=max_fragments,
        read_limit=read_limit,
        write_limit=write_limit,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        compression=as_deflate(compression),
    )
    head_limits = HeadLimits.checked(max_line=max_line, max_head=max_head, max_headers=max_headers)
    handlers = handlers_of(handler, subprotocols)
    Reception(limits, head_limits, handlers, **reception)  # type: ignore[arg-type] # raises before anything is bound
    backlog = listen.pop("backlog", 1024)
    sockets, file = await trio.to_thread.run_sync(bind, host, port, sock, path, listen)
    try:
        for one in sockets:
            one.listen(backlog)
        server = Server(
            sockets,
            handlers,
            limits,
            head_limits,
            ssl=ssl,
            file=file,
            max_connections=max_connections,
            stop_timeout=stop_timeout,
            create_connection=WebSocket if create_connection is None else create_connection,
            **reception,
        )
    except BaseException:
        for one in sockets:
            one.close()
        if file is not None:
            file.remove()
        raise
    await server._run(task_status)


_OPTIONS: Final = frozenset(serve.__kwdefaults__ or {})


async def unix_serve(
    handler: Handler | Mapping[str | None, Handler], path: str | os.PathLike[str] | None = None, **options: Any
) -> None:
    """Serve on a Unix socket.

    Args:
        handler, options: those of `serve`.
        path: of the socket; None if `sock` is given. Its file is removed at the end.

    Raises:
        ValueError: neither `path` nor `sock` is given, or both are; else those of `serve`.
    """
    if (path is None) == (options.get("sock") is None):
        raise ValueError("expected either path or sock")
    await serve(handler, path=path, **options)
