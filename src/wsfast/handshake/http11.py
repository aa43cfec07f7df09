"""HTTP/1.1 heads as a WebSocket handshake needs them, sans-IO: strict, bounded, and fast for the usual one.

A request that comes whole in one read and is in order, as nearly all are, is read by `read_usual`, in one pass; its
specification is one regular expression, which is the grammar itself. Everything else goes through `_HeadParser`, which
reads line by line, resumes where it stopped, and finds what is wrong. Both accept the same: the tests feed every case
whole and byte by byte.

The verdict depends on the bytes only, not on how they were cut: the first violation in the stream decides.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, NoReturn

import httptools
from multidict import CIMultiDict, CIMultiDictProxy

from ..codec import IMPLEMENTATION
from ..exceptions import HandshakeRefused, InvalidMessage, InvalidState, show
from ._request_py import MAX_HEADERS, MAX_LINE, Usual, find_fields
from .headers import TCHAR, check_header

if TYPE_CHECKING or IMPLEMENTATION == "python":
    from ._request_py import read_usual
else:
    from ._request import read_usual

__all__ = [
    "MAX_BODY",
    "MAX_HEAD",
    "MAX_HEADERS",
    "MAX_LINE",
    "Request",
    "RequestParser",
    "Response",
    "ResponseParser",
    "refuse",
    "text_response",
]

MAX_HEAD = 16384
"""The longest head, in bytes, with the empty line that ends it."""
MAX_BODY = 65536
"""How much of a response's body is kept, in bytes."""

_HEADER = re.compile(rf"{TCHAR}++:".encode())
# What a line may hold. A request line is all ASCII, so that most of what is no HTTP fails at its first byte.
_ASCII_LINE = re.compile(rb"[ -~]*+")
_LINE = re.compile(rb"[\t -~\x80-\xff]*+")
_METHOD = re.compile(rf"{TCHAR}++".encode())
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


def _parse_headers(raw: bytes) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    for line in raw.decode("latin-1").split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        headers.add(name, value.strip("\t "))
    return headers


class Request:
    """A request's head, as it came or as it was sent.

    It keeps the bytes and parses them when asked: a connection that is idle for hours holds one.

    Args:
        raw: the whole head, well-formed, with the empty line that ends it.
    """

    __slots__ = ("_found", "_headers", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._headers: CIMultiDictProxy[str] | None = None
        # What `RequestParser` found, for the check that follows; dropped by it.
        self._found: Usual | dict[str, str] | None = None

    @property
    def method(self) -> str:
        """The method; a server sees only ``"GET"``."""
        return self.raw[: self.raw.index(b" ")].decode("ascii")

    @property
    def target(self) -> str:
        """The request's target as it came, in origin-form or absolute-form (RFC 9112, 3.2)."""
        return self.raw.split(b" ", 2)[1].decode("ascii")

    @property
    def path(self) -> str:
        """The path with the query, still percent-encoded."""
        target = self.target
        if target.startswith("/"):
            return target
        match = _ABSOLUTE.fullmatch(target)
        path: str = "" if match is None else match.group(4) or ""
        return path if path.startswith("/") else f"/{path}"

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers: names without case, repeated ones kept, values in Latin-1. Parsed at the first access."""
        if self._headers is None:
            self._headers = CIMultiDictProxy(_parse_headers(self.raw))
        return self._headers

    def _take_found(self) -> Usual | dict[str, str]:
        found, self._found = self._found, None
        return find_fields(self.raw.decode("latin-1")) if found is None else found

    def __repr__(self) -> str:
        return f"<Request {self.method} {show(self.target)}>"


class Response:
    """A response, to be sent or as it came.

    Args:
        status_code: 100 to 599.
        reason_phrase: of the status line; default the usual one of the code.
        headers: default none.
        body: default empty. What a client received is cut at 64 KiB.

    Raises:
        ValueError: if the code is out of range, or the phrase or a header has a character that it must not have.
    """

    __slots__ = ("body", "headers", "reason_phrase", "status_code")

    def __init__(
        self,
        status_code: int,
        reason_phrase: str | None = None,
        headers: CIMultiDict[str] | None = None,
        body: bytes = b"",
    ) -> None:
        if not 100 <= status_code <= 599:
            raise ValueError(f"expected a status code from 100 to 599, got {status_code}")
        if reason_phrase is None:
            try:
                reason_phrase = HTTPStatus(status_code).phrase
            except ValueError:
                reason_phrase = ""
        self.status_code = status_code
        self.reason_phrase = reason_phrase
        self.headers: CIMultiDict[str] = CIMultiDict() if headers is None else headers
        self.body = body
        self._check()

    def _check(self) -> None:
        check_header("reason-phrase", self.reason_phrase)
        for name, value in self.headers.items():
            check_header(name, value)

    @classmethod
    def from_head(cls, raw: bytes) -> Response:
        """Make a response of a well-formed head, such as `accept_response` returns."""
        status_line = raw[: raw.index(b"\r\n")].decode("latin-1")
        _, status, *reason = status_line.split(" ", 2)
        return cls(int(status), reason[0] if reason else "", _parse_headers(raw))

    def serialize(self) -> bytes:
        """Return the bytes to send.

        A final response without framing gets Content-Length, and Connection: close, since wsfast
        closes a connection that does not become a WebSocket.

        Raises:
            ValueError: if a header that was added has a character that it must not have.
        """
        self._check()
        lines = [f"HTTP/1.1 {self.status_code} {self.reason_phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status_code >= 200:
            # RFC 9110, 8.6: no Content-Length with 204; with 304 it would speak of another body.
            if (
                self.status_code not in (204, 304)
                and "Content-Length" not in self.headers
                and "Transfer-Encoding" not in self.headers
            ):
                lines.append(f"Content-Length: {len(self.body)}")
            if "Connection" not in self.headers:
                lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body

    def __repr__(self) -> str:
        return f"<Response {self.status_code} {show(self.reason_phrase)}>"


def text_response(status_code: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """Make a response of plain text that ends the connection.

    Args:
        status_code: 200 to 599.
        text: the body, sent in UTF-8.
        headers: more headers; default none.

    Raises:
        ValueError: if the code is out of range or a header has a character that it must not have.
    """
    body = text.encode()
    all_headers: CIMultiDict[str] = CIMultiDict(headers or {})
    if "Upgrade" in all_headers:
        # RFC 9110, 7.8: who sends Upgrade also names it in Connection.
        all_headers.add("Connection", "Upgrade")
    all_headers.add("Connection", "close")
    all_headers.add("Content-Type", "text/plain; charset=utf-8")
    all_headers.add("Content-Length", str(len(body)))
    return Response(status_code, None, all_headers, body)


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

    It holds at most `MAX_HEAD` + 1 bytes and looks at each byte once.
    """

    __slots__ = ("_buffer", "_count", "_done", "_in_head", "_line", "_position", "_start", "trailing")

    _first_line = _LINE  # what the first line may hold

    def __init__(self) -> None:
        self.trailing = b""
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

    def _fail(self, status: int, text: str, log: str) -> NoReturn:
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
        room = MAX_HEAD + 1 - len(buffer)
        buffer += data[:room]
        end = self._scan(buffer)
        if not end:
            return None
        self.trailing = bytes(buffer[end:]) + data[room:]
        return bytes(buffer[self._start : end])

    def _scan(self, buffer: bytearray) -> int:
        size = min(len(buffer), MAX_HEAD)
        while True:
            match = (_LINE if self._in_head else self._first_line).match(buffer, self._position, size)
            stop = self._position if match is None else match.end()
            if stop - self._line > MAX_LINE:
                self._fail_line()
            self._position = stop
            if stop + 1 >= size and (stop == size or buffer[stop] == 13):
                # The line's end has not come.
                if len(buffer) > MAX_HEAD:
                    self._fail(
                        431, f"Headers of more than {MAX_HEAD} bytes", f"expected a head of at most {MAX_HEAD} bytes"
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
        if self._count > MAX_HEADERS:
            self._fail(431, f"More than {MAX_HEADERS} headers", f"expected at most {MAX_HEADERS} headers")
        if _HEADER.match(line) is None:
            # RFC 9112, 5.1 and 5.2: no space before the colon, no folded line.
            self._fail(400, "Malformed header", f"expected a header's name and a colon, got {show(line)}")

    def _fail_line(self) -> NoReturn:
        if self._in_head:
            self._fail(
                431, f"Header of more than {MAX_LINE} bytes", f"expected header lines of at most {MAX_LINE} bytes"
            )
        self._fail(
            414, f"Request line of more than {MAX_LINE} bytes", f"expected a first line of at most {MAX_LINE} bytes"
        )

    def _fail_byte(self, line: bytes, rest: bytes) -> NoReturn:
        what = "a header" if self._in_head else "the first line"
        bad = rest if rest[:1] == b"\r" else rest[:1]
        self._fail(400, "Malformed HTTP", f"expected CR LF at the end of {what}, got {bad!r} after {show(line)}")


class RequestParser(_HeadParser):
    """Parses the request of an opening handshake, on the server's side (RFC 6455, 4.2.1; RFC 9112).

    Attributes:
        trailing: the bytes that followed the request in what was fed: the first frames.
    """

    __slots__ = ()

    _first_line = _ASCII_LINE

    def feed(self, data: bytes | bytearray | memoryview) -> Request | None:
        """Take more bytes, cut anywhere, and return the request once its head is complete.

        Raises:
            HandshakeRefused: if the request is malformed, past a limit, or no GET by HTTP/1.1; its `response` is
                the answer to send. The parser is of no more use then.
            InvalidState: if it has returned a request, or failed, before.
        """
        self._check_open()
        if type(data) is not bytes:
            data = bytes(data)
        if self._buffer is None:
            usual = read_usual(data)
            if usual is not None:
                self._done = True
                end = usual[0]
                if end != len(data):
                    self.trailing = data[end:]
                    data = data[:end]
                request = Request(data)
                request._found = usual
                return request
        try:
            head = self._feed_lines(data)
            if head is None:
                return None
            self._stop()
            return self._finish(head, find_fields(head.decode("latin-1")))
        except HandshakeRefused:
            self._stop()
            raise

    def _finish(self, head: bytes, fields: dict[str, str]) -> Request:
        request = Request(head)
        request._found = fields
        # RFC 9112, 3.2: exactly one Host, with a valid value.
        host = fields.get("Host")
        if host is None:
            self._fail(400, "Missing Host header", "expected a Host header, got none")
        if not _is_host(host):
            if "\n" in host:
                self._fail(400, "Several Host headers", f"expected one Host header, got {_several(host)}")
            self._fail(400, "Malformed Host header", f"expected a host and a port in Host, got {show(host)}")
        if "Transfer-Encoding" in fields:
            coding = show(fields["Transfer-Encoding"])
            self._fail(400, "Unexpected request body", f"expected no Transfer-Encoding, got {coding}")
        if "Content-Length" in fields and fields["Content-Length"] != "0":
            length = show(fields["Content-Length"])
            self._fail(400, "Unexpected request body", f"expected no Content-Length but 0, once, got {length}")
        return request

    def _check_first_line(self, line: bytes) -> None:
        if line == b"PRI * HTTP/2.0":
            self._fail(400, "Expected HTTP/1.1, got HTTP/2", "expected HTTP/1.1, got the preface of HTTP/2")
        parts = line.split(b" ")
        if len(parts) != 3 or _METHOD.fullmatch(parts[0]) is None or _VERSION.fullmatch(parts[2]) is None:
            self._fail(400, "Malformed request line", f"expected a request line, got {show(line)}")
        method, target, version = parts
        if version != b"HTTP/1.1":
            self._fail(505, "Expected HTTP/1.1", f"expected HTTP/1.1, got {show(version)}")
        if method != b"GET":
            self._fail(405, "Expected GET", f"expected method GET, got {show(method)}")
        # RFC 6455, 4.2.1, and RFC 9112, 3.2.1 and 3.2.2. A fragment has no place in a request.
        if target[:1] == b"/":
            good = b"#" not in target
        else:
            match = _ABSOLUTE.fullmatch(target.decode("ascii"))
            good = match is not None and _is_host(match.group(1))
        if not good:
            self._fail(400, "Malformed request target", f"expected a path or a URI as the target, got {show(target)}")

    def _fail(self, status: int, text: str, log: str) -> NoReturn:
        # RFC 9110, 15.5.6: Allow comes with 405.
        raise refuse(status, text, log, {"Allow": "GET"} if status == 405 else None)


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

    Attributes:
        trailing: the bytes that followed a 101, or a 2xx to CONNECT, in what was fed.
    """

    __slots__ = ("_body", "_connect", "_http", "_interim", "_response")

    def __init__(self, *, connect: bool = False) -> None:
        super().__init__()
        self._connect = connect
        self._interim = 0
        self._response: Response | None = None
        self._body = _Body()
        self._http = httptools.HttpResponseParser(self._body)

    @property
    def head_complete(self) -> bool:
        """Whether the status and the headers are known, though the body may not have ended."""
        return self._response is not None

    def feed(self, data: bytes | bytearray | memoryview) -> Response | None:
        """Take more bytes, cut anywhere, and return the response once it is complete.

        A response other than 101 is complete with its body, or with the first 64 KiB of it.

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
        self._feed_body(data)
        if self._body.complete or len(self._body.data) >= MAX_BODY:
            return self._finish(self._response)
        return None

    def feed_eof(self) -> Response:
        """Take the end of the stream and return the response, with as much of its body as came.

        Raises:
            InvalidMessage: if the head is not complete.
            InvalidState: if it has returned a response, or failed, before.
        """
        self._check_open()
        if self._response is None:
            held = bytes(self._buffer or b"")
            self._stop()
            came = show(held) if held else "nothing"
            raise InvalidMessage(f"expected an HTTP response, got {came} and then the end of the connection")
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
            self._body.complete = True
            return b""
        self.trailing = b""
        if status < 200:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise InvalidMessage(f"expected at most {_MAX_INTERIM} interim responses, got another {status}")
            return rest
        self._response = response
        self._feed_body(head)
        return rest

    def _feed_body(self, data: bytes) -> None:
        if data and not self._body.complete:
            try:
                self._http.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                # The status alone fails the handshake; what came before a bad chunk may still tell why.
                self._body.complete = True

    def _finish(self, response: Response) -> Response:
        self._stop()
        response.body = bytes(self._body.data)
        return response

    def _check_first_line(self, line: bytes) -> None:
        match = _STATUS_LINE.fullmatch(line)
        # HTTP/1.0 is good enough for a refusal, as some proxies send it, but it cannot upgrade (RFC 9110, 7.8).
        if match is None or (match.group(1) == b"0" and match.group(2) == b"101"):
            raise InvalidMessage(f"expected an HTTP/1.1 status line, got {show(line)}")

    def _fail(self, status: int, text: str, log: str) -> NoReturn:
        raise InvalidMessage(log)


class _Body:
    """Gathers a body for `ResponseParser`: what llhttp makes of Content-Length, chunks or the end of the stream."""

    __slots__ = ("complete", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self.complete = False

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.data += data[: MAX_BODY - len(self.data)]

    def on_message_complete(self) -> None:
        self.complete = True
