"""A request's head that came whole, in plain Python: the readable specification.

Nearly every opening handshake comes in one read and is in order. It is checked and split here in one go; all others are
left to `RequestParser`, which goes line by line and finds what is wrong. `_head.pyx` is the fast reading of this file.
"""

from __future__ import annotations

import re

from ..http import TCHAR

__all__ = ["find_fields", "take_head"]

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


def take_head(data: bytes, max_size: int, max_headers: int) -> tuple[int, dict[str, str]] | None:
    """Take the head of a request that comes whole and in order, of GET and with a target in origin-form.

    Args:
        data: what came; bytes may follow the head.
        max_size: the most bytes of the head.
        max_headers: the most headers.

    Returns:
        Where the head ends, and what `find_fields` finds in it; None if it is not such a request.
    """
    match = _WHOLE.match(data, 0, max_size)
    if match is None:
        return None
    end = match.end()
    if data.count(b"\n", 0, end) - 2 > max_headers:
        return None
    return end, find_fields(data[:end])


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
