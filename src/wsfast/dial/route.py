"""How to reach a server: the client options for addresses, proxies and TLS, for asyncio, threads and trio alike."""

from __future__ import annotations

import functools
import os
import ssl as ssl_module
from collections.abc import Mapping
from math import inf
from sys import maxsize
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypedDict

from ..handshake.http11 import HeadLimits
from ..handshake.uri import URI
from ..options import refuse_unknown
from .proxy import parse_proxy

if TYPE_CHECKING:
    from socket import socket

__all__ = ["PathOptions", "Route", "RouteOptions", "as_context", "certificate_name"]


@functools.cache
def _default_context() -> ssl_module.SSLContext:
    # Loading the certificates of the authorities takes 10 to 30 ms: once for all connections.
    return ssl_module.create_default_context()


def as_context(ssl: object, name: str) -> ssl_module.SSLContext:
    """Return the context for TLS that an option stands for: that of the system's authorities for None and True.

    Raises:
        TypeError, ValueError: the option is not a client's context, or False; the text names it.
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
    # Drop an IPv6 zone, which only this machine understands, and the trailing dot of an absolute name: certificates
    # have neither.
    return uri.host.partition("%")[0].rstrip(".")


class RouteOptions(TypedDict, total=False):
    """How a server is to be reached, for type checkers; `wsfast.connect` documents it."""

    ssl: ssl_module.SSLContext | bool | None
    server_hostname: str | None
    ssl_handshake_timeout: float | None
    ssl_shutdown_timeout: float | None
    proxy_ssl: ssl_module.SSLContext | bool | None
    proxy_server_hostname: str | None
    proxy_ssl_handshake_timeout: float | None
    proxy_ssl_shutdown_timeout: float | None
    host: str | None
    port: int | None
    sock: socket | None
    local_addr: tuple[str, int] | None
    family: int
    proto: int
    flags: int
    happy_eyeballs_delay: float | None
    interleave: int | None
    all_errors: bool
    unix: bool


class PathOptions(RouteOptions, total=False):
    """`RouteOptions`, and what `wsfast.unix_connect` takes as an argument of its own."""

    path: str | os.PathLike[str] | None


_OTHERS = frozenset(
    {
        "additional_headers",
        "bearer_token",
        "close_timeout",
        "compression",
        "create_connection",
        "extensions",
        "logger",
        "max_buffered",
        "max_fragments",
        "max_head",
        "max_headers",
        "max_line",
        "max_redirects",
        "max_size",
        "open_timeout",
        "origin",
        "overflow",
        "ping_interval",
        "ping_timeout",
        "process_exception",
        "process_response",
        "proxy",
        "read_limit",
        "reconnect_delays",
        "subprotocols",
        "user_agent_header",
        "write_limit",
    }
)
"""The other options of `wsfast.connect`: the error for an unknown option suggests the nearest name."""


class Route:
    """How to reach servers.

    Args:
        proxy: True for the environment's, None for none, or an address.
        user_agent_header: for HTTP proxies; None for none.
        timeout: seconds that the opening handshake may take in all; None for no limit. The caller enforces it.
        close_timeout: seconds that TLS may take to end; None for asyncio's default.
        options: as `connect` takes them: for TCP, for TLS, those that begin with ``proxy_``, and `unix` and `path`.
        head_limits: how large the head of a proxy's answer may be.

    Raises:
        InvalidProxy: the proxy's address is not valid.
        TypeError, ValueError: an option is not known or of the wrong kind, or `unix`, `path` and `sock` do not go
            together.
    """

    known: ClassVar[frozenset[str]] = frozenset(PathOptions.__annotations__)
    """The options that are known."""

    def __init__(
        self,
        proxy: str | bool | None,
        user_agent_header: str | None,
        timeout: float | None,
        close_timeout: float | None,
        options: dict[str, Any],
        *,
        head_limits: HeadLimits = HeadLimits(),  # noqa: B008 - it cannot be changed
    ) -> None:
        refuse_unknown("connect()", options, self.known, _OTHERS)
        _check(options)
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
        self._head_limits = head_limits
        tls = {name: options.pop(name) for name in list(options) if name.startswith(("ssl_", "server_hostname"))}
        proxy_options = {name[6:]: options.pop(name) for name in list(options) if name.startswith("proxy_")}
        self._proxy_ssl = proxy_options.pop("ssl", None)
        # asyncio's own limits are 60 s for the handshake and 30 s for the end of TLS.
        self._tls = {"ssl_handshake_timeout": _at_least_60(timeout), "ssl_shutdown_timeout": close_timeout} | tls
        self._proxy_tls = {
            "ssl_handshake_timeout": _at_least_60(timeout),
            "ssl_shutdown_timeout": close_timeout,
        } | proxy_options
        local = options.get("local_addr")
        if local is not None and not (isinstance(local, (tuple, list)) and len(local) == 2):
            raise TypeError(f"local_addr must be a pair of a host and a port, or None, got {type(local).__name__}")
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
        """Whether this route can connect only once, because it was given a socket."""
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


def _check(options: Mapping[str, Any]) -> None:
    """Check numbers now; they are used when a name has several addresses, or when TLS begins, if ever.

    Raises:
        TypeError, ValueError: one is of another type, or out of its range.
    """
    for name in _SECONDS & options.keys():
        value = options[name]
        if value is None:
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number of seconds or None, got {type(value).__name__}")
        if not (value >= 0 if name == "happy_eyeballs_delay" else 0 < value < inf):
            kind = "a number" if name == "happy_eyeballs_delay" else "a positive number"
            raise ValueError(f"{name} must be {kind} of seconds or None, got {value}")
    for name, most in (("port", 65535), ("interleave", maxsize)):
        value = options.get(name)
        if value is None:
            continue
        if name == "port" and isinstance(value, str) and value.isascii() and value.isdecimal():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be int or None, got {type(value).__name__}")
        if not 0 <= value <= most:
            raise ValueError(f"{name} must be from 0 to {most}, got {value}")


_SECONDS: Final = frozenset(
    {
        "happy_eyeballs_delay",
        "proxy_ssl_handshake_timeout",
        "proxy_ssl_shutdown_timeout",
        "ssl_handshake_timeout",
        "ssl_shutdown_timeout",
    }
)


def _at_least_60(timeout: float | None) -> float:
    return max(timeout or 86400.0, 60.0)
