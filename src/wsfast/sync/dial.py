"""Connecting a client without an event loop to a server: as `dial` does on asyncio, with the same options."""

from __future__ import annotations

import os
import ssl as ssl_module
from typing import Any, ClassVar, cast

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

from .link import Deadline, Link, bounded, open_tcp, open_unix

__all__ = ["SyncDialer"]


class SyncDialer(Route):
    """How to reach servers; arguments are those of `Route`, with fewer options for TCP."""

    known: ClassVar[frozenset[str]] = Route.known - {
        "all_errors",
        "flags",
        "happy_eyeballs_delay",
        "interleave",
        "proto",
    }

    def open(self, uri: URI, deadline: Deadline) -> Link:
        """Connect to a server, by way of the proxy, up to the end of the TLS handshake.

        Args:
            uri: of the server.
            deadline: for all of it.

        Raises:
            OSError: the server cannot be reached, `ssl.SSLError` included.
            TimeoutError: it took too long.
            InvalidProxy: the proxy's URL is not valid.
            ProxyError: the proxy could not be reached, refused, or did not answer in HTTP.
            ImportError: python-socks is needed and not installed.
        """
        link = self._reach(uri, deadline)
        if uri.secure:
            name = self._tls.get("server_hostname")
            name = certificate_name(uri) if name is None else str(name)
            try:
                link.start_tls(as_context(self._ssl, "ssl"), name, deadline)
            except BaseException:
                link.close()
                raise
        return link

    def _reach(self, uri: URI, deadline: Deadline) -> Link:
        if self._tcp.get("sock") is not None:
            return Link(self._tcp["sock"])
        if self._unix:
            return Link(open_unix(os.fspath(self._tcp["path"]), deadline))
        host = uri.host if self._host is None else str(self._host)
        port = uri.port if self._port is None else int(self._port)
        address = find_proxy(uri) if self._proxy is True else self._proxy
        if address is None:
            try:
                return Link(open_tcp(host, port, deadline, **self._tcp_options()))
            except UnicodeError as exc:
                # A label that is too long fails only here, when the name is encoded for the look-up.
                raise InvalidURI(host, f"expected a host name: {exc}") from exc
        proxy = parse_proxy(str(address))
        return self._socks(proxy, host, port, deadline) if proxy.is_socks else self._tunnel(proxy, host, port, deadline)

    def _tcp_options(self) -> dict[str, Any]:
        return {name: self._tcp[name] for name in ("family", "local_addr") if name in self._tcp}

    def _socks(self, proxy: Proxy, host: str, port: int, deadline: Deadline) -> Link:
        try:
            from python_socks.sync import Proxy as Connector
        except ImportError as exc:
            raise socks_needed() from exc
        connector = Connector(*socks_arguments(proxy))
        local_addr = self._tcp.get("local_addr")
        left = deadline.left()
        try:
            # Its own limit is for each read: a proxy that trickles would be waited for without end.
            sock = bounded(
                lambda: connector.connect(host, port, timeout=left or 1e6, local_addr=local_addr),
                deadline,
                lambda late: late.close(),
            )
        except TimeoutError:
            raise
        except Exception as exc:
            raise ProxyError(f"could not connect through the proxy {proxy}: {why_refused(exc)}") from exc
        return Link(sock)

    def _tunnel(self, proxy: Proxy, host: str, port: int, deadline: Deadline) -> Link:
        request = connect_request(proxy, host, port, self._user_agent)
        try:
            link = Link(open_tcp(proxy.host, proxy.port, deadline, **self._tcp_options()))
            try:
                if proxy.scheme == "https":
                    name = cast("str | None", self._proxy_tls.get("server_hostname"))
                    context: ssl_module.SSLContext = as_context(self._proxy_ssl, "proxy_ssl")
                    link.start_tls(context, proxy.host if name is None else name, deadline)
            except BaseException:
                link.close()
                raise
        except TimeoutError:
            raise
        except OSError as exc:
            raise ProxyError(f"could not connect to the proxy {proxy}: {why_refused(exc)}") from exc
        try:
            self._ask(link, request, deadline)
        except BaseException:
            link.close()
            raise
        return link

    def _ask(self, link: Link, request: bytes, deadline: Deadline) -> None:
        """Send CONNECT and wait for the answer (RFC 9110, 9.3.6)."""
        parser = ResponseParser(connect=True, limits=self._head_limits)
        link.write(request)
        response = None
        try:
            while response is None:
                try:
                    data = link.receive(deadline)
                except TimeoutError:
                    raise
                except OSError as exc:
                    raise ProxyError("expected an answer from the proxy, got the end of the connection") from exc
                response = parser.feed(data) if data else parser.feed_eof()
        except InvalidMessage as exc:
            raise ProxyError(f"proxy gave no valid answer: {exc}") from exc
        check_tunnel(response, parser.trailing)
