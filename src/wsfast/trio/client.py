"""`connect` for trio."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from math import inf
from types import TracebackType
from typing import Any, Unpack

import trio

from wsfast.codes import CloseCause, CloseCode
from wsfast.connection import Side
from wsfast.dial.reconnect import Attempts, backoff, process_exception, was_lost
from wsfast.dial.settings import BODY_PATIENCE, ClientOptions, ClientSettings, Hops, part_settings
from wsfast.exceptions import InvalidStatus
from wsfast.handshake import URI, ClientHandshake, Response, ResponseParser
from wsfast.options import check_values, connection_class

from ..telling import tell
from .dial import TrioDialer
from .stream import CHUNK, as_os_error, close_now
from .websocket import WebSocket

__all__ = ["connect", "unix_connect"]


class ConnectOptions(ClientOptions, total=False):
    """The options of `connect`, for type checkers."""

    path: str | os.PathLike[str] | None
    happy_eyeballs_delay: float | None
    create_connection: type[WebSocket] | None


class connect(ClientSettings):  # noqa: N801
    """Connect to a WebSocket server.

    ::

        async with connect("wss://example.com/chat") as ws:  # closes at the end
            await ws.send("hello")
            print(await ws.recv())

        ws = await connect("wss://example.com/chat", nursery=nursery)  # then: await ws.close()

        async for ws in connect("wss://example.com/chat", nursery=nursery):  # again and again
            try:
                async for message in ws:
                    print(message)
            except ConnectionClosed:
                continue

    The tasks that answer pings and keep the connection alive run in a nursery of the block, or in the one that is
    given. Exceptions leave the block as they are, not in an exception group.

    At the end of a block that raised, or was cancelled, the connection is closed with 1011, else with 1000. That takes
    no longer than `close_timeout`, even if the block was cancelled. If the nursery that was given is cancelled, the
    connection is closed with 1001. ``async for`` needs a nursery, because nothing waits when a loop is left: each
    connection is closed at the end of its round, and the last one begins to close when the loop is left.

    Args:
        uri: ws:// or wss://. Its user name and password become Authorization. International host names are fine.
        nursery: for the connection's tasks; None, the default, is for ``async with``.
        process_exception: called by ``async for`` with what an attempt raised; returns None to try again, or the
            exception to raise. Default: `wsfast.reconnect.process_exception`.
        reconnect_delays: called by ``async for``; returns an iterable of the seconds between attempts. Default:
            `wsfast.reconnect.backoff`, which never ends. A connection that the server ends within 5 s counts as an
            attempt that failed. When the delays are used up, the loop ends: it raises what the last attempt raised, or
            just ends after such a connection.
        stream: a connected trio stream to use; default none.
        sock: a connected socket to use; default none.
        ssl: an `ssl.SSLContext`, for example with a client's certificate. Default, also for True: the certificate is
            verified against the system's authorities.
        server_hostname: the name that the certificate must have; default the URI's host.
        origin: the value of Origin; default none.
        extensions: factories of a program's own extensions to offer, each a `ClientExtensionFactory`; default none.
        subprotocols: to offer, in order of preference; default none. `ws.subprotocol` tells the server's choice.
        compression: None, ``"deflate"``, or a `Deflate`. Default: None.
        additional_headers: more headers, as a mapping or pairs, cookies among them; default none.
        user_agent_header: the value of User-Agent; None for none.
        bearer_token: for Authorization; it takes the place of the URI's user name. Default none.
        proxy: True for the one that the environment names (``https_proxy``, ...), None for none, or an
            address: http://, https:// (TLS to the proxy), socks5://, socks5h://, socks4://, socks4a://, with
            ``user:password@`` if need be. SOCKS needs python-socks. Default: True.
        proxy_ssl: for an https:// proxy, as `ssl`.
        proxy_server_hostname: for an https:// proxy, as `server_hostname`.
        max_redirects: how many redirects are followed; 0 to raise `InvalidStatus` for them. Default: 10.
        process_response: called with the `Request` and the `Response` of each opening handshake, also of one that is
            refused or redirected, before the client acts on it. It may look at the headers, and refuses by raising an
            exception, which the caller of `connect` gets. A plain function; default none.
        create_connection: the class of the connections: a subclass of `WebSocket` with methods of the program's own.
            If it has an `__init__`, that takes the arguments of `WebSocket` and passes them on. Default: `WebSocket`.
        open_timeout: seconds for all of it: name lookup, proxy, TLS, redirects and opening handshake. None for no
            limit. Default: 10.
        ping_interval: seconds between keepalive pings, busy or not; None for no keepalive. Default: 20.
        ping_timeout: seconds after a ping in which anything must be received, or the connection is closed with 1011;
            None for no limit. Default: 20.
        close_timeout: seconds for the server to answer a Close frame, and to end the connection; None for no limit.
            Default: 10.
        max_size: the most bytes of a received message, after decompression; None for no limit. Default: 1 MiB.
        max_fragments: the most frames of a received message; None, the default, for no limit.
        read_limit: bytes received and not yet consumed; above that, reading is paused until a quarter of it is left.
            Each message counts as 64 bytes more than its size. Default: 64 KiB.
        write_limit: bytes written and not yet sent; above that, `send` waits until a quarter of it is left.
            Default: 64 KiB.
        logger: default: ``logging.getLogger("wsfast.client")``.
        options: `max_line`, `max_head` and `max_headers`, which limit the response's head as in `wsfast.connect`;
            `host` and `port` to connect to another address than the URI's, and `happy_eyeballs_delay` (0.25 s).

    Raises:
        InvalidURI, InvalidProxy: at once: `uri` or `proxy` is not valid.
        ValueError, TypeError: at once: another argument is wrong.
        OSError: when it connects: the server cannot be reached, `ssl.SSLError` included.
        InvalidHandshake: the server's answer does not open the connection; subclasses say why, and have `response`.
        ProxyError: the proxy could not be reached, or refused.
        TimeoutError: `open_timeout` has passed.
        ImportError: the proxy is a SOCKS proxy, and python-socks is not installed.
    """

    _dialer: TrioDialer
    _websocket_type: Callable[..., WebSocket] = WebSocket

    def __init__(
        self,
        uri: str,
        *,
        nursery: trio.Nursery | None = None,
        stream: trio.abc.Stream | None = None,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        reconnect_delays: Callable[[], Iterator[float]] = backoff,
        **options: Unpack[ConnectOptions],
    ) -> None:
        check_values({"process_exception": process_exception, "reconnect_delays": reconnect_delays})
        for name, what, methods in (
            ("nursery", nursery, ("start_soon", "cancel_scope")),
            ("stream", stream, ("send_all", "receive_some")),
        ):
            if what is not None and not all(hasattr(what, method) for method in methods):
                raise TypeError(f"{name} must be a trio {name} or None, got {type(what).__name__}")
        given: dict[str, Any] = dict(options)
        if stream is not None:
            given |= {"stream": stream, "proxy": None}
        made_of = given.pop("create_connection", None)
        if made_of is not None:
            self._websocket_type = connection_class(made_of, WebSocket)
        self._limits, head_limits, settings = part_settings(given)
        super().__init__(uri, self._limits, head_limits, TrioDialer, **settings)
        self._process_exception = process_exception
        self._reconnect_delays = reconnect_delays
        self._nursery = nursery
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._ws: WebSocket | None = None
        self._entering = False

    def __await__(self) -> Generator[Any, Any, WebSocket]:
        """Connect; the tasks of the connection are in the nursery that was given.

        Raises:
            TypeError: none was given.
        """
        return self._connect_in(self._nursery).__await__()

    async def _connect_in(self, nursery: trio.Nursery | None) -> WebSocket:
        if nursery is None:
            raise TypeError("await connect(...) needs a nursery for the connection's tasks; or use async with")
        ws = await self._connect()
        nursery.start_soon(ws._work_guarded)
        return ws

    def __aiter__(self) -> AsyncIterator[WebSocket]:
        """Connect again and again.

        Raises:
            TypeError: no nursery was given.
        """
        if self._nursery is None:
            raise TypeError("async for ... in connect(...) needs a nursery for the connections' tasks")
        attempts = Attempts(
            self._process_exception, self._reconnect_delays, self._logger, one_time=self._dialer.one_time
        )
        return _Rounds(self._connect_in, self._nursery, attempts)

    async def __aenter__(self) -> WebSocket:
        if self._entering or self._ws is not None:
            raise RuntimeError("connect(...) can be entered once at a time")
        self._entering = True
        try:
            ws = await self._connect()
            if self._nursery is None:
                self._manager = trio.open_nursery()
                nursery = await self._manager.__aenter__()
                nursery.start_soon(ws._work)
            else:
                self._nursery.start_soon(ws._work_guarded)
            self._ws = ws
        finally:
            self._entering = False
        return ws

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ws, self._ws = self._ws, None
        manager, self._manager = self._manager, None
        assert ws is not None
        try:
            await ws._leave(CloseCode.NORMAL_CLOSURE if kind is None else CloseCode.INTERNAL_ERROR, CloseCause.LOCAL)
        finally:
            if manager is not None:
                # It waits for tasks that have nothing left to do. It is not told of an exception: it would wrap it.
                await manager.__aexit__(None, None, None)

    async def _connect(self) -> WebSocket:
        """Connect, by way of redirects."""
        timeout = self._limits.open_timeout
        with trio.CancelScope(deadline=inf if timeout is None else trio.current_time() + timeout) as scope:
            hops = Hops(self)
            while True:
                try:
                    return await self._establish(hops.uri, hops.handshake(), scope)
                except InvalidStatus as exc:
                    if not hops.follow(exc):
                        raise
        assert scope.cancelled_caught
        raise TimeoutError(f"timed out during the opening handshake: it took more than {timeout} s")

    async def _establish(self, uri: URI, handshake: ClientHandshake, scope: trio.CancelScope) -> WebSocket:
        transport, stream = await self._dialer.open(uri)
        try:
            parser = ResponseParser(limits=self._head_limits)
            try:
                await stream.send_all(handshake.request.raw)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                tell(self._logger.debug, "the request was not sent: %r", exc)  # the response may tell why
            response = await _receive(stream, parser, scope)
            agreement, compression = self._judge(handshake, response)
            ws = self._websocket_type(
                transport, self._limits, stream=stream, request=handshake.request, logger=self._logger
            )
            ws._open(Side.CLIENT, response, agreement.subprotocol, compression, parser.trailing)
        except BaseException:
            await close_now(stream)
            raise
        return ws


class _Rounds(AsyncIterator[WebSocket]):
    """The iterator of `connect`; it is no generator, which would have to be closed where the loop is left."""

    def __init__(
        self,
        connect_in: Callable[[trio.Nursery], Awaitable[WebSocket]],
        nursery: trio.Nursery,
        attempts: Attempts,
    ) -> None:
        self._connect_in = connect_in
        self._nursery = nursery
        self._attempts = attempts
        self._run = trio.lowlevel.current_trio_token()
        self._ws: WebSocket | None = None
        self._opened = 0.0

    async def __anext__(self) -> WebSocket:
        delay = 0.0
        ws, self._ws = self._ws, None
        if ws is not None:
            lost = was_lost(ws)
            await ws.close()  # if it is cancelled, the connection goes on closing
            pause = self._attempts.ended(lost, trio.current_time() - self._opened)
            if pause is None:
                raise StopAsyncIteration
            delay = pause
        while True:
            await trio.sleep(delay)
            try:
                self._ws = await self._connect_in(self._nursery)
            except Exception as exc:
                delay = self._attempts.failed(exc)
            else:
                self._opened = trio.current_time()
                return self._ws

    def __del__(self) -> None:
        with suppress(RuntimeError):  # where no trio runs, or another one
            if self._ws is not None and trio.lowlevel.current_trio_token() is self._run:
                self._ws._start_close(CloseCode.NORMAL_CLOSURE, "", CloseCause.LOCAL)


async def _receive(stream: trio.abc.Stream, parser: ResponseParser, scope: trio.CancelScope) -> Response:
    """Wait for the response to the opening handshake.

    `scope` is what limits it all: if its time is over within the body of a refusal, the part that came will do.
    """
    until = scope.deadline
    try:
        with trio.CancelScope() as patience:
            try:
                while True:
                    data = await stream.receive_some(CHUNK)
                    if not data:
                        return parser.feed_eof(EOFError("the server ended the connection"))
                    response = parser.feed(bytes(data))
                    if response is not None:
                        return response
                    if parser.head_complete and patience.deadline == inf:
                        patience.deadline = min(until, trio.current_time() + BODY_PATIENCE)
                        scope.deadline = inf  # or it would hide from this one that the time is over
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                return parser.feed_eof(as_os_error(exc, "the connection was lost"))
        return parser.feed_eof()
    finally:
        scope.deadline = until


def unix_connect(path: str | os.PathLike[str] | None = None, uri: str | None = None, **options: Any) -> connect:
    """Connect to a WebSocket server that listens on a Unix socket.

    Args:
        path: of the socket; None, the default, if `sock` is given.
        uri: for the request. Default: ``ws://localhost/``, or ``wss://localhost/`` with `ssl`.
        options: those of `connect`.

    Raises:
        ValueError: neither `path` nor `sock` is given, or both are; else those of `connect`.
    """
    if (path is None) == (options.get("sock") is None):
        raise ValueError("expected either path or sock")
    if uri is None:
        uri = "ws://localhost/" if options.get("ssl") is None else "wss://localhost/"
    return connect(uri, **options) if path is None else connect(uri, unix=True, path=path, **options)
