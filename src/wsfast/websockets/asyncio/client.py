"""`connect` of `websockets`: `wsfast.connect` with its parameters, defaults and exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Literal

from wsfast import handshake
from wsfast.client import connector

from ..client import ClientProtocol, backoff, process_exception
from ..datastructures import HeadersLike
from ..dialing import MAX_REDIRECTS, Dialing, MaxQueue, Retries, WriteLimit
from ..extensions.base import ClientExtensionFactory
from ..http11 import USER_AGENT
from ..imports import lend
from ..typing import LoggerLike, Origin, PathLike, Subprotocol
from .connection import Connection

__all__ = ["ClientConnection", "connect", "unix_connect"]


class ClientConnection(Connection):
    """A connection from the client's side; see `Connection`.

    Args:
        protocol: the sans-IO protocol of the connection.
        ping_interval, ping_timeout, close_timeout, max_queue, write_limit: those of `connect`.
    """

    __slots__ = ()

    protocol: ClientProtocol


class connect(Dialing, connector.connect):  # noqa: N801
    """Connect to a WebSocket server: ``await``, ``async with`` or, to connect again and again, ``async for``.

    Args:
        uri: ws:// or wss://.
        origin, subprotocols, additional_headers, user_agent_header, proxy, open_timeout, ping_interval, ping_timeout,
            close_timeout: those of `wsfast.connect`.
        extensions: factories of extensions to offer: settings of permessage-deflate, or a program's own.
        compression: ``"deflate"`` or None.
        process_exception: returns None for exceptions after which ``async for`` connects again.
        reconnect_delays: makes the seconds between attempts.
        max_size: the most bytes of a message; of a pair the first counts.
        max_queue: messages that may wait to be received; of a pair the first counts. From 16 on, 4 KiB are held
            for each instead.
        write_limit: bytes unsent above which `send` waits; of a pair the first counts.
        logger: default: ``logging.getLogger("websockets.client")``.
        create_connection: makes the `ClientConnection`.
        kwargs: further arguments of `wsfast.connect`: `ssl`, `sock`, `host`, `port`, `server_hostname`, `local_addr`,
            ...

    Raises:
        InvalidURI, InvalidProxy, ValueError, TypeError: an argument is wrong.
        OSError, InvalidHandshake, TimeoutError: when it connects.
    """

    def __init__(
        self,
        uri: str,
        *,
        origin: Origin | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        compression: str | None = "deflate",
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        proxy: str | Literal[True] | None = True,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        reconnect_delays: Callable[[], Generator[float]] = backoff,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        max_queue: MaxQueue = 16,
        write_limit: WriteLimit = 2**15,
        logger: LoggerLike | None = None,
        create_connection: Callable[..., ClientConnection] | None = None,
        **kwargs: Any,
    ) -> None:
        self.user_agent_header = user_agent_header
        self.proxy = proxy
        self.process_exception = process_exception
        self.open_timeout = open_timeout
        self.reconnect_delays = reconnect_delays
        self._create_connection = ClientConnection if create_connection is None else create_connection
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
            sizes={"max_queue": max_queue, "write_limit": write_limit},
            logger=logger,
            max_redirects=MAX_REDIRECTS,
            kwargs=kwargs,
        )
        if not self.ws_uri.secure and kwargs.get("server_hostname") is not None:
            raise ValueError("server_hostname is only meaningful with ssl")
        super().__init__(uri, **options)

    # --- What the opening handshake calls -----------------------------------------------------------------

    def _new_websocket(self, request: handshake.Request, subprotocol: str | None, peer: Any) -> ClientConnection:
        protocol = self._protocol()
        ws = self._create_connection(protocol, **self._times, **self._sizes)
        ws.request = request
        ws.subprotocol = subprotocol
        ws._peer = peer
        return ws

    async def _connect(self) -> tuple[Any, Any]:
        try:
            return await super()._connect()
        except TimeoutError as exc:
            if exc.errno is not None:  # the system's, of a connection attempt
                raise
            raise TimeoutError("timed out during opening handshake") from exc
        except Exception as exc:
            made = self._told_as(exc)
            if made is exc:
                raise
            raise made from made.__cause__

    async def connect(self) -> ClientConnection:
        """Connect, as ``await`` does."""
        connection: ClientConnection = (await self._connect())[1]
        return connection

    async def __await_impl__(self) -> ClientConnection:
        """Connect: websockets 13 to 16 have it, and programs that derive from `connect` call it."""
        return await self.connect()

    # --- await, async with, async for ---------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        return self.connect().__await__()

    async def __aenter__(self) -> ClientConnection:
        if hasattr(self, "connection"):
            raise RuntimeError("connect() isn't reentrant")
        self.connection: ClientConnection = await self
        entered: ClientConnection = await self.connection.__aenter__()
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self.connection.__aexit__(kind, exc, tb)
        finally:
            del self.connection

    async def __aiter__(self) -> AsyncIterator[ClientConnection]:
        retries = Retries(self.process_exception, self.reconnect_delays, self.logger)
        while True:
            try:
                async with self as connection, connector.Closing(connection._leave_block):
                    yield connection
            except Exception as exc:
                await asyncio.sleep(retries.failed(exc))
            else:
                retries.worked()


def unix_connect(path: PathLike | None = None, uri: str | None = None, **kwargs: Any) -> connect:
    """Connect to a WebSocket server that listens on a Unix socket.

    Args:
        path: of the socket; None if `sock` is given.
        uri: for the request. Default: ``ws://localhost/``, or ``wss://localhost/`` with `ssl`.
        kwargs: those of `connect`.
    """
    if path is None and kwargs.get("sock") is None:
        raise ValueError("no path and sock were specified")
    if path is not None and kwargs.get("sock") is not None:
        raise ValueError("path and sock can not be specified at the same time")
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    return connect(uri=uri, unix=True, path=path, **kwargs)


lend(globals())
