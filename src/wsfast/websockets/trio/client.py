"""`connect` of `websockets` on trio: `wsfast.trio.connect` with its parameters, defaults and exceptions."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Literal

import trio

from wsfast import handshake
from wsfast.codes import CloseCause, CloseCode
from wsfast.session import Limits
from wsfast.trio import client as native
from wsfast.trio.stream import Transport

from ..client import ClientProtocol, backoff, process_exception
from ..datastructures import HeadersLike
from ..dialing import MAX_REDIRECTS, Dialing, MaxQueue, Retries
from ..extensions.base import ClientExtensionFactory
from ..http11 import USER_AGENT
from ..imports import lend
from ..typing import LoggerLike, Origin, PathLike, Subprotocol
from .connection import Connection, Opening

__all__ = ["ClientConnection", "connect", "unix_connect"]


class ClientConnection(Connection):
    """A connection from the client's side; see `Connection`."""

    protocol: ClientProtocol


class connect(Dialing, native.connect):  # noqa: N801
    """Connect to a WebSocket server: ``async with`` or, to connect again and again, ``async for``.

    Args:
        uri: ws:// or wss://.
        stream: a connected trio stream to use; default none.
        ssl, server_hostname, proxy_ssl, proxy_server_hostname: those of `wsfast.trio.connect`.
        origin, extensions, subprotocols, compression, additional_headers, user_agent_header, proxy, process_exception,
            open_timeout, ping_interval, ping_timeout, close_timeout, reconnect_delays, max_size, max_queue, logger:
            those of `connect` on asyncio.
        create_connection: makes the `ClientConnection`.
        kwargs: further arguments of `wsfast.trio.connect`: `host`, `port`, `happy_eyeballs_delay`, ...

    Raises:
        InvalidURI, InvalidProxy, ValueError, TypeError: an argument is wrong.
        OSError, InvalidHandshake, TimeoutError: when it connects.
    """

    def __init__(
        self,
        uri: str,
        *,
        stream: trio.abc.Stream | None = None,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        origin: Origin | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        compression: str | None = "deflate",
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        proxy: str | Literal[True] | None = True,
        proxy_ssl: ssl_module.SSLContext | None = None,
        proxy_server_hostname: str | None = None,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        reconnect_delays: Callable[[], Generator[float]] = backoff,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        max_queue: MaxQueue = 16,
        logger: LoggerLike | None = None,
        create_connection: Callable[..., ClientConnection] | None = None,
        **kwargs: Any,
    ) -> None:
        self.process_exception = process_exception
        self.reconnect_delays = reconnect_delays
        self._create_connection = ClientConnection if create_connection is None else create_connection
        given = {
            "stream": stream,
            "ssl": ssl,
            "server_hostname": server_hostname,
            "proxy_ssl": proxy_ssl,
            "proxy_server_hostname": proxy_server_hostname,
        }
        options = self.prepare(
            uri,
            origin=origin,
            extensions=extensions,
            subprotocols=subprotocols,
            compression=compression,
            additional_headers=additional_headers,
            user_agent_header=user_agent_header,
            proxy=proxy,
            open_timeout=open_timeout,
            times={"ping_interval": ping_interval, "ping_timeout": ping_timeout, "close_timeout": close_timeout},
            max_size=max_size,
            sizes={"max_queue": max_queue},
            logger=logger,
            max_redirects=MAX_REDIRECTS,
            kwargs=kwargs | {name: value for name, value in given.items() if value is not None},
        )
        options.pop("max_buffered")  # nothing is sent without waiting
        super().__init__(uri, **options)

    def _websocket_type(
        self,
        transport: Transport,
        limits: Limits,
        *,
        stream: trio.abc.Stream | None = None,
        request: handshake.Request,
        logger: Any,
    ) -> ClientConnection:
        opening = Opening(transport, limits, stream, request)
        return self._create_connection(None, opening, self._protocol(), **self._times, **self._sizes)

    async def _connect(self) -> ClientConnection:
        try:
            return await super()._connect()  # type: ignore[return-value]
        except TimeoutError as exc:
            if exc.errno is not None:  # the system's, of a connection attempt
                raise
            raise TimeoutError("timed out during opening handshake") from exc
        except ssl_module.SSLError as exc:
            raise trio.BrokenResourceError from exc  # as trio's own TLS has it
        except Exception as exc:
            made = self._told_as(exc)
            if made is exc:
                raise
            raise made from made.__cause__

    async def connect(self, nursery: trio.Nursery) -> ClientConnection:
        """Connect; the tasks of the connection run in a nursery, and the caller closes it."""
        return await self._connect_in(nursery)  # type: ignore[return-value]

    async def __aenter__(self) -> ClientConnection:
        if hasattr(self, "connection"):
            raise RuntimeError("connect() isn't reentrant")
        self.connection: ClientConnection = await super().__aenter__()  # type: ignore[assignment]
        return self.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, exc, traceback)
        finally:
            del self.connection

    async def __aiter__(self) -> AsyncGenerator[ClientConnection, None]:
        retries = Retries(self.process_exception, self.reconnect_delays, self.logger)
        while True:
            try:
                connection = await self._connect()
                # Not in a nursery: it could not be left in order when the loop is left by `break`.
                trio.lowlevel.spawn_system_task(connection._work)
                code = CloseCode.INTERNAL_ERROR  # for a loop that is left
                try:
                    yield await connection.__aenter__()
                    code = CloseCode.NORMAL_CLOSURE
                finally:
                    await connection._leave(code, CloseCause.LOCAL)
            except Exception as exc:
                await trio.sleep(retries.failed(exc))
            else:
                retries.worked()


def unix_connect(path: PathLike | None = None, uri: str | None = None, **kwargs: Any) -> connect:
    """Connect to a WebSocket server that listens on a Unix socket.

    Args:
        path: of the socket; None if `stream` is given.
        uri: for the request. Default: ``ws://localhost/``, or ``wss://localhost/`` with `ssl`.
        kwargs: those of `connect`.
    """
    if path is None and kwargs.get("stream") is None:
        raise ValueError("missing path argument")
    if path is not None and kwargs.get("stream") is not None:
        raise ValueError("path is incompatible with stream")
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    return connect(uri, **kwargs) if path is None else connect(uri, unix=True, path=path, **kwargs)


lend(globals())
