"""The client's address behind a proxy, sans-IO.

A proxy tells it before the connection's first byte, by the PROXY protocol (HAProxy's, versions 1 and 2), or in the
request's headers: Forwarded (RFC 7239) or X-Forwarded-For. Anybody can claim an address: it counts only if the peer is
trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, TypeAlias

from multidict import CIMultiDictProxy

from ..escape import show
from ..http import TCHAR
from .uri import as_ip, as_network

__all__ = ["Address", "Networks", "Proxied", "forwarded_for", "read_proxied"]

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""As `socket.getpeername` has it for IPv4 and IPv6."""

_IP: TypeAlias = IPv4Address | IPv6Address

_MAX_LINE: Final = 107
"""Bytes of the longest header of version 1, with its CR LF."""
_MAX_BLOCK: Final = 4096
"""Bytes that may follow the fixed part of a header of version 2: addresses, and further values of the proxy's."""
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
# RFC 7239, 4: pairs of a token and a token or a quoted string, separated by semicolons, in elements, separated by
# commas. What is not quoted may be an IPv4 address with a port here, as some proxies write it.
_PAIR = re.compile(rf"({TCHAR}++)=(?:((?:{TCHAR}|[:\[\]])++)|\"((?:[^\"\\]|\\.)*+)\")[\t ]*+")
_SPACES = re.compile(r"[\t ]*+")
# RFC 7239, 6: an address of IPv6 has brackets, and there may be a port, or a name that the proxy gives to it. Without
# brackets, as X-Forwarded-For has it, nothing can follow.
_NODE = re.compile(
    r"(?:\[([0-9A-Fa-f:.%\w]++)\]|([0-9.]++))(?::(?:([0-9]*+)|_[0-9A-Za-z._-]++))?|([0-9A-Fa-f:.]++(?:%\w++)?)"
)


class Networks:
    """Addresses that are trusted.

    Args:
        networks: addresses and networks (``"10.0.0.0/8"``), and ``"unix"`` for peers on Unix sockets.
        option: the name of the option that they were given as, for the error.

    Raises:
        TypeError, ValueError: one is not valid; the text names it.
    """

    __slots__ = ("_networks", "_unix")

    def __init__(self, networks: Iterable[str], option: str) -> None:
        if isinstance(networks, str) or not isinstance(networks, Iterable):
            raise TypeError(f"{option} must be a list of networks, got {type(networks).__name__}")
        self._unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for network in networks:
            if not isinstance(network, str):
                raise TypeError(f"{option} must be a list of networks as str, got {type(network).__name__} in it")
            if network == "unix":
                self._unix = True
                continue
            try:
                self._networks.append(as_network(network))
            except ValueError as exc:
                raise ValueError(f"{option} must be a list of networks such as '10.0.0.0/8', or 'unix': {exc}") from exc

    def __contains__(self, peer: object) -> bool:
        """Tell whether a peer, by its address as `socket.getpeername` gives it, is trusted."""
        if not isinstance(peer, tuple):
            return self._unix and isinstance(peer, (str, bytes))
        address = as_ip(str(peer[0]))
        return address is not None and self.has(address)

    def has(self, address: _IP) -> bool:
        """Tell whether an address is trusted."""
        return any(address in network for network in self._networks)


def _as_address(address: _IP, port: int) -> Address:
    return (str(address), port) if address.version == 4 else (str(address), port, 0, 0)


# ------------------------------------------------------------------------------------------------ PROXY protocol


class Proxied(NamedTuple):
    """What a header of the PROXY protocol says."""

    source: Address | None
    """The client's address; None if the proxy speaks for itself, or does not know."""
    destination: Address | None
    """The address that the client connected to; None as `source` is."""
    size: int
    """Bytes of the header."""


def read_proxied(data: bytes) -> Proxied | None:
    """Read the header of the PROXY protocol, version 1 or 2, that a connection begins with.

    Args:
        data: what has come so far.

    Returns:
        What it says, or None while it is not complete.

    Raises:
        ValueError: it is not valid; the text says what was expected, and what came.
    """
    # Section 2.2: a receiver tells the versions apart by the first bytes.
    if data[:12] == _SIGNATURE[: len(data)] and data:
        return _read_binary(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _read_line(data)
    # What came may be a request with a secret in it: its first word tells what it is.
    raise ValueError(f"expected a header of the PROXY protocol, got {show(data[:12].partition(b' ')[0])}")


def _read_line(data: bytes) -> Proxied | None:
    end = data.find(b"\r\n", 0, _MAX_LINE)
    if end < 0:
        if len(data) >= _MAX_LINE:
            raise ValueError(f"expected a line of the PROXY protocol of at most {_MAX_LINE} bytes, got {show(data)}")
        return None
    line = data[:end].decode("latin-1")
    size = end + 2
    parts = line.split(" ")
    # Section 2.1: "the receiver must ignore anything presented before the CRLF is found" after UNKNOWN.
    if parts[1] == "UNKNOWN":
        return Proxied(None, None, size)
    version = {"TCP4": 4, "TCP6": 6}.get(parts[1])
    if version is not None and len(parts) == 6:
        addresses = [_strict(text, version) for text in parts[2:4]]
        ports = [int(text) if _PORT.fullmatch(text) and int(text) < 65536 else None for text in parts[4:]]
        (source, destination), (source_port, destination_port) = addresses, ports
        if source and destination and source_port is not None and destination_port is not None:
            return Proxied(_as_address(source, source_port), _as_address(destination, destination_port), size)
    raise ValueError(f"expected TCP4, TCP6 or UNKNOWN, two addresses and two ports after PROXY, got {show(line)}")


def _strict(text: str, version: int) -> _IP | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address if address.version == version and "%" not in text else None


def _read_binary(data: bytes) -> Proxied | None:
    if len(data) < 16:
        return None
    version, command, family = data[12] >> 4, data[12] & 15, data[13]
    length = int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1:
        raise ValueError(f"expected version 2 of the PROXY protocol and the command 0 or 1, got {data[12]:#04x}")
    if length > _MAX_BLOCK:
        raise ValueError(f"expected at most {_MAX_BLOCK} bytes of addresses in the PROXY protocol, got {length}")
    if len(data) < 16 + length:
        return None
    size = 16 + length
    width = {0x11: 4, 0x21: 16}.get(family)
    # Section 2.2: LOCAL is a health check of the proxy's own; other families than TCP are to be ignored.
    if command == 0 or width is None:
        return Proxied(None, None, size)
    if length < 2 * width + 4:
        raise ValueError(f"expected two addresses and two ports in the PROXY protocol, got {length} bytes")
    at = 16 + 2 * width
    source, destination = (ip_address(data[i : i + width]) for i in (16, 16 + width))
    source_port, destination_port = (int.from_bytes(data[i : i + 2], "big") for i in (at, at + 2))
    return Proxied(_as_address(source, source_port), _as_address(destination, destination_port), size)


# ------------------------------------------------------------------------------------------------------- headers


def forwarded_for(headers: CIMultiDictProxy[str], trusted: Networks) -> Address | None:
    """Return the client's address as trusted proxies tell it, or None if they do not.

    Each proxy adds the address that it sees at the end. So the client is the last one that is not trusted: what stands
    before it, the client may have sent. A proxy may add to one of the two headers, and pass the other one on as the
    client sent it: where both are there, they count if they agree.

    Args:
        headers: of the request.
        trusted: the addresses of the proxies.
    """
    found = []
    if "Forwarded" in headers:
        found.append(_last_untrusted(_of_forwarded(",".join(headers.getall("Forwarded"))), trusted))
    if "X-Forwarded-For" in headers:
        nodes = ",".join(headers.getall("X-Forwarded-For")).split(",")
        found.append(_last_untrusted([node.strip("\t ") for node in reversed(nodes)], trusted))
    if not found or (len(found) == 2 and (not found[0] or not found[1] or found[0][0] != found[1][0])):
        return None
    return found[0]


def _of_forwarded(value: str) -> Iterator[str | None]:
    """Return the value of "for" in each element of Forwarded, from the last one on; None for one without a valid one.

    Elements are separated by commas that are not quoted. Which ones are quoted cannot be told from the beginning, where
    the client may have opened a quoted string that it does not close. So the last element is the shortest end of the
    value that is an element: what begins within a quoted string is none, having an odd number of quotation marks.
    """
    end = len(value)
    while end >= 0:
        start = end
        element = None
        while element is None and start >= 0:
            start = value.rfind(",", 0, start)
            element = _element(value, start + 1, end)
        yield element or None
        end = start


def _element(value: str, position: int, end: int) -> str | None:
    """Return the value of "for" in one element of Forwarded, or "" without a valid one; None if it is no element."""
    node: str | None = None
    while (position := _skip(value, position, end)) < end:
        match = _PAIR.match(value, position, end)
        if match is not None:
            if match[1].lower() == "for":
                # RFC 7239, 4: "Each parameter MUST NOT occur more than once per field-value." Two are as none.
                given = match[2] if match[3] is None else re.sub(r"\\(.)", r"\1", match[3])
                node = given if node is None else ""
            position = match.end()
        if position < end:
            if value[position] != ";":
                return None
            position += 1
    return node or ""


def _skip(value: str, position: int, end: int) -> int:
    match = _SPACES.match(value, position, end)
    return position if match is None else match.end()


def _last_untrusted(nodes: Iterable[str | None], trusted: Networks) -> Address | None:
    """Return the first address that is not trusted, of nodes from the last one on."""
    found: Address | None = None
    for node in nodes:
        parsed = None if node is None else _node(node)
        if parsed is None:
            break  # RFC 7239, 6.2 and 6.3: "unknown", or a name of the proxy's own
        address, port = parsed
        found = _as_address(address, port)
        if not trusted.has(address):
            break
    return found


def _node(text: str) -> tuple[_IP, int] | None:
    """Read an address, with or without a port (RFC 7239, 6)."""
    match = _NODE.fullmatch(text)
    if match is None:
        return None
    inner, ipv4, port, plain = match.groups()
    address = as_ip(inner or ipv4 or plain)
    if address is None or (inner and ":" not in inner):
        return None
    known = bool(port) and len(port) <= 5 and int(port) < 65536
    return address, int(port) if known else 0
