"""Connecting through a proxy on asyncio: HTTP CONNECT (RFC 9110, 9.3.6), and SOCKS by python-socks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from ..exceptions import InvalidMessage, ProxyError
from ..handshake.http11 import HeadLimits, ResponseParser
from ..http import Response
from ..transport.refusal import why_refused
from ..transport.tls import connect
from .addresses import create_connection
from .proxy import Proxy, check_tunnel, connect_request, socks_arguments, socks_needed

if TYPE_CHECKING:
    import socket

__all__ = ["connect_socks", "open_tunnel"]


class _TunnelProtocol(asyncio.Protocol):
    """The client's side of CONNECT, until the proxy has answered."""

    def __init__(self, request: bytes, loop: asyncio.AbstractEventLoop, limits: HeadLimits | None = None) -> None:
        self._request = request
        self._parser = ResponseParser(connect=True, limits=limits or HeadLimits())
        self.transport: asyncio.Transport | None = None
        self.response: asyncio.Future[Response] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.response.done():
            # The server waits for the client's request, or for its ClientHello, and sends nothing before.
            self._fail(ProxyError("expected nothing from the proxy before the handshake with the server"))
            return
        try:
            response = self._parser.feed(data)
        except InvalidMessage as exc:
            self._fail(_wrong(exc))
            return
        if response is not None:
            self._finish(response)

    def eof_received(self) -> bool:
        if not self.response.done():
            try:
                self._finish(self._parser.feed_eof())
            except InvalidMessage as exc:
                exc.__cause__ = EOFError("the proxy ended the connection")
                self._fail(_wrong(exc, exc.__cause__))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.response.done():
            error = ProxyError("expected an answer from the proxy, got the end of the connection")
            error.__cause__ = exc or EOFError("the proxy ended the connection")
            self._fail(error)

    def _finish(self, response: Response) -> None:
        try:
            check_tunnel(response, self._parser.trailing)
        except ProxyError as exc:
            self._fail(exc)
        else:
            self.response.set_result(response)

    def _fail(self, error: ProxyError) -> None:
        if not self.response.done():
            self.response.set_exception(error)
        assert self.transport is not None
        self.transport.abort()


def _wrong(exc: InvalidMessage, cause: BaseException | None = None) -> ProxyError:
    error = ProxyError(f"proxy gave no valid answer: {exc}")
    error.__cause__ = cause or exc
    return error


async def open_tunnel(
    proxy: Proxy, host: str, port: int, user_agent_header: str | None, limits: HeadLimits, options: dict[str, Any]
) -> asyncio.Transport:
    """Connect to an HTTP proxy and have it connect to a server; the caller sets a protocol on the transport.

    Args:
        proxy: whose scheme is http or https.
        host, port: of the server.
        user_agent_header: the value of User-Agent; None for none.
        limits: how large the head of the answer may be.
        options: for `create_connection`, with the TLS to the proxy if there is any.

    Raises:
        ProxyError: the proxy could not be reached, refused, or did not answer in HTTP.
    """
    loop = asyncio.get_running_loop()
    tunnel = _TunnelProtocol(connect_request(proxy, host, port, user_agent_header), loop, limits)
    try:
        if options.get("ssl") is not None and options.get("server_hostname") is None:
            options = {**options, "server_hostname": proxy.host.rstrip(".")}
        await connect(create_connection, tunnel, proxy.host, proxy.port, **options)
    except OSError as exc:
        raise ProxyError(f"could not connect to the proxy {proxy}: {why_refused(exc)}") from exc
    assert tunnel.transport is not None
    try:
        await tunnel.response
    except BaseException:
        tunnel.transport.abort()
        raise
    return tunnel.transport


async def connect_socks(
    proxy: Proxy, host: str, port: int, local_addr: tuple[str, int] | None, timeout: float | None
) -> socket.socket:
    """Connect to a server through a SOCKS proxy and return the socket.

    Args:
        proxy: whose scheme is one of SOCKS.
        host, port: of the server.
        local_addr: to connect to the proxy from; None for any.
        timeout: seconds; None for no limit.

    Raises:
        ImportError: python-socks is not installed.
        ProxyError: the proxy could not be reached, or refused.
    """
    try:
        from python_socks.async_.asyncio import Proxy as Connector
    except ImportError as exc:
        raise socks_needed() from exc
    connector = Connector(*socks_arguments(proxy))
    try:
        # python-socks has a limit of its own, of 60 s, which must not be shorter than the caller's.
        return await connector.connect(host, port, timeout=timeout or 1e6, local_addr=local_addr)
    except Exception as exc:
        raise ProxyError(f"could not connect through the proxy {proxy}: {why_refused(exc)}") from exc
