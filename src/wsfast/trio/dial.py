"""The way from a client on trio to a server: what `dial` does on asyncio, with the same options."""

from __future__ import annotations

import os
from math import inf
from typing import Any, ClassVar, cast

import trio

from wsfast.dial.eyeballs import STAGGER, none_answers
from wsfast.dial.proxy import (
    Proxy,
    check_tunnel,
    connect_request,
    find_proxy,
    parse_proxy,
    socks_arguments,
    socks_needed,
)
from wsfast.dial.route import Route, as_context, certificate_name
from wsfast.exceptions import InvalidMessage, InvalidURI, ProxyError
from wsfast.handshake.http11 import ResponseParser
from wsfast.handshake.uri import URI
from wsfast.transport.refusal import why_refused

from .stream import CHUNK, Transport, close_now, secure

__all__ = ["TrioDialer", "Way"]

Way = tuple[Transport, trio.abc.Stream]
"""A connection without and with its TLS; the same twice, if there is none."""


class TrioDialer(Route):
    """How to reach servers; arguments are those of `Route`, with fewer options for TCP, and `stream`."""

    known: ClassVar[frozenset[str]] = frozenset(
        {
            "happy_eyeballs_delay",
            "host",
            "path",
            "port",
            "proxy_server_hostname",
            "proxy_ssl",
            "server_hostname",
            "sock",
            "ssl",
            "stream",
            "unix",
        }
    )

    def __init__(
        self,
        proxy: str | bool | None,
        user_agent_header: str | None,
        timeout: float | None,
        close_timeout: float | None,
        options: dict[str, Any],
        **others: Any,
    ) -> None:
        if options.get("stream") is not None and (options.get("sock") is not None or options.get("unix")):
            raise ValueError("expected one of stream, sock and unix")
        super().__init__(proxy, user_agent_header, timeout, close_timeout, options, **others)

    @property
    def fixed(self) -> str | None:
        """The name of the option that ties it to one server, so that it must not be used for another, or None."""
        return "stream" if self._tcp.get("stream") is not None else super().fixed

    @property
    def one_time(self) -> bool:
        """Whether it can connect only once, because it was given a stream or a socket."""
        return self._tcp.get("stream") is not None or super().one_time

    async def open(self, uri: URI) -> Way:
        """Connect to a server, by way of the proxy, up to the end of the TLS handshake; the caller sets a limit.

        Args:
            uri: of the server.

        Raises:
            OSError: the server cannot be reached, `ssl.SSLError` included.
            InvalidProxy: the proxy's URL is not valid.
            ProxyError: the proxy could not be reached, refused, or did not answer in HTTP.
            ImportError: python-socks is needed and not installed.
        """
        transport = await self._reach(uri)
        if not uri.secure:
            return transport, transport
        name = self._tls.get("server_hostname")
        name = certificate_name(uri) if name is None else str(name)
        try:
            return transport, await secure(transport, as_context(self._ssl, "ssl"), name)
        except BaseException:
            await close_now(transport)
            raise

    async def _reach(self, uri: URI) -> Transport:
        if self._tcp.get("stream") is not None:
            return Transport(self._tcp["stream"])
        if self._tcp.get("sock") is not None:
            return Transport.of_socket(self._tcp["sock"])
        if self._unix:
            return Transport(await trio.open_unix_socket(os.fspath(self._tcp["path"])))
        host = uri.host if self._host is None else str(self._host)
        port = uri.port if self._port is None else int(self._port)
        address = find_proxy(uri) if self._proxy is True else self._proxy
        if address is None:
            try:
                return await self._tcp_to(host, port)
            except UnicodeError as exc:
                # A label that is too long fails only here, when the name is encoded for the look-up.
                raise InvalidURI(host, f"expected a host name: {exc}") from exc
        proxy = parse_proxy(str(address))
        return await (self._socks(proxy, host, port) if proxy.is_socks else self._tunnel(proxy, host, port))

    async def _tcp_to(self, host: str, port: int) -> Transport:
        delay = self._tcp.get("happy_eyeballs_delay", STAGGER)
        delay = inf if delay is None else delay
        try:
            return Transport(await trio.open_tcp_stream(host, port, happy_eyeballs_delay=delay))
        except OSError as exc:
            cause = exc.__cause__
            errors = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
            told = [error for error in errors if isinstance(error, OSError)]
            if not told:
                raise
            raise none_answers(host, told) from exc

    async def _socks(self, proxy: Proxy, host: str, port: int) -> Transport:
        try:
            from python_socks.async_.trio import Proxy as Connector
        except ImportError as exc:
            raise socks_needed() from exc
        connector = Connector(*socks_arguments(proxy))
        try:
            # Its own limit, of 60 s, must not be shorter than the caller's.
            sock = await connector.connect(host, port, timeout=1e6)
        except Exception as exc:
            raise ProxyError(f"could not connect through the proxy {proxy}: {why_refused(exc)}") from exc
        return Transport(trio.SocketStream(sock))

    async def _tunnel(self, proxy: Proxy, host: str, port: int) -> Transport:
        request = connect_request(proxy, host, port, self._user_agent)
        stream: Transport | None = None
        try:
            stream = await self._tcp_to(proxy.host, proxy.port)
            if proxy.scheme == "https":
                name = cast("str | None", self._proxy_tls.get("server_hostname"))
                context = as_context(self._proxy_ssl, "proxy_ssl")
                stream = Transport(await secure(stream, context, proxy.host.rstrip(".") if name is None else name))
            await self._ask(stream, request)
        except BaseException as exc:
            if stream is not None:
                await close_now(stream)
            if isinstance(exc, OSError):
                raise ProxyError(f"could not connect to the proxy {proxy}: {why_refused(exc)}") from exc
            raise
        return stream

    async def _ask(self, stream: Transport, request: bytes) -> None:
        """Send CONNECT and wait for the answer (RFC 9110, 9.3.6)."""
        parser = ResponseParser(connect=True, limits=self._head_limits)
        response = None
        try:
            await stream.send_all(request)
            while response is None:
                data = await stream.receive_some(CHUNK)
                response = parser.feed(bytes(data)) if data else parser.feed_eof()
        except trio.BrokenResourceError as exc:
            raise ProxyError("expected an answer from the proxy, got the end of the connection") from exc
        except InvalidMessage as exc:
            raise ProxyError(f"proxy gave no valid answer: {exc}") from exc
        check_tunnel(response, parser.trailing)
