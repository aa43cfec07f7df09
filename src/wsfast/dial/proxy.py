"""Proxies of clients: which one to use, the request for a tunnel, and what its answer means."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

from ..exceptions import InvalidProxy, InvalidURI, ProxyError
from ..handshake.headers import build_authorization_basic, build_host
from ..handshake.uri import URI, as_ip, as_network, got, mask, parse_host, split_uri, to_ascii, unquoted
from ..http import Response, check_header

__all__ = [
    "Proxy",
    "bypasses",
    "check_tunnel",
    "connect_request",
    "find_proxy",
    "parse_proxy",
    "socks_arguments",
    "socks_needed",
]

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

    def __repr__(self) -> str:
        return f"<Proxy {self}>"

    def __str__(self) -> str:
        # For errors and logs, so without user name and password.
        return f"{self.scheme}://{build_host(self.host, self.port, False, always_include_port=True)}"


def parse_proxy(proxy: str) -> Proxy:
    """Take a proxy's address apart, such as ``http://user:password@proxy.example:3128``.

    Args:
        proxy: its scheme is http, https (TLS to the proxy), socks5 or socks4 (this side resolves names), or socks5h or
            socks4a (the proxy does).

    Raises:
        InvalidProxy: the address is not valid. Neither the error nor a chained exception shows user name or password.
    """
    shown = mask(proxy)
    bad = next((character for character in proxy if character <= " " or character == "\x7f"), None)
    if bad is not None:
        # urlsplit drops some of them silently.
        raise InvalidProxy(shown, f"expected no spaces and control characters, got {bad!r}")
    parts = split_uri(proxy)
    if parts is None:
        raise InvalidProxy(shown, "expected a host and a port from 1 to 65535")
    if parts.scheme not in _PORTS:
        raise InvalidProxy(shown, f"expected a scheme among {', '.join(_PORTS)}{got(shown, parts.scheme)}")
    if not parts.hostname:
        raise InvalidProxy(shown, "expected a host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidProxy(shown, "expected nothing after the port")
    if parts.port == 0:
        raise InvalidProxy(shown, "expected a port from 1 to 65535, got 0")
    try:
        host = parse_host(shown, parts.hostname)
    except InvalidURI as exc:
        wrong = exc.message
    else:
        wrong = ""
    if wrong:
        raise InvalidProxy(shown, wrong)
    username, password = parts.username, parts.password
    if username is not None:
        username, password = unquoted(username), unquoted(password or "")
        if username is None or password is None:
            raise InvalidProxy(shown, "expected a user name and a password in UTF-8")
        _check_credentials(shown, parts.scheme, username, password)
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    return Proxy(parts.scheme, host, port, username, password)


def _check_credentials(shown: str, scheme: str, username: str, password: str) -> None:
    """Check, before connecting to the proxy, that user name and password can be sent to it."""
    if any(character < " " or character == "\x7f" for character in username + password):
        raise InvalidProxy(shown, "expected a user name and a password without control characters")
    if scheme.startswith("http"):
        if ":" in username:
            raise InvalidProxy(shown, "expected a user name without a colon")  # RFC 7617, 2
    elif max(len(username.encode()), len(password.encode())) > 255:
        raise InvalidProxy(shown, "expected a user name and a password of at most 255 bytes")  # RFC 1929, 2


def find_proxy(uri: URI) -> str | None:
    """Return the address of the proxy that the environment, or the operating system, names for a server, or None.

    The first of these that is set counts: for wss ``wss_proxy``, ``socks_proxy`` and ``https_proxy``; for ws
    ``ws_proxy``, ``socks_proxy``, ``https_proxy`` and ``http_proxy``, as RFC 6455, 4.1, item 3 has it. An address
    without a scheme is that of an HTTP proxy. Servers that ``no_proxy`` names are connected to directly; see
    `bypasses`.
    """
    schemes = ("wss", "socks", "https") if uri.secure else ("ws", "socks", "https", "http")
    found = next(((scheme, proxy) for scheme in schemes if (proxy := _of_environment(f"{scheme}_proxy"))), None)
    if found is None:
        return _of_the_system(schemes, uri) if sys.platform in ("darwin", "win32") else None
    if bypasses(_of_environment("no_proxy"), uri.host, uri.port):
        return None
    return _with_scheme(*found)


def _with_scheme(scheme: str, proxy: str) -> str:
    if scheme == "socks" and (proxy.startswith("http://") or "://" not in proxy):
        # Operating systems name SOCKS proxies so.
        return f"socks5h://{proxy.removeprefix('http://')}"
    # The precedence of curl and Go.
    return proxy if "://" in proxy else f"http://{proxy}"


def _of_environment(name: str) -> str:
    """Return a variable of the environment; its name in lower case takes precedence, even with an empty value."""
    value = os.environ.get(name)
    if value is None:
        if name == "http_proxy" and "REQUEST_METHOD" in os.environ:
            return ""  # in a CGI program, HTTP_PROXY is the header "Proxy" that a client sent
        value = os.environ.get(name.upper(), "")
    return value.strip()


def _of_the_system(schemes: Sequence[str], uri: URI) -> str | None:
    import urllib.request  # which takes longer to load than all of wsfast

    proxies = urllib.request.getproxies()
    for scheme in schemes:
        found = proxies.get(scheme)
        if found:
            bypassed = urllib.request.proxy_bypass(f"{uri.host}:{uri.port}")
            return None if bypassed else _with_scheme(scheme, found)
    return None


def bypasses(no_proxy: str, host: str, port: int) -> bool:
    """Tell whether ``no_proxy`` names a server, so that it is connected to directly, as curl and Go understand it.

    Args:
        no_proxy: ``"*"`` for all, or a list, separated by commas or spaces, of names (``example.com`` and
            ``.example.com`` stand for the name and what is below it, ``*.example.com`` for what is below it),
            addresses (in any spelling, IPv6 with or without brackets) and networks (``10.0.0.0/8``). A name or an
            address may be followed by a port. International names may be in ASCII or as one reads them.
        host: of the server: a name in lower case, or an address.
        port: of the server.
    """
    name = host.rstrip(".").lower()
    address = _as_address(name)
    for entry in no_proxy.replace(",", " ").lower().split():
        if entry == "*":
            return True
        if "/" in entry:
            try:
                if address is not None and address in as_network(entry.replace("[", "").replace("]", "")):
                    return True
            except ValueError:
                pass  # no network
            continue
        wanted, wanted_port = _split_port(entry)
        if wanted_port and wanted_port != str(port):
            continue
        other = _as_address(wanted.rstrip("."))
        if other is not None or address is not None:
            if other == address:
                return True
            continue
        below = wanted.removeprefix("*").strip(".")
        below = to_ascii(below) or below
        if below and (name.endswith(f".{below}") or (name == below and not wanted.startswith("*"))):
            return True
    return False


def _as_address(host: str) -> IPv4Address | IPv6Address | None:
    """Read an address, also in the old spellings that the system takes for one (``127.1``, ``0x7f.0.0.1``)."""
    address = as_ip(host)
    if address is None and host[:1].isdigit():
        with suppress(OSError, ValueError):
            return IPv4Address(socket.inet_aton(host))
    return address


def _split_port(entry: str) -> tuple[str, str]:
    """Split off a port; an IPv6 address without brackets has none."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":")
    host, colon, port = entry.rpartition(":")
    return (host, port) if colon and ":" not in host else (entry, "")


# ----------------------------------------------------------------------------------------------------- HTTP CONNECT


def connect_request(proxy: Proxy, host: str, port: int, user_agent_header: str | None) -> bytes:
    """Build the request for a tunnel (RFC 9112, 3.2.3).

    Raises:
        ValueError: the credentials or the user agent have a character that no header may have.
    """
    target = build_host(host, port, False, always_include_port=True)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if user_agent_header is not None:
        check_header("User-Agent", user_agent_header)
        lines.append(f"User-Agent: {user_agent_header}")
    if proxy.username is not None:
        lines.append(f"Proxy-Authorization: {build_authorization_basic(proxy.username, proxy.password or '')}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def check_tunnel(response: Response, trailing: bytes) -> None:
    """Judge a proxy's answer to CONNECT (RFC 9110, 9.3.6).

    Args:
        response: the answer.
        trailing: what came after it.

    Raises:
        ProxyError: the proxy refused, or sent something before this side did.
    """
    if not 200 <= response.status_code < 300:
        error = ProxyError(f"proxy answered HTTP {response.status_code}, expected 200")
        error.response = response
        raise error
    if trailing:
        # Bytes behind the head cannot be the server's, which sends nothing before the client's request or ClientHello.
        raise ProxyError("expected nothing from the proxy before the handshake with the server")


# ------------------------------------------------------------------------------------------------------------ SOCKS


def socks_needed() -> ImportError:
    """Return the error to raise where python-socks is not installed."""
    return ImportError("SOCKS proxies need python-socks: pip install 'wsfast[proxy]'")


def socks_arguments(proxy: Proxy) -> tuple[Any, ...]:
    """Return the arguments of python-socks: kind, address, credentials, and whether the proxy resolves names."""
    from python_socks import ProxyType

    kind = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    return kind, proxy.host, proxy.port, proxy.username, proxy.password, proxy.scheme in ("socks4a", "socks5h")
