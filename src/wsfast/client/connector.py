"""`connect`: the client on asyncio, in the three forms that a server has too, and reconnecting."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from types import AsyncGeneratorType, TracebackType
from typing import Any, Generic, Literal, TypeVar, Unpack, cast

from ..asyncio.listener import Listener
from ..asyncio.protocol import ConnectionProtocol, turn_of
from ..asyncio.streams import Reader, Writer, open_streams
from ..asyncio.websocket import Known, WebSocket, addresses_of
from ..codes import CloseCause
from ..connection import Side
from ..deflate.negotiate import Deflate, as_deflate
from ..dial.dialer import Dialer
from ..dial.reconnect import Attempts, backoff, process_exception, was_lost
from ..dial.route import PathOptions
from ..dial.settings import USER_AGENT, ClientSettings, Hops
from ..exceptions import InvalidStatus
from ..extensions import ClientExtensionFactory, check_factories
from ..handshake import URI, ClientHandshake, Request, Response
from ..handshake.http11 import MAX_HEAD, MAX_HEADERS, MAX_LINE, HeadLimits
from ..options import check_values, connection_class
from ..session import Limits, Overflow
from ..telling import tell
from ..transport.loops import PerLoop
from ..transport.timers import CoarseTimer
from .opening import ClientOpening
from .options import ConnectOptions

__all__ = ["connect", "connect_listener", "connect_stream", "unix_connect"]

_T = TypeVar("_T")
_L = TypeVar("_L", bound=Listener)

_timer_of = PerLoop(CoarseTimer).of


class _Client:
    """What the connections of one `connect` share: their `Host`."""

    __slots__ = ("limits", "logger", "timer")

    def __init__(self, limits: Limits, logger: Any, timer: CoarseTimer) -> None:
        self.limits = limits
        self.logger = logger
        self.timer = timer

    def _connection_opened(self, protocol: ConnectionProtocol) -> None:
        tell(self.logger.debug, "connection to %a is open", protocol.ws.remote_address)

    def _connection_closed(self, protocol: ConnectionProtocol) -> None:
        failure = protocol.connection.failure
        cause = protocol.connection.cause or CloseCause.LOST
        tell(self.logger.debug, "connection to %a: %s", protocol.ws.remote_address, failure or cause.value)
        # Both refer to each other: now they are freed as soon as the program lets go of the WebSocket.
        del protocol.ws


class Closing:
    """A generator that lives as long as a connection is open, so that `asyncio.run` waits for the connection's end.

    If an `async for` over connections is left by an exception, the event loop makes a task that closes its generator.
    Nobody waits for that task: at the end of a program it would be destroyed while the connection is closing. But
    `asyncio.run` waits for asynchronous generators (`shutdown_asyncgens`), so this class runs one.

    Args:
        close: closes the connection and waits for its end; it may be called while it is closing. Its argument tells
            whether the block was left by an exception, or given up.
    """

    def __init__(self, close: Callable[[bool], Awaitable[None]]) -> None:
        self._close = close
        self._end = cast("AsyncGeneratorType[None, None]", self._wait())

    async def _wait(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self._close(True)

    async def __aenter__(self) -> None:
        await anext(self._end)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close(kind is not None)
        if not self._end.ag_running:  # in `shutdown_asyncgens`
            await self._end.aclose()


async def _leave(ws: WebSocket, failed: bool) -> None:
    """Close at the end of a round of `async for`, however it was left."""
    await ws._leave(failed=False)


class _Connector(ClientSettings, Generic[_T]):
    """What `connect`, `connect_listener` and `connect_stream` have in common; `connect` documents it."""

    _dialer: Dialer

    def __init__(
        self,
        uri: str,
        *,
        origin: str | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[str] | None = None,
        compression: Literal["deflate"] | Deflate | None = None,
        additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        user_agent_header: str | None = USER_AGENT,
        bearer_token: str | None = None,
        proxy: str | bool | None = True,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        reconnect_delays: Callable[[], Iterator[float]] = backoff,
        max_redirects: int = 10,
        process_response: Callable[[Request, Response], object] | None = None,
        create_connection: type[WebSocket] | None = None,
        open_timeout: float | None = 10.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        close_timeout: float | None = 10.0,
        max_line: int = MAX_LINE,
        max_head: int = MAX_HEAD,
        max_headers: int = MAX_HEADERS,
        max_size: int | None = 1048576,
        max_fragments: int | None = None,
        read_limit: int = 65536,
        write_limit: int = 65536,
        max_buffered: int | None = 4194304,
        overflow: Overflow = "error",
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        **options: Unpack[PathOptions],
    ) -> None:
        check_values({"process_exception": process_exception, "reconnect_delays": reconnect_delays})
        self._limits = Limits(
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
            compression=as_deflate(compression),
            extensions=check_factories(extensions, "process_response_params"),
        )
        super().__init__(
            uri,
            self._limits,
            HeadLimits.checked(max_line=max_line, max_head=max_head, max_headers=max_headers),
            Dialer,
            origin=origin,
            subprotocols=subprotocols,
            additional_headers=additional_headers,
            user_agent_header=user_agent_header,
            bearer_token=bearer_token,
            proxy=proxy,
            max_redirects=max_redirects,
            process_response=process_response,
            logger=logger,
            options=dict(options),
        )
        self._websocket_type = connection_class(create_connection, WebSocket)
        self._process_exception = process_exception
        self._reconnect_delays = reconnect_delays
        self._entered: WebSocket | None = None
        self._entering = False

    def _shape(self, protocol: ConnectionProtocol) -> _T:
        """Make the object that the caller gets for a connection that has just opened."""
        raise NotImplementedError  # pragma: no cover - each subclass has its own

    # --- The opening handshake ----------------------------------------------------------------------------

    async def _connect(self) -> tuple[WebSocket, _T]:
        opening: list[ClientOpening] = []
        hops = Hops(self)
        try:
            async with asyncio.timeout(self._limits.open_timeout) as timeout:
                return await self._follow(hops, opening)
        except BaseException as exc:
            timed_out = isinstance(exc, TimeoutError) and timeout.expired()
            failure = opening[0].cut_short() if opening and timed_out else None
            for one in opening:
                one.abort()
            # Transports close their sockets in the next turns of the loop: a failed attempt leaves nothing behind when
            # the caller learns of it.
            for _ in range(3):
                await asyncio.sleep(0)
            if not timed_out:
                raise
            # A redirect that would be followed is not what failed: there is no time left to follow it.
            if failure is not None and not (isinstance(failure, InvalidStatus) and hops.follow(failure)):
                raise failure from exc
            raise TimeoutError(
                f"timed out during the opening handshake: it took more than {self._limits.open_timeout} s"
            ) from exc

    async def _follow(self, hops: Hops, openings: list[ClientOpening]) -> tuple[WebSocket, _T]:
        """Connect, by way of redirects; `openings` holds the connection that is being made."""
        while True:
            try:
                return await self._open(hops.uri, hops.handshake(), openings)
            except InvalidStatus as exc:
                if not hops.follow(exc):
                    raise
                openings.pop().abort()

    async def _open(self, uri: URI, handshake: ClientHandshake, openings: list[ClientOpening]) -> tuple[WebSocket, _T]:
        loop = asyncio.get_running_loop()
        made: list[tuple[WebSocket, _T]] = []

        def accept(transport: asyncio.Transport, response: Response, trailing: bytes) -> None:
            made.append(self._accept(loop, handshake, transport, response, trailing))

        opening = ClientOpening(handshake, accept, loop, self._head_limits)
        openings.append(opening)
        try:
            await self._dialer.dial(uri, opening)
            await opening.done
        except BaseException:
            if not opening.done.cancel() and not opening.done.cancelled():
                opening.done.exception()  # marks it as retrieved; if the dialer failed, its error is raised instead
            raise
        return made[0]

    def _accept(
        self,
        loop: asyncio.AbstractEventLoop,
        handshake: ClientHandshake,
        transport: asyncio.Transport,
        response: Response,
        trailing: bytes,
    ) -> tuple[WebSocket, _T]:
        """Judge the response and hand the transport over (RFC 6455, 4.1)."""
        agreement, compression = self._judge(handshake, response)
        ws = self._new_websocket(handshake.request, agreement.subprotocol, addresses_of(transport))
        ws.response = response
        client = _Client(self._limits, self._logger, _timer_of(loop))
        protocol = ConnectionProtocol(turn_of(loop))
        protocol.open(client, Side.CLIENT, ws, transport, compression)
        transport.set_protocol(protocol)
        try:
            shaped = self._shape(protocol)
        except BaseException:
            protocol.abort(CloseCause.HANDLER_ERROR)
            raise
        if trailing:
            protocol.feed(trailing)
        return ws, shaped

    def _new_websocket(self, request: Request, subprotocol: str | None, peer: Known) -> WebSocket:
        return self._websocket_type(request, subprotocol, peer)

    # --- await, async with, async for ---------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, _T]:
        return self._await().__await__()

    async def _await(self) -> _T:
        return (await self._connect())[1]

    async def __aenter__(self) -> _T:
        if self._entering or self._entered is not None:
            raise RuntimeError("this is entered already: make another one for another connection")
        self._entering = True
        try:
            self._entered, shaped = await self._connect()
        finally:
            self._entering = False
        return shaped

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ws, self._entered = self._entered, None
        if ws is not None:
            await ws._leave(failed=kind is not None)

    async def __aiter__(self) -> AsyncIterator[_T]:
        loop = asyncio.get_running_loop()
        attempts = Attempts(
            self._process_exception, self._reconnect_delays, self._logger, one_time=self._dialer.one_time
        )
        delay: float | None
        while True:
            try:
                ws, shaped = await self._connect()
            except Exception as exc:
                delay = attempts.failed(exc)
            else:
                opened = loop.time()
                async with Closing(partial(_leave, ws)):
                    try:
                        yield shaped
                    finally:
                        lost = was_lost(ws)
                delay = attempts.ended(lost, loop.time() - opened)
                if delay is None:
                    return
            if delay:
                await asyncio.sleep(delay)


class connect(_Connector[WebSocket]):  # noqa: N801
    """Connect to a WebSocket server.

    ::

        async with connect("wss://example.com/chat") as ws:  # closes at the end
            await ws.send("hello")
            print(await ws.recv())

        ws = await connect("wss://example.com/chat")  # then: await ws.close()

        async for ws in connect("wss://example.com/chat"):  # again and again
            try:
                async for message in ws:
                    print(message)
            except ConnectionClosed:
                continue

    At the end of a block that raised, the connection is closed with 1011, else with 1000.

    A redirect is followed, but never from wss to ws, and on the way to another origin Authorization, Cookie and Host
    are dropped.

    Args:
        uri: ws:// or wss://. Its user name and password become Authorization. International host names are fine.
        origin: the value of Origin; default none.
        extensions: factories of a program's own extensions to offer, each a `ClientExtensionFactory`; default none.
        subprotocols: to offer, in order of preference; default none. `ws.subprotocol` tells the server's choice.
        compression: None, ``"deflate"``, or a `Deflate`. Default: None.
        additional_headers: more headers, as a mapping or pairs, cookies among them; default none.
        user_agent_header: the value of User-Agent; None for none. Default: Python and wsfast, with their versions.
        bearer_token: for Authorization; it takes the place of the URI's user name. Default none.
        proxy: True for the one that the environment names (``https_proxy``, ...), None for none, or an
            address: ``http://``, ``https://`` (TLS to the proxy), ``socks5://``, ``socks5h://``, ``socks4://`` or
            ``socks4a://``, with ``user:password@`` if need be. SOCKS needs python-socks. Default: True.
        process_exception: called by ``async for`` with what an attempt raised; returns None to try again, or the
            exception to raise. Default: `reconnect.process_exception`.
        reconnect_delays: called by ``async for``; returns an iterable of the seconds between attempts. Default:
            `reconnect.backoff`, which never ends. A connection that the server ends within 5 s counts as an attempt
            that failed. When the delays are used up, the loop ends: it raises what the last attempt raised, or just
            ends after such a connection.
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
        max_line: the most bytes of a line of the response's head. Default: 8 KiB.
        max_head: the most bytes of the response's head in all. Default: 16 KiB.
        max_headers: the most headers of the response. Default: 128.
        max_size: the most bytes of a received message, after decompression; None for no limit. Default: 1 MiB.
        max_fragments: the most frames of a received message; None, the default, for no limit.
        read_limit: bytes received and not yet consumed; above that, reading is paused until a quarter of it is left.
            Each message counts as 64 bytes more than its size. Default: 64 KiB.
        write_limit: bytes written and not yet sent; above that, `send` waits until a quarter of it is left.
            Default: 64 KiB.
        max_buffered: unsent bytes above which `send_nowait` obeys `overflow`; None for no limit. Default: 4 MiB.
        overflow: what `send_nowait` then does: ``"error"`` raises `BufferFull`, ``"drop"`` drops the message and
            returns False, ``"close"`` closes the connection with 1013. Default: ``"error"``.
        logger: default: ``logging.getLogger("wsfast.client")``.
        ssl: an `ssl.SSLContext`, for example with a client's certificate. Default, also for True: the certificate is
            verified against the system's authorities.
        options: further arguments of `loop.create_connection`: `server_hostname`, `sock`, `local_addr`, `family`,
            `happy_eyeballs_delay` (default 0.25 s), `host` and `port` to connect
            to another address than the URI's, and so on. `proxy_ssl`, `proxy_server_hostname`, ... are for the TLS to
            the proxy. With ``unix=True`` those of `loop.create_unix_connection`; see `unix_connect`.

    Raises:
        InvalidURI, InvalidProxy: `uri` or `proxy` is not valid; raised by the call itself, not by awaiting it.
        ValueError, TypeError: at once: another argument is wrong.
        OSError: when it connects: the server cannot be reached, `ssl.SSLError` included.
        InvalidHandshake: the server's answer does not open the connection; subclasses say why, and have `response`.
        ProxyError: the proxy could not be reached, or refused.
        TimeoutError: `open_timeout` has passed.
        ImportError: the proxy is a SOCKS proxy, and python-socks is not installed.
    """

    def _shape(self, protocol: ConnectionProtocol) -> WebSocket:
        return protocol.ws


class connect_listener(_Connector[_L]):  # noqa: N801
    """Connect to a WebSocket server, in the callback form: no task, no queue, the least latency.

    ::

        class Ticks(Listener):
            def on_message(self, message):
                print(message)

        async with connect_listener(Ticks, "wss://example.com/ticks") as ticks:
            await ticks.ws.wait_closed()

    ``await`` and ``async for``, which connects again, work as with `connect`. What `factory` or `on_open` raises is
    raised here; what is raised later closes the connection with 1011 and is logged.

    Args:
        factory: called with the `WebSocket`, returns a `Listener`; mostly a subclass of it.
        uri, options: those of `connect`.

    Raises:
        TypeError: `factory` is not callable.
        Exception: those of `connect`, and what `factory` and `on_open` raise.
    """

    def __init__(self, factory: Callable[[WebSocket], _L], uri: str, **options: Unpack[ConnectOptions]) -> None:
        if not callable(factory):
            raise TypeError(f"factory must be callable, got {type(factory).__name__}")
        super().__init__(uri, **options)
        self._factory = factory

    def _shape(self, protocol: ConnectionProtocol) -> _L:
        listener = self._factory(protocol.ws)
        protocol.use_listener(listener)
        return listener


class connect_stream(_Connector[tuple[Reader, Writer]]):  # noqa: N801
    """Connect to a WebSocket server, in the byte-stream form, as if it were a TCP connection.

    ::

        async with connect_stream("wss://example.com/tunnel") as (reader, writer):
            await writer.write(b"hello")
            await writer.flush()
            print(await reader.read())

    ``await`` and ``async for``, which connects again, work as with `connect`. What was written is flushed at the end of
    the block.

    Args:
        uri, options: those of `connect`.
        text: send text messages instead of binary ones; default False.
        half_close: take an empty message for the end of what the server sends, and send one by `Writer.write_eof`; the
            server's handler must be registered with it too. Default False.

    Raises:
        Exception: those of `connect`.
    """

    def __init__(
        self, uri: str, *, text: bool = False, half_close: bool = False, **options: Unpack[ConnectOptions]
    ) -> None:
        super().__init__(uri, **options)
        self._text = text
        self._half_close = half_close

    def _shape(self, protocol: ConnectionProtocol) -> tuple[Reader, Writer]:
        return open_streams(protocol, text=self._text, half_close=self._half_close)


def unix_connect(
    path: str | os.PathLike[str] | None = None, uri: str | None = None, **options: Unpack[ConnectOptions]
) -> connect:
    """Connect to a WebSocket server that listens on a Unix socket.

    Args:
        path: of the socket; None, the default, if `sock` is given.
        uri: for the request. Default: ``ws://localhost/``, or ``wss://localhost/`` with `ssl`.
        options: those of `connect`.

    Raises:
        ValueError: at once: neither `path` nor `sock` is given, or both are; else those of `connect`.
    """
    if (path is None) == (options.get("sock") is None):
        raise ValueError("expected either path or sock")
    if uri is None:
        uri = "ws://localhost/" if options.get("ssl") is None else "wss://localhost/"
    options["unix"] = True
    return connect(uri, path=path, **options)
