"""`Request` and `Response` with the meaning that they have in `websockets`: dataclasses that may be changed."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import warnings
from collections.abc import Callable, Generator
from email.utils import formatdate
from http import HTTPStatus

from multidict import MultiMapping

from wsfast import handshake
from wsfast._version import __version__
from wsfast.escape import without_query
from wsfast.http import TCHAR

from .datastructures import Headers
from .exceptions import HeaderLineTooLong, RequestLineTooLong, SecurityError, StatusLineTooLong, TooManyHeaders

__all__ = ["SERVER", "USER_AGENT", "Request", "Response"]

PYTHON_VERSION = "{}.{}".format(*sys.version_info)
USER_AGENT = os.environ.get("WEBSOCKETS_USER_AGENT", f"Python/{PYTHON_VERSION} wsfast/{__version__}")
"""The value of User-Agent."""
SERVER = os.environ.get("WEBSOCKETS_SERVER", f"Python/{PYTHON_VERSION} wsfast/{__version__}")
"""The value of Server."""


MAX_NUM_HEADERS = int(os.environ.get("WEBSOCKETS_MAX_NUM_HEADERS", "128"))
MAX_LINE_LENGTH = int(os.environ.get("WEBSOCKETS_MAX_LINE_LENGTH", "8192"))
MAX_BODY_SIZE = int(os.environ.get("WEBSOCKETS_MAX_BODY_SIZE", "1048576"))

ReadLine = Callable[[int, type[Exception]], Generator[None, None, bytes | bytearray]]
ReadExact = Callable[[int], Generator[None, None, bytes | bytearray]]

_is_name = re.compile(TCHAR.encode() + b"+").fullmatch
_is_value = re.compile(rb"[\t -~\x80-\xff]*").fullmatch
_is_digits = re.compile(rb"[0-9]{1,18}").fullmatch
_is_hexadecimal = re.compile(rb"[0-9a-fA-F]{1,15}").fullmatch


@dataclasses.dataclass
class Request:
    """The request of an opening handshake.

    Attributes:
        path: the path with the query, percent-encoded.
        headers: its headers.
        method: GET.
        protocol: HTTP/1.1.
    """

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"
    _exception: Exception | None = None

    def __repr__(self) -> str:
        return f"Request(path={without_query(self.path)!r}, headers={self.headers!r}, method={self.method!r})"

    @property
    def exception(self) -> Exception | None:
        """Deprecated: None."""
        warnings.warn(
            "Request.exception is deprecated; use ServerProtocol.handshake_exc instead",
            DeprecationWarning,
            stacklevel=2,
        )
        return self._exception

    def serialize(self) -> bytes:
        """Return the bytes to send."""
        return f"{self.method} {self.path} {self.protocol}\r\n".encode("ascii") + self.headers.serialize()

    @classmethod
    def parse(cls, read_line: ReadLine) -> Generator[None, None, Request]:
        """Read a request; a generator, as `streams.StreamReader` has them.

        Args:
            read_line: reads a line of a most size, or raises the exception it is given.

        Raises:
            EOFError: the stream ends within it.
            SecurityError: it is past a limit.
            ValueError: it is no HTTP/1.1.
            NotImplementedError: it has a body in chunks.
        """
        try:
            line = yield from parse_line(read_line, RequestLineTooLong)
        except EOFError as exc:
            raise EOFError("connection closed while reading HTTP request line") from exc
        parts = line.split(b" ", 2)
        if len(parts) < 3:
            raise ValueError(f"invalid HTTP request line: {_show(line)}")
        if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise ValueError(f"unsupported protocol; expected HTTP/1.1 or HTTP/1.0: {_show(line)}")
        method, path, protocol = (part.decode("ascii") for part in parts)
        headers = yield from parse_headers(read_line)
        # RFC 9110, 9.3.1: content in a GET has no meaning; here its bytes would be taken for frames.
        if "Transfer-Encoding" in headers:
            raise NotImplementedError("transfer codings aren't supported")
        if not set(headers.get_all("Content-Length")) <= {"0"}:
            raise ValueError("unsupported request body")
        return cls(path, headers, method, protocol)

    @classmethod
    def of(cls, request: handshake.Request) -> Request:
        """Make one of wsfast's."""
        protocol = "HTTP/1.0" if request.raw.split(b"\r\n", 1)[0].endswith(b" HTTP/1.0") else "HTTP/1.1"
        return cls(request.path, _headers(request.headers), request.method, protocol)


@dataclasses.dataclass
class Response:
    """The response of an opening handshake.

    Attributes:
        status_code: 101 if it accepts.
        reason_phrase: of the status line.
        headers: its headers.
        body: its body, which a client cuts at 64 KiB.
    """

    status_code: int
    reason_phrase: str
    headers: Headers
    body: bytes | bytearray = b""
    _exception: Exception | None = None

    @property
    def exception(self) -> Exception | None:
        """Deprecated: None."""
        warnings.warn(
            "Response.exception is deprecated; use ClientProtocol.handshake_exc instead",
            DeprecationWarning,
            stacklevel=2,
        )
        return self._exception

    def serialize(self) -> bytes:
        """Return the bytes to send."""
        status = f"HTTP/1.1 {self.status_code} {self.reason_phrase}\r\n".encode("latin-1")
        return status + self.headers.serialize() + bytes(self.body)

    @classmethod
    def parse(
        cls, read_line: ReadLine, read_exact: ReadExact, read_to_eof: ReadLine, proxy: bool = False
    ) -> Generator[None, None, Response]:
        """Read a response; a generator, as `streams.StreamReader` has them.

        Args:
            read_line, read_exact, read_to_eof: the reading methods of a stream.
            proxy: whether it answers CONNECT, and so has no body.

        Raises:
            EOFError: the stream ends within it.
            SecurityError: it is past a limit, or has a wrong size.
            ValueError: it is no HTTP/1.1.
            NotImplementedError: its transfer coding is not known.
        """
        try:
            line = yield from parse_line(read_line, StatusLineTooLong)
        except EOFError as exc:
            raise EOFError("connection closed while reading HTTP status line") from exc
        parts = line.split(b" ", 2)
        if len(parts) < 3:
            raise ValueError(f"invalid HTTP status line: {_show(line)}")
        protocol, status, reason = parts
        versions = (b"HTTP/1.1", b"HTTP/1.0") if proxy else (b"HTTP/1.1",)
        if protocol not in versions:
            known = " or ".join(version.decode() for version in versions)
            raise ValueError(f"unsupported protocol; expected {known}: {_show(line)}")
        if _is_digits(status) is None:
            raise ValueError(f"invalid status code; expected integer; got {_show(status)}")
        if not 100 <= int(status) < 600:
            raise ValueError(f"invalid status code; expected 100\u2013599; got {_show(status)}")
        if _is_value(reason) is None:
            raise ValueError(f"invalid HTTP reason phrase: {_show(reason)}")
        headers = yield from parse_headers(read_line)
        body: bytes | bytearray = b""
        if not proxy:
            body = yield from read_body(int(status), headers, read_line, read_exact, read_to_eof)
        return cls(int(status), reason.decode("latin-1"), headers, body)

    @classmethod
    def of(cls, response: handshake.Response) -> Response:
        """Make one of wsfast's."""
        return cls(response.status_code, response.reason_phrase, _headers(response.headers), response.body)

    def native(self) -> handshake.Response:
        """Make wsfast's of it.

        Raises:
            ValueError: a header has a character that it must not have.
        """
        return handshake.Response(self.status_code, self.reason_phrase, self.headers.raw_items(), bytes(self.body))


def parse_line(
    read_line: ReadLine, too_long_exc_type: type[Exception] = SecurityError
) -> Generator[None, None, bytes | bytearray]:
    """Read a line, and return it without the CR LF at its end."""
    line = yield from read_line(MAX_LINE_LENGTH, too_long_exc_type)
    if not line.endswith(b"\r\n"):
        raise EOFError("line without CRLF")
    return line[:-2]


def parse_headers(read_line: ReadLine) -> Generator[None, None, Headers]:
    """Read headers up to the empty line (RFC 9112, 5)."""
    headers = Headers()
    for _ in range(MAX_NUM_HEADERS + 1):
        try:
            line = yield from parse_line(read_line, HeaderLineTooLong)
        except EOFError as exc:
            raise EOFError("connection closed while reading HTTP headers") from exc
        if not line:
            return headers
        name, colon, value = line.partition(b":")
        if not colon:
            raise ValueError(f"invalid HTTP header line: {_show(line)}")
        if _is_name(name) is None:
            raise ValueError(f"invalid HTTP header name: {_show(name)}")
        value = value.strip(b" \t")
        if _is_value(value) is None:
            raise ValueError(f"invalid HTTP header value: {_show(value)}")
        headers.set_insecure(name.decode("ascii"), value.decode("latin-1"))
    raise TooManyHeaders(f"expected no more than {MAX_NUM_HEADERS} headers")


def read_body(
    status_code: int, headers: Headers, read_line: ReadLine, read_exact: ReadExact, read_to_eof: ReadLine
) -> Generator[None, None, bytes | bytearray]:
    """Read the body of a response (RFC 9112, 6.3)."""
    if 100 <= status_code < 200 or status_code in (204, 304):
        return b""
    coding = headers.get("Transfer-Encoding")
    if coding is not None:
        if coding != "chunked":
            raise NotImplementedError(f"transfer coding {coding} isn't supported")
        return (yield from _read_chunks(read_line, read_exact))
    length = headers.get("Content-Length")
    if length is None:
        return (yield from read_to_eof(MAX_BODY_SIZE, SecurityError))
    if _is_digits(length.encode("latin-1")) is None:
        raise SecurityError(f"invalid content length: {length}")
    if int(length) > MAX_BODY_SIZE:
        raise SecurityError(f"body too large: {int(length)} bytes")
    return (yield from read_exact(int(length)))


def _read_chunks(read_line: ReadLine, read_exact: ReadExact) -> Generator[None, None, bytearray]:
    body = bytearray()
    while True:
        line = yield from parse_line(read_line, SecurityError)
        digits = line.partition(b";")[0]
        if _is_hexadecimal(digits) is None:
            raise SecurityError(f"invalid chunk size: {_show(digits)}")
        size = int(digits, 16)
        if not size:
            yield from parse_headers(read_line)  # trailers
            return body
        if len(body) + size > MAX_BODY_SIZE:
            raise SecurityError(f"chunk too large: {size} bytes after {len(body)} bytes")
        body += yield from read_exact(size)
        if (yield from read_exact(2)) != b"\r\n":
            raise ValueError("chunk without CRLF")


def _show(data: bytes | bytearray) -> str:
    return data.decode(errors="backslashreplace")


def plain_response(status: HTTPStatus | int, text: str) -> Response:
    """Make a response of plain text that ends the connection."""
    status = HTTPStatus(status)
    body = text.encode()
    headers = Headers()
    headers["Date"] = formatdate(usegmt=True)
    headers["Connection"] = "close"
    headers["Content-Length"] = str(len(body))
    headers["Content-Type"] = "text/plain; charset=utf-8"
    return Response(status.value, status.phrase, headers, body)


def _headers(items: MultiMapping[str]) -> Headers:
    headers = Headers()
    headers._items.extend(items.items())
    return headers
