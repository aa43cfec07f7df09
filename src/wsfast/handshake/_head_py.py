"""Reading a request's head that came whole, in plain Python: the readable specification.

Nearly every opening handshake comes in one read and is in order. It is checked and split here in one go; all others are
left to `RequestParser`, which goes line by line and finds what is wrong. `_head.pyx` is the fast twin of this file.
"""

from __future__ import annotations

import re
from typing import Final

from ..http import TCHAR

__all__ = ["find_fields", "find_key", "lower_pairs", "take_head"]

NAMES = (
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
"""The headers that the handshake looks at."""
_SPELLINGS = {name.lower(): name for name in NAMES}
_FIELDS = re.compile(rf"\n({'|'.join(NAMES)}):[\t ]*+([^\r]*+)", re.ASCII | re.IGNORECASE)
# RFC 9112, 3 and 5: the request line with a target in origin-form, the headers, the empty line. No folded lines, no
# space before the colon, no bare CR or LF, no NUL or other control character fits it. No group is possessive: CPython
# 3.11.2, that of Debian 12, resumes after what the last, failed try of it consumed.
_WHOLE = re.compile(rf"GET /[!\"$-~]*+ HTTP/1\.1\r\n(?:{TCHAR}++:[\t -~\x80-\xff]*+\r\n)*\r\n".encode("latin-1"))


MAX_LAST: Final = 256
"""Bytes of a value that `lower_pairs` keeps for the next head."""
PLAIN_HOST: Final = re.compile(r"[0-9A-Za-z\-.]++(?::[0-9]{1,4})?")
"""Matches most values of Host, but no IPv6 address and no escaped character."""
KEY: Final = re.compile(r"[0-9A-Za-z+/]{22}==")
"""A Sec-WebSocket-Key (RFC 6455, 4.1, item 7, and the ABNF of 4.3): 16 bytes in base64."""


def take_head(data: bytes, max_size: int, max_headers: int) -> tuple[int, dict[str, str], str | None] | None:
    """Take the head of a request that comes whole and in order, of GET and with a target in origin-form.

    Args:
        data: what came; bytes may follow the head.
        max_size: the most bytes of the head.
        max_headers: the most headers.

    Returns:
        Where the head ends, the result of `find_fields`, and that of `find_key`; None if it is not such a request.
    """
    match = _WHOLE.match(data, 0, max_size)
    if match is None:
        return None
    end = match.end()
    if data.count(b"\n", 0, end) - 2 > max_headers:
        return None
    fields = find_fields(data[:end])
    return end, fields, find_key(fields)


def find_fields(head: bytes) -> dict[str, str]:
    """Return the values of the headers that the handshake looks at, in a well-formed head.

    A value that came in several headers is joined with a line feed, which no value can hold.
    """
    found: list[tuple[str, str]] = _FIELDS.findall(head.decode("latin-1"))
    fields: dict[str, str] = {}
    for name, value in found:
        name = _SPELLINGS[name.lower()]
        # RFC 9112, 5.1: white space after a value is no part of it.
        value = value.rstrip("\t ")
        fields[name] = f"{fields[name]}\n{value}" if name in fields else value
    return fields


def find_key(fields: dict[str, str]) -> str | None:
    """Return the key if the fields ask for a WebSocket in the usual words; else None, and they are to be looked at."""
    if fields.get("Upgrade", "").lower() != "websocket":
        return None
    if fields.get("Connection", "").lower() not in ("upgrade", "keep-alive, upgrade"):
        return None
    if fields.get("Sec-WebSocket-Version") != "13" or "Transfer-Encoding" in fields or "Content-Length" in fields:
        return None
    host, key = fields.get("Host", ""), fields.get("Sec-WebSocket-Key", "")
    return key if PLAIN_HOST.fullmatch(host) is not None and KEY.fullmatch(key) is not None else None


def lower_pairs(
    head: bytes, known: dict[bytes, bytes], last: dict[bytes, tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Return the headers of a well-formed head, in order, names in lower case.

    Args:
        head: of a request or a response.
        known: what is to be returned in place of an equal name, in lower case, or value: one object for all.
        last: by name, in lower case, the last header that was returned, to be returned again where an equal one comes.
            It is kept up to date for the names that are there, except for values of more than `MAX_LAST` bytes.
    """
    pairs = []
    for line in head.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        pair = last.get(name)
        if pair is None:
            pair = known.get(name, name), known.get(value, value)
        elif pair[1] != value:
            pair = pair[0], known.get(value, value)
            if len(value) <= MAX_LAST:
                last[name] = pair
        pairs.append(pair)
    return pairs
