"""The request of an opening handshake as nearly all are, read and judged in one step: what specifies `_request.pyx`.

What is not usual is not wrong: `http11` reads it line by line, and finds what is wrong, if anything.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from .headers import TCHAR

__all__ = ["KEY", "MAX_HEADERS", "MAX_LINE", "Usual", "find_fields", "read_usual"]

MAX_LINE: Final = 8192
"""The longest line of a head, in bytes without its CR LF."""
MAX_HEADERS: Final = 128
"""The most headers in a head."""

Usual: TypeAlias = tuple[int, str, str | None, str | None, str | None]
"""How long a request's head is, Sec-WebSocket-Key, and, each None without it, Origin, Sec-WebSocket-Protocol and
Sec-WebSocket-Extensions."""

# RFC 9112, 3 and 5: the request line with a target in origin-form, the headers, the empty line. No folded
# lines, no space before the colon, no bare CR or LF, no NUL or other control character fits it. White space after a
# value is legal but rare, and is left to the other way, so that nothing has to be stripped. No group is possessive:
# CPython 3.11.2, that of Debian 12, goes on behind what the last, failed try of it consumed.
_HEAD = re.compile(
    rf"GET /[!\"$-~]*+ HTTP/1\.1\r\n(?:{TCHAR}++:[\t -~\x80-\xff]*+(?<![\t ])\r\n){{0,{MAX_HEADERS}}}\r\n", re.ASCII
)
# The headers that the handshake looks at, in a head that is known to be well-formed.
_FIELDS = re.compile(
    r"\n(Host|Upgrade|Connection|Origin|Content-Length|Transfer-Encoding"
    r"|Sec-WebSocket-(?:Key|Version|Protocol|Extensions)):[\t ]*+([^\r]*+)",
    re.ASCII | re.IGNORECASE,
)
_NAMES = {
    name.lower(): name
    for name in (
        "Host",
        "Upgrade",
        "Connection",
        "Origin",
        "Content-Length",
        "Transfer-Encoding",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
    )
}
# Most hosts; not an IPv6 address, nor one with an escaped character.
_PLAIN_HOST = re.compile(r"[0-9A-Za-z\-.]++(?::(?:[0-9]{1,4}|[1-5][0-9]{4}))?")
# Firefox sends the second one.
_CONNECTION = ("upgrade", "keep-alive, upgrade")
KEY: Final = re.compile(r"[0-9A-Za-z+/]{22}==")
"""A Sec-WebSocket-Key (RFC 6455, 4.1, item 7, and the ABNF of 4.3): 16 bytes in base64."""


def find_fields(head: str) -> dict[str, str]:
    """Return the values of the headers that the handshake looks at, in a well-formed head.

    A value that came in several headers is joined with a line feed, which no value can hold.
    """
    found: list[tuple[str, str]] = _FIELDS.findall(head)
    fields: dict[str, str] = {}
    for name, value in found:
        name = _NAMES[name.lower()]
        # RFC 9112, 5.1: white space after a value is no part of it.
        value = value.rstrip("\t ")
        fields[name] = f"{fields[name]}\n{value}" if name in fields else value
    return fields


def read_usual(data: bytes) -> Usual | None:
    """Read a request that is whole, well-formed, and asks for a WebSocket in order (RFC 6455, 4.2.1; RFC 9112).

    Args:
        data: the head, and what follows it.

    Returns:
        What there is to know of it. None if it is in some way not as most are, or too long for a line, or not whole.
    """
    # A head that is no longer than a line may be has no line that is too long.
    text = data[:MAX_LINE].decode("latin-1")
    match = _HEAD.match(text)
    if match is None:
        return None
    fields = find_fields(match.group())
    key = fields.get("Sec-WebSocket-Key", "")
    if (
        fields.get("Upgrade", "").lower() != "websocket"
        or fields.get("Connection", "").lower() not in _CONNECTION
        or fields.get("Sec-WebSocket-Version") != "13"
        or KEY.fullmatch(key) is None
        or _PLAIN_HOST.fullmatch(fields.get("Host", "")) is None
        or "Transfer-Encoding" in fields
        or "Content-Length" in fields
    ):
        return None
    rest = fields.get("Origin"), fields.get("Sec-WebSocket-Protocol"), fields.get("Sec-WebSocket-Extensions")
    if any(value is not None and "\n" in value for value in rest):
        return None
    return match.end(), key, *rest
