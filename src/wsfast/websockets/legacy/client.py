"""`connect` with the parameters and the exceptions of the old implementation."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any

from ..asyncio import client
from ..client import (
    BACKOFF_FACTOR,
    BACKOFF_INITIAL_DELAY,
    BACKOFF_MAX_DELAY,
    BACKOFF_MIN_DELAY,
    ClientProtocol,
    backoff,
)
from ..datastructures import HeadersLike
from ..dialing import MAX_REDIRECTS
from ..exceptions import InvalidStatus
from ..extensions.base import ClientExtensionFactory
from ..http11 import USER_AGENT
from ..imports import lend
from ..typing import LoggerLike, Origin, PathLike, Subprotocol
from .exceptions import InvalidStatusCode
from .protocol import WebSocketCommonProtocol, warn_of_old

__all__ = ["WebSocketClientProtocol", "connect", "unix_connect"]


class WebSocketClientProtocol(WebSocketCommonProtocol, client.ClientConnection):  # type: ignore[misc]
    """A connection from the client's side.

    Args:
        logger: default: ``logging.getLogger("websockets.client")``.
        origin, extensions, subprotocols, extra_headers, user_agent_header: those of `connect`.
        kwargs: those of `WebSocketCommonProtocol`.
    """

    side = "client"

    def __init__(
        self,
        *,
        logger: LoggerLike | None = None,
        origin: Origin | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        extra_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        **kwargs: Any,
    ) -> None:
        super().__init__(logger=logger, **kwargs)
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols
        self.extra_headers = extra_headers
        self.user_agent_header = user_agent_header


class connect(client.connect):  # noqa: N801
    """Connect to a WebSocket server.

    Args:
        uri: ws:// or wss://.
        create_protocol, klass: makes the connection, from the arguments of `WebSocketClientProtocol`.
        extra_headers: `additional_headers` of today's `connect`.
        timeout: `close_timeout` of today's `connect`.
        loop, read_limit: of no effect.
        logger, compression, origin, extensions, subprotocols, user_agent_header, open_timeout, ping_interval,
            ping_timeout, close_timeout, max_size, max_queue, write_limit, kwargs: those of today's `connect`.

    Attributes:
        protocol: the connection, once there is one.

    Raises:
        InvalidStatusCode: the server answered with another status than 101; else those of today's `connect`.
    """

    MAX_REDIRECTS_ALLOWED = MAX_REDIRECTS
    BACKOFF_INITIAL = BACKOFF_INITIAL_DELAY
    BACKOFF_MIN = BACKOFF_MIN_DELAY
    BACKOFF_MAX = BACKOFF_MAX_DELAY
    BACKOFF_FACTOR = BACKOFF_FACTOR

    protocol: Any

    def __init__(
        self,
        uri: str,
        *,
        create_protocol: Callable[..., Any] | None = None,
        logger: LoggerLike | None = None,
        compression: str | None = "deflate",
        origin: Origin | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        extra_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = None,
        max_size: int | None = 2**20,
        max_queue: int | None = 2**5,
        read_limit: int = 2**16,
        write_limit: int = 2**16,
        klass: Callable[..., Any] | None = None,
        timeout: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        legacy_recv: bool = False,
        **kwargs: Any,
    ) -> None:
        warn_of_old(timeout=timeout, klass=klass, loop=loop)
        make = create_protocol or klass or WebSocketClientProtocol
        close_timeout = close_timeout or timeout or 10
        super().__init__(
            uri,
            create_connection=self._make,
            origin=origin,
            extensions=extensions,
            subprotocols=subprotocols,
            compression=compression,
            additional_headers=extra_headers,
            user_agent_header=user_agent_header,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            reconnect_delays=self._delays,
            max_size=max_size,
            max_queue=max_queue,
            write_limit=write_limit,
            logger=logger,
            **{"proxy": None, **kwargs},
        )
        self._most_redirects = self.MAX_REDIRECTS_ALLOWED
        self._factory = functools.partial(
            make,
            logger=logger,
            origin=origin,
            extensions=extensions,
            subprotocols=subprotocols,
            extra_headers=extra_headers,
            user_agent_header=user_agent_header,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_size=max_size,
            max_queue=max_queue,
            read_limit=read_limit,
            write_limit=write_limit,
            legacy_recv=legacy_recv,
            loop=loop,
        )

    def _make(self, protocol: ClientProtocol, **settings: Any) -> Any:
        made = self._factory(host=self.ws_uri.host, port=self.ws_uri.port, secure=self.ws_uri.secure)
        made.describe(protocol)
        return made

    def _delays(self) -> Generator[float]:
        return backoff(self.BACKOFF_INITIAL, self.BACKOFF_MIN, self.BACKOFF_MAX, self.BACKOFF_FACTOR)

    async def __await_impl__(self) -> Any:
        """Connect, as ``await`` does."""
        return await self.connect()

    async def _connect(self) -> tuple[Any, Any]:
        try:
            made = await super()._connect()
        except InvalidStatus as exc:
            raise InvalidStatusCode(exc.response.status_code, exc.response.headers) from exc
        self.protocol = made[1]
        self.protocol.connection_open()
        return made

    async def __aenter__(self) -> Any:
        return await self

    async def __aexit__(self, *args: object) -> None:
        await self.protocol.close()


Connect = connect


def unix_connect(path: PathLike | None = None, uri: str = "ws://localhost/", **kwargs: Any) -> connect:
    """Connect to a WebSocket server that listens on a Unix socket.

    Args:
        path: of the socket.
        uri, kwargs: those of `connect`.
    """
    return connect(uri, unix=True, path=path, **kwargs)


lend(globals())
