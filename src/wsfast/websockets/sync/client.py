"""`connect` of `websockets` in threads: `wsfast.sync.connect` with its parameters, defaults and exceptions."""

from __future__ import annotations

import dataclasses
import logging
import socket
import ssl as ssl_module
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Literal

from wsfast.handshake import HeadLimits
from wsfast.session import Limits
from wsfast.sync import client as native

from ..client import ClientProtocol, backoff, process_exception
from ..datastructures import HeadersLike
from ..dialing import MAX_REDIRECTS, Dialing, MaxQueue, counts
from ..extensions.base import ClientExtensionFactory
from ..http11 import USER_AGENT
from ..translate import translate
from ..typing import LoggerLike, Origin, PathLike, Subprotocol
from .connection import Connection

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


class _Connector(Dialing, native._Connector):
    """One server, and how to connect to it."""

    def __init__(self, uri: str, create_connection: Callable[..., ClientConnection] | None, **options: Any) -> None:
        self._create_connection = ClientConnection if create_connection is None else create_connection
        made = self.prepare(uri, **options)
        limits = {field.name: made.pop(field.name) for field in dataclasses.fields(Limits) if field.name in made}
        settings = {name: made.pop(name) for name in _SETTINGS}
        super().__init__(uri, Limits(**limits), HeadLimits(), bearer_token=None, options=made, **settings)

    def _websocket_type(self, *args: Any, **kwargs: Any) -> ClientConnection:
        protocol = self._protocol()
        protocol.counts = counts(self._sizes["max_queue"])
        return self._create_connection(protocol, *args, **kwargs)

    def connect(self) -> ClientConnection:
        """Connect, by way of redirects."""
        try:
            return super().connect()  # type: ignore[return-value]
        except TimeoutError as exc:
            if exc.errno is not None:  # the system's, of a connection attempt
                raise
            raise TimeoutError("timed out while waiting for handshake response") from exc
        except Exception as exc:
            made = translate(exc)
            if made is exc:
                raise
            raise made from made.__cause__


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
) -> ClientConnection:
    """Connect to a WebSocket server, in threads.

    Args:
        uri, origin, extensions, subprotocols, compression, additional_headers, user_agent_header, proxy, open_timeout,
            ping_interval, ping_timeout, close_timeout, max_size, max_queue, logger: those of `connect` on asyncio.
        sock, ssl, server_hostname, proxy_ssl, proxy_server_hostname: those of `wsfast.sync.connect`.
        create_connection: makes the `ClientConnection`.
        legacy: True, or None; the other style, in which this returns what is iterated over to connect again, is
            `reconnect`.
        kwargs: what `socket.create_connection` takes, as `wsfast.sync.connect` does.

    Raises:
        InvalidURI, InvalidProxy, ValueError, TypeError: an argument is wrong.
        OSError, InvalidHandshake, TimeoutError: it cannot connect.
    """
    if legacy is False:
        raise NotImplementedError("legacy=False is not there: use reconnect() to connect again and again")
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
    return _Connector(
        uri,
        create_connection,
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
    ).connect()


def unix_connect(path: PathLike | None = None, uri: str | None = None, **kwargs: Any) -> ClientConnection:
    """Connect to a WebSocket server that listens on a Unix socket, in threads.

    Args:
        path: of the socket; None if `sock` is given.
        uri: for the request. Default: ``ws://localhost/``, or ``wss://localhost/`` with `ssl`.
        kwargs: those of `connect`.
    """
    if path is None and kwargs.get("sock") is None:
        raise ValueError("missing path argument")
    if path is not None and kwargs.get("sock") is not None:
        raise ValueError("path and sock arguments are incompatible")
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    if path is None:
        return connect(uri, **kwargs)
    return connect(uri, unix=True, path=path, **kwargs)


def reconnect(
    uri: str,
    *,
    process_exception: Callable[[Exception], Exception | None] = process_exception,
    reconnect_delays: Callable[[], Generator[float]] = backoff,
    **kwargs: Any,
) -> Iterator[ClientConnection]:
    """Connect again and again, with growing delays where that fails; each round of the loop closes its connection.

    Args:
        uri, kwargs: those of `connect`.
        process_exception: returns None for what it shall connect again after.
        reconnect_delays: makes the seconds between attempts.
    """
    return _again(lambda: connect(uri, **kwargs), process_exception, reconnect_delays)


def unix_reconnect(path: PathLike | None = None, uri: str | None = None, **kwargs: Any) -> Iterator[ClientConnection]:
    """Connect again and again to a WebSocket server that listens on a Unix socket; see `reconnect`."""
    again = {name: kwargs.pop(name) for name in ("process_exception", "reconnect_delays") if name in kwargs}
    return _again(
        lambda: unix_connect(path, uri, **kwargs),
        again.get("process_exception", process_exception),
        again.get("reconnect_delays", backoff),
    )


def _again(
    attempt: Callable[[], ClientConnection],
    process_exception: Callable[[Exception], Exception | None],
    reconnect_delays: Callable[[], Iterator[float]],
) -> Iterator[ClientConnection]:
    delays: Iterator[float] | None = None
    while True:
        try:
            ws = attempt()
        except Exception as exc:
            try:
                answer = process_exception(exc)
            except Exception as raised:
                answer = raised
            if answer is exc:
                raise
            if answer is not None:
                raise answer from exc
            if delays is None:
                delays = iter(reconnect_delays())
            delay = next(delays)
            failure = traceback.format_exception_only(exc)[0].strip()
            logging.getLogger("websockets.client").info(
                "connect failed; reconnecting in %.1f seconds: %s", delay, failure
            )
            time.sleep(delay)
        else:
            delays = None
            with ws:
                yield ws
