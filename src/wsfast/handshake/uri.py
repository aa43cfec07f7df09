"""WebSocket URIs (RFC 6455, 3; RFC 3986)."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ..exceptions import InvalidURI

__all__ = ["URI", "format_address", "parse_host", "parse_uri", "split_uri"]

# RFC 3986, 2.2 and 2.1: delimiters and what is percent-encoded already stay as they are.
_SAFE = ":/?[]@!$&'()*+,;=%"
# RFC 1034, 3.1: a label has at most 63 characters; the standard library would fail when it looks the name up.
_NAME = re.compile(r"[0-9A-Za-z_\-]{1,63}(?:\.[0-9A-Za-z_\-]{1,63})*\.?")
# RFC 3986, 3.2.2 and 3.2.3: nothing but a port follows an address in brackets; older versions of urlsplit drop it.
_HOST_AND_PORT = re.compile(r"[^\[\]]*|\[[^\[\]]*\](?::[^:]*)?")
_CREDENTIALS = re.compile(r"//[^/?#]*@")


class URI(NamedTuple):
    """A WebSocket URI in its parts."""

    secure: bool
    """Whether the scheme is wss."""
    host: str
    """The host: a name in ASCII and lower case, or an address; an IPv6 address without brackets."""
    port: int
    """The port, the scheme's default (80 or 443) if the URI has none."""
    path: str
    """The path, percent-encoded; ``""`` if the URI has none."""
    query: str
    """The query without its question mark, percent-encoded; ``""`` if the URI has none."""
    username: str | None = None
    """The user name, decoded; None if the URI has none."""
    password: str | None = None
    """The password, decoded; None if the URI has no user name, ``""`` if it has a user name only."""

    @property
    def resource_name(self) -> str:
        """The path and the query as the request's target has them (RFC 6455, 3)."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path

    @property
    def user_info(self) -> tuple[str, str] | None:
        """The user name and the password, None if the URI has none."""
        return None if self.username is None else (self.username, self.password or "")

    def __repr__(self) -> str:
        # A password must not get into a log by way of a repr.
        fields = self._replace(password="***") if self.password else self
        parts = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, fields, strict=True))
        return f"URI({parts})"


def parse_uri(uri: str) -> URI:
    """Take a ws:// or wss:// URI apart.

    International host names become ASCII (IDNA 2003), other characters outside ASCII are percent-encoded as UTF-8.

    Args:
        uri: the URI.

    Raises:
        InvalidURI: if it is none; the text does not hold its password.
        TypeError: if it is no `str`.
    """
    if not isinstance(uri, str):
        raise TypeError(f"expected the URI as str, got {type(uri).__name__}")
    shown = _CREDENTIALS.sub("//***@", uri, count=1)
    bad = next((character for character in uri if character <= " " or character == "\x7f"), None)
    if bad is not None:
        # urlsplit drops some of them silently.
        raise InvalidURI(shown, f"expected no spaces and control characters, got {bad!r}")
    try:
        parts = split_uri(uri)
        port = parts.port
    except ValueError as exc:
        # The text of the standard library may hold what it could not parse, the password as well.
        raise InvalidURI(shown, "expected a host and a port from 1 to 65535") from exc
    if parts.scheme not in ("ws", "wss"):
        raise InvalidURI(shown, f"expected scheme ws or wss, got {parts.scheme!r}")
    if "#" in uri:
        # RFC 6455, 3: "#" must be escaped as %23, also with nothing after it.
        raise InvalidURI(shown, "expected no fragment")
    if port == 0:
        raise InvalidURI(shown, "expected a port from 1 to 65535, got 0")
    if not parts.hostname:
        raise InvalidURI(shown, "expected a host")
    secure = parts.scheme == "wss"
    username, password = parts.username, parts.password
    if username is not None:
        username, password = _unquote(shown, username), _unquote(shown, password or "")
    return URI(
        secure=secure,
        host=parse_host(shown, parts.hostname),
        port=port if port is not None else 443 if secure else 80,
        path=_quote(shown, parts.path),
        query=_quote(shown, parts.query),
        username=username,
        password=password,
    )


def split_uri(uri: str) -> SplitResult:
    """Take any URI apart, as `urllib.parse.urlsplit` does.

    Raises:
        ValueError: if brackets are not around an address.
    """
    parts = urlsplit(uri)
    if _HOST_AND_PORT.fullmatch(parts.netloc.rpartition("@")[2]) is None:
        raise ValueError("expected brackets around an address only")
    return parts


def parse_host(shown: str, host: str) -> str:
    """Return a host as it is looked up and sent: in ASCII, an IPv6 address without brackets.

    Args:
        shown: the URI, for the error.
        host: as `urllib.parse.urlsplit` gives it.

    Raises:
        InvalidURI: if it is neither a name nor an address.
    """
    if ":" in host:
        # RFC 6874: a zone follows "%25"; a bare "%" is what most people write.
        address, percent, zone = host.partition("%")
        host = f"{address}%{zone.removeprefix('25')}" if percent else address
        try:
            IPv6Address(host)
        except ValueError as exc:
            raise InvalidURI(shown, f"expected an IPv6 address in brackets, got {host!r}") from exc
        return host
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as exc:
            raise InvalidURI(shown, f"expected a host name by IDNA, got {host!r}") from exc
    if _NAME.fullmatch(host) is None:
        raise InvalidURI(shown, f"expected a host name or an address, got {host!r}")
    return host


def _quote(shown: str, part: str) -> str:
    try:
        return quote(part, safe=_SAFE)
    except UnicodeEncodeError as exc:
        raise InvalidURI(shown, f"expected text that UTF-8 can hold, got {part!r}") from exc


def _unquote(shown: str, part: str) -> str:
    try:
        plain = unquote(part, errors="strict")
        plain.encode()  # a lone surrogate would only be found when the request is made
    except UnicodeError as exc:
        raise InvalidURI(shown, "expected a user name and a password in UTF-8") from exc
    return plain


def format_address(address: object) -> str:
    """Return a socket's address as one reads it in a log: ``host:port``, ``[host]:port``, the path of a Unix socket.

    Args:
        address: what `socket.getpeername` or `socket.getsockname` returned, or None.
    """
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        host = ascii(address[0])[1:-1]
        return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
    if address is None:
        return "an unknown address"
    if isinstance(address, str):
        return ascii(address)[1:-1] or "a Unix socket"  # clients' sockets mostly have no name
    return ascii(address)
