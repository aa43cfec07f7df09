"""HTTP/1.1 heads as a WebSocket handshake needs them, sans-IO: strict, bounded, and fast for the usual one.

A request that comes whole in one read, as nearly all do, is taken by `take_head`, which is in Cython or Python.
Everything else goes through `_HeadParser`, which reads line by line, resumes where it stopped, and finds what is wrong.
Both accept the same: the tests feed every case whole and byte by byte.

The verdict depends on the bytes only, not on how they were cut: the first violation in the stream decides.
"""

from __future__ import annotations

import re
import sys
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from ..escape import show
from ..exceptions import HandshakeRefused, InvalidMessage, InvalidState
from ..http import TCHAR, Request, Response, text_response
from ._head_py import PLAIN_HOST
from .head import find_fields, take_head

if TYPE_CHECKING:
    from .body import Body

__all__ = [
    "MAX_HEAD",
    "MAX_HEADERS",
    "MAX_LINE",
    "HeadLimits",
    "Request",
    "RequestParser",
    "Response",
    "ResponseParser",
    "find_fields",
    "refuse",
    "take_request",
    "text_response",
]

_TLS = (b"\x15", b"\x16")
"""The first byte of TLS, of an alert or a ClientHello (RFC 8446, 5.1); HTTP cannot begin with it."""

MAX_LINE = 8192
"""The longest line of a head by default, in bytes without its CR LF."""
MAX_HEAD = 16384
"""The longest head by default, in bytes, with the empty line that ends it."""
MAX_HEADERS = 128
"""The most headers in a head by default."""

_HEADER = re.compile(rf"{TCHAR}++:".encode())
# What a line may hold. A request line is all ASCII, so that most of what is not HTTP fails at its first byte.
_ASCII_LINE = re.compile(rb"[ -~]*+")
_LINE = re.compile(rb"[\t -~\x80-\xff]*+")
_METHOD = _NAME = re.compile(rf"{TCHAR}++".encode())
_LAST_WORD = re.compile(rb" HTTP/[^ ]*+$")
_AFTER_PATH = re.compile(rb"[?#].++", re.DOTALL)
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
# RFC 3986, 3.2.2: reg-name or IPv4address or "[" IPv6address "]"; a zone is tolerated, as some clients send it.
_AUTHORITY = (
    r"(?:\[([0-9A-Fa-f:.]++(?:%[0-9A-Za-z\-._~%]++)?)\]|(?:[0-9A-Za-z\-._~!$&'()*+,;=]++|%[0-9A-Fa-f]{2})+)"
    r"(?::([0-9]{0,5}+))?"
)
_HOST = re.compile(_AUTHORITY)
# RFC 9112, 3.2.2: a server accepts absolute-form. Userinfo does not belong there (RFC 9110, 4.2.4).
_ABSOLUTE = re.compile(rf"(?:https?|wss?)://({_AUTHORITY})([/?][!\"$-~]*+)?", re.IGNORECASE | re.ASCII)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*+))?")

# How many responses before the final one are skipped; each is within the limits of a head.
_MAX_INTERIM = 8


class HeadLimits(NamedTuple):
    """How large the head of a request or a response may be.

    Single sign-on often needs more than the default: its cookies and tokens pass 8 KiB.
    """

    max_line: int = MAX_LINE
    """Bytes of a line, without its CR LF. A line can never be longer than the head."""
    max_head: int = MAX_HEAD
    """Bytes in all, with the empty line at the end."""
    max_headers: int = MAX_HEADERS
    """Headers, each value counted that came in a header of its own."""

    @classmethod
    def checked(cls, **limits: int) -> HeadLimits:
        """Make one of the values that a user gave.

        Raises:
            TypeError, ValueError: a value is no `int`, or not positive; the text names the limit.
        """
        for name, value in limits.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be int, got {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        return cls(**{name: min(value, sys.maxsize) for name, value in limits.items()})  # the most that C holds


_DEFAULT = HeadLimits()


def refuse(
    status_code: int, text: str, log: str | None = None, headers: dict[str, str] | None = None
) -> HandshakeRefused:
    """Make the exception that refuses a request.

    Args:
        status_code: 400 to 599.
        text: what the client is told, without a full stop.
        log: what the log is told; default the same. What the peer sent must be escaped in it.
        headers: more headers of the response; default none.
    """
    return HandshakeRefused(log or text, text_response(status_code, f"{text}.\n", headers))


class _HeadParser:
    """Finds the end of a head in a stream, line by line, and refuses what is wrong at once.

    It holds at most one byte more than the longest head has, and looks at each byte once.
    """

    __slots__ = ("_buffer", "_count", "_done", "_in_head", "_limits", "_line", "_position", "_start", "trailing")

    _first_line = _LINE  # what the first line may hold

    def __init__(self, limits: HeadLimits = _DEFAULT) -> None:
        self._limits = limits
        self.trailing: bytes = b""
        """The bytes that came after the end, once it was found."""
        self._done = False
        # Most requests come whole and never need the rest: see `_begin`.
        self._buffer: bytearray | None = None

    def _begin(self) -> bytearray:
        self._buffer = buffer = bytearray()
        self._start = 0  # where the head starts
        self._line = 0  # where the current line starts
        self._position = 0  # how far the current line is known to be good
        self._count = 0  # of headers
        self._in_head = False  # the first line is done
        return buffer

    def _check_first_line(self, line: bytes) -> None:
        raise NotImplementedError  # pragma: no cover - each subclass has its own

    def _fail(self, status: int, text: str, log: str, line: bytes | None = None) -> NoReturn:
        raise NotImplementedError  # pragma: no cover - each subclass has its own

    def _check_open(self) -> None:
        if self._done:
            raise InvalidState("this parser has returned or failed already: make one for each handshake")

    def _stop(self) -> None:
        self._done = True
        self._buffer = None

    def _feed_lines(self, data: bytes) -> bytes | None:
        """Take more bytes and return the head if it is complete; then what follows is in `trailing`."""
        buffer = self._begin() if self._buffer is None else self._buffer
        room = self._limits.max_head + 1 - len(buffer)
        buffer += data[:room]
        end = self._scan(buffer)
        if not end:
            return None
        self.trailing = bytes(buffer[end:]) + data[room:]
        return bytes(buffer[self._start : end])

    def _scan(self, buffer: bytearray) -> int:
        max_line, max_head, _ = self._limits
        size = min(len(buffer), max_head)
        while True:
            match = (_LINE if self._in_head else self._first_line).match(buffer, self._position, size)
            stop = self._position if match is None else match.end()
            if stop - self._line > max_line:
                self._fail_line()
            self._position = stop
            if stop + 1 >= size and (stop == size or buffer[stop] == 13):
                # The line's end has not come.
                if len(buffer) > max_head:
                    self._fail(
                        431,
                        f"Headers of more than {max_head} bytes (max_head)",
                        f"expected a head of at most {max_head} bytes (max_head)",
                    )
                return 0
            line = bytes(buffer[self._line : stop])
            if buffer[stop] != 13 or buffer[stop + 1] != 10:
                self._fail_byte(line, bytes(buffer[stop : stop + 2]))
            self._line = self._position = stop + 2
            if not self._in_head:
                # RFC 9112, 2.2: one empty line before the request line is ignored.
                if not line and not self._start:
                    self._start = stop + 2
                    continue
                self._check_first_line(line)
                self._in_head = True
            elif not line:
                return stop + 2
            else:
                self._check_header_line(line)

    def _check_header_line(self, line: bytes) -> None:
        self._count += 1
        most = self._limits.max_headers
        if self._count > most:
            self._fail(431, f"More than {most} headers (max_headers)", f"expected at most {most} headers (max_headers)")
        if _HEADER.match(line) is None:
            # RFC 9112, 5.1 and 5.2: no space before the colon, no folded line.
            self._fail(400, "Malformed header", f"expected a header's name and a colon, got {_show_header(line)}")

    def _fail_line(self) -> NoReturn:
        limit = f"{self._limits.max_line} bytes (max_line)"
        if self._in_head:
            self._fail(431, f"Header of more than {limit}", f"expected header lines of at most {limit}")
        self._fail(414, f"Request line of more than {limit}", f"expected a first line of at most {limit}")

    def _fail_byte(self, line: bytes, rest: bytes) -> NoReturn:
        if not line and not self._in_head and rest[:1] in _TLS:
            text = f"expected HTTP, got {rest[:1]!r}, as TLS begins: one side speaks ws://, the other wss://"
            self._fail(400, "TLS where HTTP is spoken", text, rest[:1])
        what = "a header" if self._in_head else "the first line"
        bad = rest if rest[:1] == b"\r" else rest[:1]
        after = _show_header(line) if self._in_head else _show_line(line)
        first = None if self._in_head else line + bad
        self._fail(400, "Malformed HTTP", f"expected CR LF at the end of {what}, got {bad!r} after {after}", first)


class RequestParser(_HeadParser):
    """Parses a request on the server's side (RFC 6455, 4.2.1; RFC 9112): its head, whatever it asks for.

    `check_request` judges whether it asks for a WebSocket; another may be a health check, to be answered by HTTP.

    Args:
        limits: how large the head may be; default those of `HeadLimits`.

    Attributes:
        trailing: the bytes that followed the request in what was fed: the first frames.
    """

    __slots__ = ("_method",)

    _first_line = _ASCII_LINE

    def feed(self, data: bytes | bytearray | memoryview) -> Request | None:
        """Take more bytes, cut anywhere, and return the request once its head is complete.

        Raises:
            HandshakeRefused: if the request is malformed, past a limit, no HTTP/1, or CONNECT; its `response` is the
                answer to send. The parser cannot be used afterwards.
            InvalidState: if it has returned a request, or failed, before.
        """
        self._check_open()
        if type(data) is not bytes:
            data = bytes(data)
        try:
            taken = take_request(data, self._limits) if self._buffer is None else None
            if taken is not None:
                request, trailing = taken
                self.trailing = trailing
            else:
                head = self._feed_lines(data)
                if head is None:
                    return None
                request = self._make(head, find_fields(head))
            self._stop()
            return request
        except HandshakeRefused:
            self._stop()
            raise

    def _make(self, head: bytes, fields: dict[str, str]) -> Request:
        """Make the request of a well-formed head, unless its Host is wrong."""
        host = fields.get("Host")
        # RFC 9112, 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message
        # that lacks a Host header field and to any request message that contains more than one Host header field line
        # or a Host header field with an invalid field value."
        if host is None:
            if head[: head.index(b"\r")].endswith(b"1.1"):
                self._fail(400, "Missing Host header", "expected a Host header, got none")
        elif PLAIN_HOST.fullmatch(host) is None and not _is_host(host):
            if "\n" in host:
                self._fail(400, "Several Host headers", f"expected one Host header, got {_several(host)}")
            self._fail(400, "Malformed Host header", f"expected a host and a port in Host, got {show(host)}")
        request = Request(head)
        request._found = fields, None
        return request

    def _check_first_line(self, line: bytes) -> None:
        if line == b"PRI * HTTP/2.0":
            self._fail(400, "Expected HTTP/1.1, got HTTP/2", "expected HTTP/1.1, got the preface of HTTP/2")
        parts = line.split(b" ")
        if len(parts) != 3 or _METHOD.fullmatch(parts[0]) is None or _VERSION.fullmatch(parts[2]) is None:
            self._fail(400, "Malformed request line", f"expected a request line, got {_show_line(line)}", line)
        method, target, version = parts
        self._method: bytes = method
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            self._fail(505, "Expected HTTP/1.1", f"expected HTTP/1.1, got {show(version)}")
        if method == b"CONNECT":
            # What it asks for is a proxy, and its target is of a form of its own (RFC 9112, 3.2.3).
            self._fail(405, "Expected GET", f"expected method GET, got {show(method)}")
        # RFC 6455, 4.2.1, and RFC 9112, 3.2.1, 3.2.2 and 3.2.4. A fragment has no place in a request.
        if target[:1] == b"/":
            good = b"#" not in target
        elif target == b"*":
            good = method == b"OPTIONS"
        else:
            match = _ABSOLUTE.fullmatch(target.decode("ascii"))
            good = match is not None and _is_host(match.group(1))
        if not good:
            came = _show_line(target)
            self._fail(400, "Malformed request target", f"expected a path or a URI as the target, got {came}")

    def _fail(self, status: int, text: str, log: str, line: bytes | None = None) -> NoReturn:
        # RFC 9110, 15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
        refused = refuse(status, text, log, {"Allow": "GET"} if status == 405 else None)
        if getattr(self, "_method", None) == b"HEAD":  # known once the request line is
            # RFC 9110, 9.3.2: no body, and the Content-Length of the one that GET would get.
            refused.response.body = b""
        if line is not None:
            refused.line = _without_secrets(line)
        raise refused


def take_request(data: bytes, limits: HeadLimits) -> tuple[Request, bytes] | None:
    """Return the request, and the bytes behind it, if its head is all there and in order, as most are.

    Else return None, whatever the reason: feed the bytes to a `RequestParser`, which finds what is missing or wrong.
    """
    max_line, max_head, max_headers = limits
    # If the whole head is no longer than `max_line`, no line is too long.
    taken = take_head(data, min(max_line, max_head), max_headers)
    if taken is None:
        return None
    end, fields, key = taken
    if key is None and ("Host" not in fields or PLAIN_HOST.fullmatch(fields["Host"]) is None):
        return None
    request = Request(data[:end])
    request._found = fields, key
    return request, data[end:]


def _show_header(line: bytes) -> str:
    """Show a header without its value, which may be a secret."""
    name = _NAME.match(line)
    end = name.end() if name else 0
    return show(line) if end == len(line) else f"{show(line[:end])} and {len(line) - end} bytes more"


def _show_line(line: bytes) -> str:
    """Show a request line, or its target, without what may be a secret."""
    return show(_without_secrets(line))


def _without_secrets(line: bytes) -> bytes:
    """Return a request line, or its target, without what may be a secret: a query, a fragment, a user name.

    It may be wrong in any way: where a target has spaces, for example, only the version ends it.
    """
    version = _LAST_WORD.search(line)
    rest, end = (line, b"") if version is None else (line[: version.start()], version.group())
    start, at = rest.find(b"//"), rest.rfind(b"@")
    if 0 <= start < at:
        rest = rest[: start + 2] + b"..." + rest[at + 1 :]
    words = rest.split(b" ", 2)
    if len(words) > 2:
        rest = b"%b %b ..." % (words[0], words[1])
    return _AFTER_PATH.sub(lambda match: match.group()[:1] + b"...", rest) + end


def _not_ours(line: bytes) -> bytes:
    """Return what a server said instead of a status line, without what may be secret where it says back the request."""
    return _without_secrets(line) if line.startswith((b"GET ", b"CONNECT ")) else line


def _is_host(value: str) -> bool:
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    address, port = match.groups()
    if port and int(port) > 65535:
        return False
    if address:
        try:
            IPv6Address(address)
        except ValueError:
            return False
    return True


def _several(value: str) -> str:
    values = value.split("\n")
    return f"{len(values)}: {show(', '.join(values))}"


class ResponseParser(_HeadParser):
    """Parses the response to an opening handshake, or to CONNECT, on the client's side (RFC 6455, 4.1; RFC 9112).

    Interim responses (1xx but 101) are skipped; they count against the limits of the head.

    Args:
        connect: whether the request was CONNECT: then what follows a 2xx is the tunnel; default False.
        limits: how large a head may be; default those of `HeadLimits`.

    Attributes:
        trailing: the bytes that followed a 101, or a 2xx to CONNECT, in what was fed.
    """

    __slots__ = ("_body", "_connect", "_interim", "_response")

    def __init__(self, *, connect: bool = False, limits: HeadLimits = _DEFAULT) -> None:
        super().__init__(limits)
        self._connect = connect
        self._interim = 0
        self._response: Response | None = None
        self._body: Body | None = None

    @property
    def head_complete(self) -> bool:
        """Whether the status and the headers are known, though the body may not have ended."""
        return self._response is not None

    def feed(self, data: bytes | bytearray | memoryview) -> Response | None:
        """Take more bytes, cut anywhere, and return the response once it is complete.

        A response other than 101 is complete with its body, or with the first 64 KiB of it, as they are sent.

        Raises:
            InvalidMessage: if what came is no HTTP/1.1 response, or is past a limit.
            InvalidState: if it has returned a response, or failed, before.
        """
        self._check_open()
        data = bytes(data)
        try:
            while self._response is None:
                head = self._feed_lines(data)
                if head is None:
                    return None
                data = self._take_head(head)
        except InvalidMessage:
            self._stop()
            raise
        if self._body is None or self._body.feed(data):
            return self._finish(self._response)
        return None

    def feed_eof(self, cause: BaseException | None = None) -> Response:
        """Take the end of the stream and return the response, with as much of its body as came.

        Args:
            cause: what ended the stream; where the response is missing, the cause of the exception. Default: None.

        Raises:
            InvalidMessage: if the head is not complete.
            InvalidState: if it has returned a response, or failed, before.
        """
        self._check_open()
        if self._response is None:
            line, _, rest = bytes(self._buffer or b"").lstrip(b"\r\n").partition(b"\r\n")
            self._stop()
            came = show(_not_ours(line)) if line else "nothing"
            if rest:  # headers, whose values may be secrets
                came += f", {len(rest)} bytes of headers"
            raise InvalidMessage(f"expected an HTTP response, got {came} and then the end of the connection") from cause
        return self._finish(self._response)

    def _take_head(self, head: bytes) -> bytes:
        """Take a response's head; return the bytes that follow it, unless they are `trailing`."""
        rest = self.trailing
        response = Response.from_head(head)
        status = response.status_code
        self._buffer = None
        if status == 101 or (self._connect and 200 <= status < 300):
            # RFC 9110, 9.3.6: a 2xx to CONNECT has no body, whatever its headers say.
            self._response = response
            return b""
        self.trailing = b""
        if status < 200:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise InvalidMessage(f"expected at most {_MAX_INTERIM} interim responses, got another {status}")
            return rest
        from .body import Body  # which loads h11: most clients never need it

        self._response = response
        self._body = Body(response)
        return rest

    def _finish(self, response: Response) -> Response:
        self._stop()
        if self._body is not None:
            response.body = bytes(self._body.data)
        return response

    def _check_first_line(self, line: bytes) -> None:
        match = _STATUS_LINE.fullmatch(line)
        # HTTP/1.0 is good enough for a refusal, as some proxies send it, but it cannot upgrade (RFC 9110, 7.8).
        if match is None or (match.group(1) == b"0" and match.group(2) == b"101"):
            self._fail(0, "", f"expected an HTTP/1.1 status line, got {show(_not_ours(line))}", line)

    def _fail(self, status: int, text: str, log: str, line: bytes | None = None) -> NoReturn:
        exc = InvalidMessage(log)
        if line is not None:
            exc.line = _not_ours(line)
        raise exc
