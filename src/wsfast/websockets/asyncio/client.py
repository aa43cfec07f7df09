"""`connect` of `websockets`: `wsfast.connect` with its parameters, defaults and exceptions."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urljoin

from wsfast import exceptions as native
from wsfast import handshake
from wsfast.client import connector

from ..client import ClientProtocol, backoff, process_exception
from ..datastructures import Headers, HeadersLike
from ..exceptions import InvalidProxy, InvalidStatus, SecurityError
from ..extensions.base import ClientExtensionFactory
from ..extensions.permessage_deflate import enable_client_permessage_deflate, only_deflate
from ..headers import validate_subprotocols
from ..http11 import USER_AGENT
from ..translate import translate
from ..typing import LoggerLike, Origin, PathLike, Subprotocol
from ..uri import parse_uri
from .connection import Connection, MaxQueue, WriteLimit, limits

__all__ = ["ClientConnection", "connect", "unix_connect"]

MAX_REDIRECTS = int(os.environ.get("WEBSOCKETS_MAX_REDIRECTS", "10"))

_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})
# What the handshake says anyway; some programs say it once more.
_SAID = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}


class ClientConnection(Connection):
    """A connection from the client's side; see `Connection`.

    Args:
        protocol: what it is made with.
        ping_interval, ping_timeout, close_timeout, max_queue, write_limit: those of `connect`.
    """

    protocol: ClientProtocol


class connect(connector.connect):  # noqa: N801
    """Connect to a WebSocket server: ``await``, ``async with`` or, to connect again and again, ``async for``.

    Args:
        uri: ws:// or wss://.
        origin, subprotocols, additional_headers, user_agent_header, proxy, open_timeout, ping_interval, ping_timeout,
            close_timeout: those of `wsfast.connect`.
        extensions: settings of permessage-deflate; wsfast has no other extension.
        compression: ``"deflate"`` or None.
        process_exception: returns None for what ``async for`` shall connect again after.
        reconnect_delays: makes the seconds between attempts.
        max_size: the most bytes of a message; of a pair the first counts.
        max_queue: messages that may wait to be received; of a pair the first counts. 4 KiB are held for each.
        write_limit: bytes unsent above which `send` waits; of a pair the first counts.
        logger: default: ``logging.getLogger("websockets.client")``.
        create_connection: makes the `ClientConnection`.
        kwargs: what `wsfast.connect` takes besides: `ssl`, `sock`, `host`, `port`, `server_hostname`, `local_addr`, ...

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
        self.ws_uri = parse_uri(uri)
        _check_tls(self.ws_uri.secure, proxy, kwargs)
        if subprotocols is not None:
            validate_subprotocols(subprotocols)
        if compression == "deflate":
            extensions = enable_client_permessage_deflate(extensions)
        elif compression is not None:
            raise ValueError(f"unsupported compression: {compression}")
        self.additional_headers = additional_headers
        self.user_agent_header = user_agent_header
        self.proxy = proxy
        self.process_exception = process_exception
        self.open_timeout = open_timeout
        self.reconnect_delays = reconnect_delays
        self.create_connection_kwargs = kwargs
        self._create_connection = ClientConnection if create_connection is None else create_connection
        self._made_with: dict[str, Any] = {
            "origin": origin,
            "extensions": extensions,
            "subprotocols": subprotocols,
            "max_size": max_size,
            "logger": logger,
        }
        self.logger: Any = self._protocol().logger
        self._times: dict[str, Any] = {
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "close_timeout": close_timeout,
        }
        self._sizes: dict[str, Any] = {"max_queue": max_queue, "write_limit": write_limit}
        try:
            super().__init__(
                uri,
                origin=origin,
                subprotocols=subprotocols,
                compression=only_deflate(extensions),
                additional_headers=_pairs(additional_headers),
                user_agent_header=user_agent_header,
                proxy=proxy,
                max_redirects=MAX_REDIRECTS,
                open_timeout=open_timeout,
                logger=self.logger,
                **limits(max_size=max_size, **self._times, **self._sizes),
                **kwargs,
            )
        except native.InvalidProxy as exc:
            raise InvalidProxy(exc.proxy, _proxy_words(exc)) from None

    # --- What the opening handshake calls -----------------------------------------------------------------

    def _protocol(self) -> ClientProtocol:
        return ClientProtocol(self.ws_uri, **self._made_with)

    def _new_websocket(self, request: handshake.Request, subprotocol: str | None, peer: Any) -> ClientConnection:
        ws = self._create_connection(self._protocol(), **self._times, **self._sizes)
        ws.request = request
        ws.subprotocol = subprotocol
        ws._peer = peer
        return ws

    def _redirected(self, uri: handshake.URI, exc: native.InvalidStatus, followed: int) -> handshake.URI | None:
        status = translate(exc)
        assert isinstance(status, InvalidStatus)
        headers = self.additional_headers
        answer = self.process_redirect(status)
        if isinstance(answer, Exception):
            if answer is status:
                raise status from exc.__cause__
            raise answer from status
        if followed + 1 >= self._max_redirects:
            raise SecurityError(f"more than {self._max_redirects} redirects") from status
        self.uri = answer
        self.ws_uri = parse_uri(answer)
        self._parsed = handshake.parse_uri(answer)
        if self.additional_headers is not headers:
            self._headers = _pairs(self.additional_headers)
        return self._parsed

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the URI to go on with after an attempt to connect has failed, or the exception to raise.

        It may be overridden, to follow other redirects, or none.

        Args:
            exc: what the attempt raised; an `InvalidStatus` if it may be a redirect.
        """
        if (
            not isinstance(exc, InvalidStatus)
            or exc.response.status_code not in (300, 301, 302, 303, 307, 308)
            or "Location" not in exc.response.headers
        ):
            return exc
        old = self.ws_uri
        new_uri = urljoin(self.uri, exc.response.headers["Location"])
        new = parse_uri(new_uri)
        options = self.create_connection_kwargs
        if options.get("sock") is not None:
            return ValueError(f"cannot follow redirect to {new_uri} with a preexisting socket")
        if old.secure and not new.secure:
            return SecurityError(f"cannot follow redirect to non-secure URI {new_uri}")
        if (old.secure, old.host, old.port) != (new.secure, new.host, new.port):
            if options.get("unix", False):
                return ValueError(f"cannot follow cross-origin redirect to {new_uri} with a Unix socket")
            if options.get("host") is not None or options.get("port") is not None:
                return ValueError(f"cannot follow cross-origin redirect to {new_uri} with an explicit host or port")
            if self.additional_headers is not None:
                kept = Headers(self.additional_headers).raw_items()
                self.additional_headers = Headers((name, value) for name, value in kept if name.lower() not in _SECRETS)
        return new_uri

    async def _connect(self) -> tuple[Any, Any]:
        try:
            return await super()._connect()
        except TimeoutError as exc:
            if exc.errno is not None:  # the system's, of a connection attempt
                raise
            raise TimeoutError("timed out during opening handshake") from exc
        except Exception as exc:
            made = translate(exc)
            if made is exc:
                raise
            raise made from made.__cause__

    async def connect(self) -> ClientConnection:
        """Connect, as ``await`` does."""
        connection: ClientConnection = (await self._connect())[1]
        return connection

    # --- await, async with, async for ---------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        return self.connect().__await__()

    async def __aenter__(self) -> ClientConnection:
        if hasattr(self, "connection"):
            raise RuntimeError("connect() isn't reentrant")
        self.connection = await self
        return self.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self.connection.close()
        finally:
            del self.connection

    async def __aiter__(self) -> AsyncIterator[ClientConnection]:
        delays: Iterator[float] | None = None
        while True:
            try:
                async with self as connection:
                    yield connection
            except Exception as exc:
                # `process_exception` may raise what it should return.
                try:
                    answer = self.process_exception(exc)
                except Exception as raised:
                    answer = raised
                if answer is exc:
                    raise
                if answer is not None:
                    raise answer from exc
                if delays is None:
                    delays = iter(self.reconnect_delays())
                delay = next(delays)
                failure = traceback.format_exception_only(exc)[0].strip()
                self.logger.info("connect failed; reconnecting in %.1f seconds: %s", delay, failure)
                await asyncio.sleep(delay)
            else:
                delays = None


def _check_tls(secure: bool, proxy: str | bool | None, options: dict[str, Any]) -> None:
    if not secure and options.get("ssl") is not None:
        raise ValueError("ssl argument is incompatible with a ws:// URI")
    if secure and options.get("ssl", True) is None:
        raise ValueError("ssl=None is incompatible with a wss:// URI")
    if isinstance(proxy, str):
        if proxy.startswith("http://") and options.get("proxy_ssl") is not None:
            raise ValueError("proxy_ssl argument is incompatible with an http:// proxy")
        if proxy.startswith("https://") and options.get("proxy_ssl", True) is None:
            raise ValueError("proxy_ssl=None is incompatible with an https:// proxy")


def _proxy_words(exc: native.InvalidProxy) -> str:
    scheme, separator, _ = exc.proxy.partition("://")
    known = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
    return f"scheme {scheme} isn't supported" if separator and scheme not in known else exc.message


def _pairs(headers: HeadersLike | None) -> list[tuple[str, str]] | None:
    if headers is None:
        return None
    pairs = Headers(headers).raw_items()
    return [(name, value) for name, value in pairs if _SAID.get(name.lower()) != value.lower()]


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
