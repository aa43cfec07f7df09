"""`connect` of `websockets` in threads: `wsfast.sync.connect` with its parameters, defaults and exceptions."""

from __future__ import annotations

import dataclasses
import socket
import ssl as ssl_module
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal

from wsfast.handshake import HeadLimits, Request
from wsfast.options import check_values
from wsfast.session import Limits
from wsfast.sync import client as native
from wsfast.sync.link import Link

from ..client import ClientProtocol, backoff, process_exception
from ..datastructures import HeadersLike
from ..dialing import MAX_REDIRECTS, Dialing, MaxQueue, Retries
from ..extensions.base import ClientExtensionFactory
from ..http11 import USER_AGENT
from ..imports import lend
from ..typing import LoggerLike, Origin, PathLike, Subprotocol
from .connection import Connection, Opening

__all__ = ["ClientConnection", "connect", "reconnect", "unix_connect", "unix_reconnect"]

_SETTINGS = (
    "origin",
    "subprotocols",
    "additional_headers",
    "user_agent_header",
    "proxy",
    "max_redirects",
    "logger",
)


class ClientConnection(Connection):
    """A connection from the client's side; see `Connection`."""

    protocol: ClientProtocol


class reconnect(Dialing, native._Connector):  # noqa: N801
    """Connect again and again, with growing delays where that fails; each round of the loop closes its connection.

    ``with reconnect(...) as ws:`` connects once, and closes the connection at the end of the block.

    Args:
        uri: ws:// or wss://.
        origin, extensions, subprotocols, compression, additional_headers, user_agent_header, proxy, process_exception,
            open_timeout, ping_interval, ping_timeout, close_timeout, reconnect_delays, max_size, max_queue, logger:
            those of `connect` on asyncio.
        sock, ssl, server_hostname, proxy_ssl, proxy_server_hostname: those of `wsfast.sync.connect`.
        create_connection: makes the `ClientConnection`.
        kwargs: what `socket.create_connection` takes, as `wsfast.sync.connect` does.

    Raises:
        InvalidURI, InvalidProxy, ValueError, TypeError: an argument is wrong.
        OSError, InvalidHandshake, TimeoutError: when it connects.
    """

    def __init__(
        self,
        uri: str,
        *,
        sock: socket.socket | None = None,
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
        if ssl is None and "ssl_context" in kwargs:
            ssl = kwargs.pop("ssl_context")
            warnings.warn("ssl_context was renamed to ssl", DeprecationWarning, stacklevel=2)
        kwargs.pop("timeout", None)  # `open_timeout` is for all of it
        check_values(kwargs)
        address = kwargs.pop("address", None)
        if address is not None:
            kwargs["host"], kwargs["port"] = address
        source = kwargs.pop("source_address", None)
        if source is not None:
            kwargs["local_addr"] = source
        given = {
            "sock": sock,
            "ssl": ssl,
            "server_hostname": server_hostname,
            "proxy_ssl": proxy_ssl,
            "proxy_server_hostname": proxy_server_hostname,
        }
        self.process_exception = process_exception
        self.reconnect_delays = reconnect_delays
        self._create_connection = ClientConnection if create_connection is None else create_connection
        made = self.prepare(
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
        limits = {field.name: made.pop(field.name) for field in dataclasses.fields(Limits) if field.name in made}
        settings = {name: made.pop(name) for name in _SETTINGS}
        super().__init__(uri, Limits(**limits), HeadLimits(), bearer_token=None, options=made, **settings)

    def _websocket_type(self, link: Link, limits: Limits, *, request: Request, logger: Any) -> ClientConnection:
        return self._create_connection(Opening(link, limits, request), self._protocol(), **self._times, **self._sizes)

    def connect(self) -> ClientConnection:
        """Connect, by way of redirects."""
        try:
            return super().connect()  # type: ignore[return-value]
        except TimeoutError as exc:
            if exc.errno is not None:  # the system's, of a connection attempt
                raise
            raise TimeoutError("timed out while waiting for handshake response") from exc
        except Exception as exc:
            made = self._told_as(exc)
            if made is exc:
                raise
            raise made from made.__cause__

    def __enter__(self) -> ClientConnection:
        if hasattr(self, "connection"):
            raise RuntimeError("connect() isn't reentrant")
        self.connection: ClientConnection = self.connect()
        entered: ClientConnection = self.connection.__enter__()
        return entered

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.connection.__exit__(kind, exc, tb)
        finally:
            del self.connection

    def __iter__(self) -> Iterator[ClientConnection]:
        retries = Retries(self.process_exception, self.reconnect_delays, self.logger)
        while True:
            try:
                with self as connection:
                    yield connection
            except Exception as exc:
                time.sleep(retries.failed(exc))
            else:
                retries.worked()


def connect(
    uri: str,
    *,
    sock: socket.socket | None = None,
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
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    max_size: int | tuple[int | None, int | None] | None = 2**20,
    max_queue: MaxQueue = 16,
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ClientConnection] | None = None,
    legacy: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Connect to a WebSocket server, in threads.

    Args:
        uri, sock, ssl, server_hostname, origin, extensions, subprotocols, compression, additional_headers,
            user_agent_header, proxy, proxy_ssl, proxy_server_hostname, open_timeout, ping_interval, ping_timeout,
            close_timeout, max_size, max_queue, logger, create_connection, kwargs: those of `reconnect`.
        legacy: False returns what `reconnect` does, to connect again and again; else this returns the connection.

    Raises:
        InvalidURI, InvalidProxy, ValueError, TypeError: an argument is wrong.
        OSError, InvalidHandshake, TimeoutError: it cannot connect.
    """
    connector = reconnect(
        uri,
        sock=sock,
        ssl=ssl,
        server_hostname=server_hostname,
        origin=origin,
        extensions=extensions,
        subprotocols=subprotocols,
        compression=compression,
        additional_headers=additional_headers,
        user_agent_header=user_agent_header,
        proxy=proxy,
        proxy_ssl=proxy_ssl,
        proxy_server_hostname=proxy_server_hostname,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        max_size=max_size,
        max_queue=max_queue,
        logger=logger,
        create_connection=create_connection,
        **kwargs,
    )
    return connector if legacy is False else connector.connect()


def unix_connect(path: PathLike | None = None, uri: str | None = None, **kwargs: Any) -> Any:
    """Connect to a WebSocket server that listens on a Unix socket, in threads.

    Args:
        path: of the socket; None if `sock` is given.
        uri: for the request. Default: ``ws://localhost/``, or ``wss://localhost/`` with `ssl`.
        kwargs: those of `connect`.
    """
    return connect(**_unix(path, uri, kwargs))


def unix_reconnect(path: PathLike | None = None, uri: str | None = None, **kwargs: Any) -> reconnect:
    """Connect again and again to a WebSocket server that listens on a Unix socket; see `reconnect`.

    Args:
        path, uri: those of `unix_connect`.
        kwargs: those of `reconnect`.
    """
    return reconnect(**_unix(path, uri, kwargs))


def _unix(path: PathLike | None, uri: str | None, options: dict[str, Any]) -> dict[str, Any]:
    if path is None and options.get("sock") is None:
        raise ValueError("missing path argument")
    if path is not None and options.get("sock") is not None:
        raise ValueError("path is incompatible with sock")
    if uri is None:
        secure = options.get("ssl") is not None or options.get("ssl_context") is not None
        uri = "wss://localhost/" if secure else "ws://localhost/"
    return {"uri": uri, **options, **({} if path is None else {"unix": True, "path": path})}


lend(globals())
