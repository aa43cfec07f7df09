"""WebSocket URIs (RFC 6455, 3; RFC 3986)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ..exceptions import InvalidURI

__all__ = [
    "URI",
    "as_ip",
    "as_network",
    "format_address",
    "got",
    "is_address",
    "mask",
    "parse_host",
    "parse_uri",
    "split_uri",
    "to_ascii",
    "unquoted",
]

# RFC 3986, 2.2 and 2.1: delimiters and what is percent-encoded already stay as they are.
_SAFE = ":/?[]@!$&'()*+,;=%"
# RFC 1034, 3.1: a label has at most 63 characters; the standard library would fail when it looks the name up.
_NAME = re.compile(r"[0-9A-Za-z_\-]{1,63}(?:\.[0-9A-Za-z_\-]{1,63})*\.?")
# RFC 3986, 3.2.2 and 3.2.3: nothing but a port follows an address in brackets; older versions of urlsplit drop it.
_HOST_AND_PORT = re.compile(r"[^\[\]]*|\[[^\[\]]*\](?::[^:]*)?")
_SCHEME = re.compile(r"[A-Za-z][0-9A-Za-z+.\-]*+://")
_SCHEMES = frozenset(
    f"{name}://"
    for name in (
        *("ws", "wss", "http", "https", "ftp"),
        *("socks4", "socks4a", "socks5", "socks5h"),
        *("nats", "tls", "redis", "rediss", "unix"),
    )
)
_AFTER_PATH = re.compile(r"([?#]).+", re.DOTALL)
# A port that has other characters than digits.
_NO_PORT = re.compile(r"^((?:\[[^\]]*\]|[^/:\[\]]*):)(?!-?\d*(?:/|$))[^/]+")


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
        # A repr must not carry a secret into a log; a user name without a password often is a token.
        fields = self._replace(
            query=self.query and "...", username=self.username and "***", password=self.password and "***"
        )
        parts = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, fields, strict=True))
        return f"URI({parts})"


def parse_uri(uri: str) -> URI:
    """Take a ws:// or wss:// URI apart.

    International host names become ASCII (IDNA 2003), other characters outside ASCII are percent-encoded as UTF-8.

    Args:
        uri: the URI.

    Raises:
        InvalidURI: if it is not valid. Neither its text nor a chained exception holds a user name, a password, a query
            or a fragment.
        TypeError: if it is no `str`.
    """
    if not isinstance(uri, str):
        raise TypeError(f"expected the URI as str, got {type(uri).__name__}")
    shown = mask(uri)
    bad = next((character for character in uri if character <= " " or character == "\x7f"), None)
    if bad is not None:
        # urlsplit drops some of them silently.
        raise InvalidURI(shown, f"expected no spaces and control characters, got {bad!r}")
    parts = split_uri(uri)
    if parts is None:
        raise InvalidURI(shown, "expected a host and a port from 1 to 65535")
    # RFC 6455, 3: "the "ws" or "wss" URI scheme".
    if parts.scheme not in ("ws", "wss"):
        raise InvalidURI(shown, f"expected scheme ws or wss{got(shown, parts.scheme)}")
    # RFC 6455, 3: "Fragment identifiers are meaningless in the context of WebSocket URIs and MUST NOT be used on these
    # URIs. As with any URI scheme, the character "#", when not indicating the start of a fragment, MUST be escaped as
    # %23." An empty fragment is one too.
    if "#" in uri:
        raise InvalidURI(shown, "expected no fragment")
    port = parts.port
    if port == 0:
        raise InvalidURI(shown, "expected a port from 1 to 65535, got 0")
    if not parts.hostname:
        raise InvalidURI(shown, "expected a host")
    secure = parts.scheme == "wss"
    username, password = parts.username, parts.password
    if username is not None:
        username, password = unquoted(username), unquoted(password or "")
        if username is None or password is None:
            raise InvalidURI(shown, "expected a user name and a password in UTF-8")
    path, query = _quoted(parts.path), _quoted(parts.query)
    if path is None or query is None:
        raise InvalidURI(shown, "expected a path and a query that UTF-8 can hold")
    return URI(
        secure=secure,
        host=parse_host(shown, parts.hostname),
        port=port if port is not None else 443 if secure else 80,
        path=path,
        query=query,
        username=username,
        password=password,
    )


def mask(uri: str) -> str:
    """Return a URI, or an address of a proxy, as it may be shown: without user name, password, query and fragment.

    Where it is not valid, nobody can tell what was meant: a password may hold ``/``, ``?``, ``#`` and ``@`` that had to
    be escaped. So everything up to the last ``@`` is left out, and so is an invalid port.
    """
    match = _SCHEME.match(uri)
    scheme, rest = (match.group(), uri[match.end() :]) if match else ("", uri)
    _, at, rest = rest.rpartition("@")
    rest = _AFTER_PATH.sub(r"\1...", rest)
    rest = _NO_PORT.sub(r"\1...", rest, count=1)
    if at:
        # Without "://" at its end, or of a kind that nobody knows, it may be a user name.
        return f"{scheme}***@{rest}" if scheme.lower() in _SCHEMES else f"***@{rest}"
    return f"{scheme}{rest}"


def got(shown: str, part: str) -> str:
    """Return the end of an error's text, with what came if the shown URI contains it; else it may be secret."""
    return f", got {part!r}" if part and part.lower() in shown.lower() else ""


def split_uri(uri: str) -> SplitResult | None:
    """Take any URI apart, as `urllib.parse.urlsplit` does; None if that cannot be done, or its port is out of range.

    The errors of the standard library hold what could not be parsed, the password as well: no exception must refer to
    one of them, not even as its context.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return None if _HOST_AND_PORT.fullmatch(parts.netloc.rpartition("@")[2]) is None else parts


def parse_host(shown: str, host: str) -> str:
    """Return a host as it is looked up and sent: in ASCII, an IPv6 address without brackets.

    Args:
        shown: the URI, for the error; see `mask`.
        host: as `urllib.parse.urlsplit` gives it.

    Raises:
        InvalidURI: if it is neither a name nor an address.
    """
    if ":" in host:
        # RFC 6874: a zone follows "%25"; a bare "%" is what most people write.
        address, percent, zone = host.partition("%")
        parsed = f"{address}%{zone.removeprefix('25')}" if percent else address
        if not is_address(parsed):
            raise InvalidURI(shown, f"expected an IPv6 address in brackets{got(shown, host)}")
        return parsed
    ascii_host = to_ascii(host)
    if ascii_host is None:
        raise InvalidURI(shown, f"expected a host name by IDNA{got(shown, host)}")
    if _NAME.fullmatch(ascii_host) is None:
        raise InvalidURI(shown, f"expected a host name or an address{got(shown, host)}")
    return ascii_host


def as_ip(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address; a zone is dropped, and IPv4 in IPv6 (``::ffff:10.0.0.1``) is IPv4. None for anything else."""
    host, _, zone = text.partition("%")
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address if address.ipv4_mapped is None else address.ipv4_mapped
    return None if zone else address


def as_network(text: str) -> IPv4Network | IPv6Network:
    """Read a network, or an address as a network of one; IPv4 in IPv6 is IPv4, as for `as_ip`.

    Raises:
        ValueError: it is not one; the text names it.
    """
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network


def is_address(host: str) -> bool:
    """Tell whether a host is an IPv4 or IPv6 address, a zone allowed."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def unquoted(part: str) -> str | None:
    """Decode what is percent-encoded; None if that, or what stands there, is no UTF-8."""
    try:
        plain = unquote(part, errors="strict")
        plain.encode()  # a lone surrogate would only be found when the request is made
    except UnicodeError:
        return None
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


def _quoted(part: str) -> str | None:
    try:
        return quote(part, safe=_SAFE)
    except UnicodeEncodeError:
        return None


def to_ascii(host: str) -> str | None:
    """Return an international name in ASCII (IDNA 2003); None if it has no such form."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return None
