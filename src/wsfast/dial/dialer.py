"""The way from a client to a server: TCP, Unix sockets, proxies and TLS, up to where the opening handshake begins."""

from __future__ import annotations

import asyncio
import functools
import ssl as ssl_module
from typing import Any

from ..exceptions import InvalidURI
from ..handshake.uri import URI
from ..transport.tls import buffer_of, connect
from .addresses import create_connection
from .proxy import connect_socks, find_proxy, open_tunnel, parse_proxy

__all__ = ["Dialer", "as_context", "certificate_name"]


@functools.cache
def _default_context() -> ssl_module.SSLContext:
    # Loading the certificates of the authorities takes 10 to 30 ms: once for all connections.
    return ssl_module.create_default_context()


def as_context(ssl: object, name: str) -> ssl_module.SSLContext:
    """Return the context for TLS that an option stands for: that of the system's authorities for None and True.

    Raises:
        TypeError, ValueError: it is of the wrong kind, or False; the text names the option.
    """
    if ssl is None or ssl is True:
        return _default_context()
    if ssl is False:
        raise ValueError(f"{name}=False would be no TLS: use ws://, or an ssl.SSLContext that does not verify")
    if not isinstance(ssl, ssl_module.SSLContext):
        raise TypeError(f"{name} must be an ssl.SSLContext, True or None, got {type(ssl).__name__}")
    return ssl


def certificate_name(uri: URI) -> str:
    """Return the name that a server's certificate must have."""
    # A zone means something on this machine only, and certificates name no root.
    return uri.host.partition("%")[0].rstrip(".")


class Dialer:
    """How to reach servers.

    Args:
        proxy: True for the environment's, None for none, or an address.
        user_agent_header: for HTTP proxies; None for none.
        timeout: seconds that the opening handshake may take in all; None for no limit. The caller enforces it.
        close_timeout: seconds that TLS may take to end; None for asyncio's default.
        options: as `connect` takes them: for `loop.create_connection`, those for TLS among them, those that begin with
            ``proxy_``, and `unix` and `path`.

    Raises:
        InvalidProxy: the proxy's address is none.
        TypeError, ValueError: `ssl` is of the wrong kind, or `unix`, `path` and `sock` do not go together.
    """

    def __init__(
        self,
        proxy: str | bool | None,
        user_agent_header: str | None,
        timeout: float | None,
        close_timeout: float | None,
        options: dict[str, Any],
    ) -> None:
        if proxy is False:
            proxy = None
        if isinstance(proxy, str):
            parse_proxy(proxy)
        elif proxy is not None and proxy is not True:
            raise TypeError(f"proxy must be str, True or None, got {type(proxy).__name__}")
        options = dict(options)
        self._unix = bool(options.pop("unix", False))
        path = options.get("path")
        if not self._unix and path is not None:
            raise ValueError("path goes with unix=True")
        if self._unix and (path is None) is (options.get("sock") is None):
            raise ValueError("unix=True takes either path or sock")
        self._host = options.pop("host", None)
        self._port = options.pop("port", None)
        self._ssl = options.pop("ssl", None)
        self._proxy = None if self._unix or options.get("sock") is not None else proxy
        self._user_agent = user_agent_header
        self._timeout = timeout
        tls = {name: options.pop(name) for name in list(options) if name.startswith(("ssl_", "server_hostname"))}
        proxy_options = {name[6:]: options.pop(name) for name in list(options) if name.startswith("proxy_")}
        self._proxy_ssl = proxy_options.pop("ssl", None)
        # asyncio would give up after 60 s by itself, and wait for 30 s for the end.
        self._tls = {"ssl_handshake_timeout": _at_least_60(timeout), "ssl_shutdown_timeout": close_timeout} | tls
        self._proxy_tls = {
            "ssl_handshake_timeout": _at_least_60(timeout),
            "ssl_shutdown_timeout": close_timeout,
        } | proxy_options
        self._tcp = options
        if self._ssl is not None and self._ssl is not False:
            as_context(self._ssl, "ssl")
        if self._proxy_ssl is not None:
            as_context(self._proxy_ssl, "proxy_ssl")

    @property
    def fixed(self) -> str | None:
        """The name of the option that ties it to one server, so that it must not be used for another, or None."""
        if self._unix:
            return "unix"
        for name, value in (
            ("sock", self._tcp.get("sock")),
            ("host", self._host),
            ("port", self._port),
            ("server_hostname", self._tls.get("server_hostname")),
        ):
            if value is not None:
                return name
        return None

    @property
    def one_time(self) -> bool:
        """Whether it can connect only once, because it was given a socket."""
        return self._tcp.get("sock") is not None

    def check(self, uri: URI) -> None:
        """Check that a URI and the options for TLS go together.

        Raises:
            ValueError: they do not.
        """
        if uri.secure:
            as_context(self._ssl, "ssl")
        elif self._ssl is not None and self._ssl is not False:
            raise ValueError("ssl does not go with a ws:// URI: use wss://")

    async def dial(self, uri: URI, protocol: asyncio.Protocol) -> None:
        """Connect to a server; ``protocol.connection_made`` is called when TCP, the proxy and TLS are set up.

        Args:
            uri: of the server.
            protocol: what is to begin the opening handshake.

        Raises:
            OSError: the server can not be reached, `ssl.SSLError` included.
            InvalidProxy: the proxy's address is none.
            ProxyError: the proxy could not be reached, refused, or answered what is no HTTP.
            ImportError: python-socks is needed and not installed.
        """
        loop = asyncio.get_running_loop()
        host = uri.host if self._host is None else self._host
        port = uri.port if self._port is None else self._port
        tls: dict[str, Any] = {}
        if uri.secure:
            tls = {"ssl": as_context(self._ssl, "ssl"), **self._tls}
            if tls.get("server_hostname") is None:
                tls["server_hostname"] = certificate_name(uri)

        buffer = buffer_of(loop)
        if self._unix:
            await connect(loop.create_unix_connection, protocol, buffer, **self._tcp, **tls)
            return
        address = find_proxy(uri) if self._proxy is True else self._proxy
        if address is None:
            if self._tcp.get("sock") is not None:
                await connect(loop.create_connection, protocol, buffer, **self._tcp, **tls)
            else:
                try:
                    await connect(create_connection, protocol, buffer, host, port, **self._tcp, **tls)
                except UnicodeError as exc:
                    # Labels that are too long are found when the name is looked up.
                    raise InvalidURI(str(host), f"expected a host name: {exc}") from exc
            return
        proxy = parse_proxy(str(address))
        if proxy.is_socks:
            sock = await connect_socks(proxy, host, port, self._tcp.get("local_addr"), self._timeout)
            try:
                await connect(loop.create_connection, protocol, buffer, sock=sock, **tls)
            except BaseException:
                sock.close()
                raise
            return
        options = dict(self._tcp)
        if proxy.scheme == "https":
            options |= {"ssl": as_context(self._proxy_ssl, "proxy_ssl"), **self._proxy_tls}
        transport = await open_tunnel(proxy, host, port, self._user_agent, options)
        transport.set_protocol(protocol)
        if tls:
            try:
                secured = await loop.start_tls(transport, protocol, tls.pop("ssl"), **tls)
            except BaseException:
                transport.abort()
                raise
            if secured is None:
                raise ConnectionResetError("the connection ended during the TLS handshake")
            transport = secured
        protocol.connection_made(transport)


def _at_least_60(timeout: float | None) -> float:
    return max(timeout or 86400.0, 60.0)
