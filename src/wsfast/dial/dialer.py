"""Connecting to a server on asyncio: TCP, Unix sockets, proxies and TLS, up to the opening handshake."""

from __future__ import annotations

import asyncio
from typing import Any

from ..exceptions import InvalidURI
from ..handshake.uri import URI
from ..transport.sockets import begin_transport
from ..transport.tls import connect, secure
from .addresses import create_connection, create_unix_connection
from .proxy import find_proxy, parse_proxy
from .route import Route, as_context, certificate_name
from .tunnel import connect_socks, open_tunnel

__all__ = ["Dialer"]


class Dialer(Route):
    """How to reach servers on asyncio; see `Route`."""

    async def dial(self, uri: URI, protocol: asyncio.Protocol) -> None:
        """Connect to a server; ``protocol.connection_made`` is called when TCP, the proxy and TLS are set up.

        Args:
            uri: of the server.
            protocol: the asyncio protocol that will do the opening handshake.

        Raises:
            OSError: the server cannot be reached, `ssl.SSLError` included.
            InvalidProxy: the proxy's URL is not valid.
            ProxyError: the proxy could not be reached, refused, or did not answer in HTTP.
            ImportError: python-socks is needed and not installed.
        """
        host = uri.host if self._host is None else self._host
        port = uri.port if self._port is None else self._port
        tls: dict[str, Any] = {}
        if uri.secure:
            tls = {"ssl": as_context(self._ssl, "ssl"), **self._tls}
            if tls.get("server_hostname") is None:
                tls["server_hostname"] = certificate_name(uri)

        if self._unix:
            await connect(create_unix_connection, protocol, **self._tcp, **tls)
            return
        address = find_proxy(uri) if self._proxy is True else self._proxy
        if address is None:
            if self._tcp.get("sock") is not None:
                await connect(create_connection, protocol, host, port, **self._tcp, **tls)
            else:
                try:
                    await connect(create_connection, protocol, host, port, **self._tcp, **tls)
                except UnicodeError as exc:
                    # A label that is too long fails only here, when the name is encoded for the look-up.
                    raise InvalidURI(str(host), f"expected a host name: {exc}") from exc
            return
        proxy = parse_proxy(str(address))
        if proxy.is_socks:
            sock = await connect_socks(proxy, host, port, self._tcp.get("local_addr"), self._timeout)
            try:
                await connect(begin_transport, protocol, sock, **tls)
            except BaseException:
                sock.close()
                raise
            return
        options = dict(self._tcp)
        if proxy.scheme == "https":
            options |= {"ssl": as_context(self._proxy_ssl, "proxy_ssl"), **self._proxy_tls}
        transport = await open_tunnel(proxy, host, port, self._user_agent, self._head_limits, options)
        if tls:
            await secure(transport, protocol, **tls)
        else:
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
