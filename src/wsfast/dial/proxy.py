"""Proxies on a client's way to the server: which one to use, HTTP CONNECT (RFC 9110, 9.3.6), and SOCKS."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.request
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import unquote

from ..exceptions import InvalidMessage, InvalidProxy, InvalidURI, ProxyError
from ..handshake.headers import build_authorization_basic, build_host
from ..handshake.http11 import ResponseParser
from ..handshake.uri import URI, parse_host, split_uri
from ..http import Response, check_header
from .addresses import create_connection

if TYPE_CHECKING:
    import socket

__all__ = ["Proxy", "connect_request", "connect_socks", "find_proxy", "open_tunnel", "parse_proxy", "socks_arguments"]

_PORTS: Final = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}


class Proxy(NamedTuple):
    """A proxy's address."""

    scheme: str
    """``"http"``, ``"https"``, ``"socks4"``, ``"socks4a"``, ``"socks5"`` or ``"socks5h"``."""
    host: str
    port: int
    username: str | None = None
    """None without credentials."""
    password: str | None = None

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS, not HTTP."""
        return self.scheme.startswith("socks")

    def __str__(self) -> str:
        # Without the password: this is for errors and logs.
        return f"{self.scheme}://{build_host(self.host, self.port, False, always_include_port=True)}"


def parse_proxy(proxy: str) -> Proxy:
    """Take a proxy's address apart, such as ``http://user:password@proxy.example:3128``.

    Args:
        proxy: its scheme is http, https (TLS to the proxy), socks5 or socks4 (this side resolves names), or socks5h or
            socks4a (the proxy does).

    Raises:
        InvalidProxy: it is no such address; the text does not hold its password.
    """
    scheme, separator, rest = proxy.partition("://")
    shown = f"{scheme}{separator}{rest.rpartition('@')[2]}"
    bad = next((character for character in proxy if character <= " " or character == "\x7f"), None)
    if bad is not None:
        # urlsplit drops some of them silently.
        raise InvalidProxy(shown, f"expected no spaces and control characters, got {bad!r}")
    try:
        parts = split_uri(proxy)
        port = parts.port
    except ValueError as exc:
        raise InvalidProxy(shown, "expected a host and a port from 1 to 65535") from exc
    if parts.scheme not in _PORTS:
        raise InvalidProxy(shown, f"expected a scheme among {', '.join(_PORTS)}, got {parts.scheme!r}")
    if not parts.hostname:
        raise InvalidProxy(shown, "expected a host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidProxy(shown, "expected nothing after the port")
    if port == 0:
        raise InvalidProxy(shown, "expected a port from 1 to 65535, got 0")
    try:
        host = parse_host(shown, parts.hostname)
    except InvalidURI as exc:
        raise InvalidProxy(shown, exc.message) from exc
    username, password = parts.username, parts.password
    if username is not None:
        try:
            username, password = unquote(username, errors="strict"), unquote(password or "", errors="strict")
            if parts.scheme.startswith("http"):
                build_authorization_basic(username, password)  # what cannot be sent is found here
        except UnicodeError as exc:
            raise InvalidProxy(shown, "expected a user name and a password in UTF-8") from exc
        except ValueError as exc:
            raise InvalidProxy(shown, str(exc)) from exc
    return Proxy(parts.scheme, host, _PORTS[parts.scheme] if port is None else port, username, password)


def find_proxy(uri: URI) -> str | None:
    """Return the address of the proxy that the environment, or the operating system, names for a server, or None.

    The first of these that is set counts: for wss ``wss_proxy``, ``socks_proxy`` and ``https_proxy``; for ws
    ``ws_proxy``, ``socks_proxy``, ``https_proxy`` and ``http_proxy``, as RFC 6455, 4.1, item 3 has it.
    Servers that ``no_proxy`` names are connected to directly.
    """
    schemes = ("wss", "socks", "https") if uri.secure else ("ws", "socks", "https", "http")
    if sys.platform not in ("darwin", "win32") and not any(
        os.environ.get(name) for scheme in schemes for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    ):
        return None  # urllib would walk through the whole environment, twice
    proxies = urllib.request.getproxies()
    for scheme in schemes:
        found = proxies.get(scheme)
        if found:
            if urllib.request.proxy_bypass(f"{uri.host}:{uri.port}"):
                return None
            # Operating systems name SOCKS proxies so.
            if scheme == "socks" and found.startswith("http://"):
                return "socks5h" + found[4:]
            return found
    return None


# ----------------------------------------------------------------------------------------------------- HTTP CONNECT


def connect_request(proxy: Proxy, host: str, port: int, user_agent_header: str | None) -> bytes:
    """Build the request for a tunnel (RFC 9112, 3.2.3).

    Raises:
        ValueError: the credentials or the user agent have a character that they must not have.
    """
    target = build_host(host, port, False, always_include_port=True)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if user_agent_header is not None:
        check_header("User-Agent", user_agent_header)
        lines.append(f"User-Agent: {user_agent_header}")
    if proxy.username is not None:
        lines.append(f"Proxy-Authorization: {build_authorization_basic(proxy.username, proxy.password or '')}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class _TunnelProtocol(asyncio.Protocol):
    """The client's side of CONNECT, until the proxy has answered."""

    def __init__(self, request: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self._request = request
        self._parser = ResponseParser(connect=True)
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
        if 200 <= response.status_code < 300:
            if self._parser.trailing:
                self._fail(ProxyError("expected nothing from the proxy before the handshake with the server"))
            else:
                self.response.set_result(response)
            return
        error = ProxyError(f"proxy answered HTTP {response.status_code}, expected 200")
        error.response = response
        self._fail(error)

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
    proxy: Proxy, host: str, port: int, user_agent_header: str | None, options: dict[str, Any]
) -> asyncio.Transport:
    """Connect to an HTTP proxy and have it connect to a server; the caller sets a protocol on the transport.

    Args:
        proxy: whose scheme is http or https.
        host, port: of the server.
        user_agent_header: the value of User-Agent; None for none.
        options: for `create_connection`, with the TLS to the proxy if there is any.

    Raises:
        ProxyError: the proxy could not be reached, refused, or answered what is no HTTP.
    """
    loop = asyncio.get_running_loop()
    tunnel = _TunnelProtocol(connect_request(proxy, host, port, user_agent_header), loop)
    try:
        await create_connection(lambda: tunnel, proxy.host, proxy.port, **options)
    except OSError as exc:
        raise ProxyError(f"could not connect to the proxy {proxy}: {exc}") from exc
    assert tunnel.transport is not None
    try:
        await tunnel.response
    except BaseException:
        tunnel.transport.abort()
        raise
    return tunnel.transport


# ------------------------------------------------------------------------------------------------------------ SOCKS


def socks_arguments(proxy: Proxy) -> tuple[Any, ...]:
    """Return what python-socks makes a connector of: kind, address, credentials, whether the proxy resolves names."""
    from python_socks import ProxyType

    kind = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    return kind, proxy.host, proxy.port, proxy.username, proxy.password, proxy.scheme in ("socks4a", "socks5h")


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
        raise ImportError("SOCKS proxies need python-socks: pip install 'wsfast[proxy]'") from exc
    connector = Connector(*socks_arguments(proxy))
    try:
        # python-socks has a limit of its own, of 60 s, which must not be shorter than the caller's.
        return await connector.connect(host, port, timeout=timeout or 1e6, local_addr=local_addr)
    except Exception as exc:
        raise ProxyError(f"could not connect through the proxy {proxy}: {exc}") from exc
