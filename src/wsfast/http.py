"""A request and a response of an opening handshake, as values (RFC 9110, RFC 9112).

`handshake.http11` parses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy, MultiMapping

from .escape import show, without_query

__all__ = [
    "TCHAR",
    "Headers",
    "HeadersView",
    "Request",
    "Response",
    "check_header",
    "check_token",
    "is_token",
    "parse_headers",
    "shown",
    "text_response",
    "why_no_token",
]

TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
"""A character of a token (RFC 9110, 5.6.2), as a regular expression."""
_TOKEN = re.compile(rf"{TCHAR}++")
# RFC 9110, 5.5: what a field's value may hold; a byte of 0x80 to 0xff (obs-text) is a character of Latin-1 here.
_BAD_VALUE = re.compile(r"[^\t -~\x80-\xff]")
# RFC 9112, 3.2.2: absolute-form; what it may hold was checked by the parser.
_TARGET = re.compile(r"[!\"$-~]+")
_ABSOLUTE = re.compile(r"[A-Za-z]++://[^/?]*+(.*)", re.DOTALL)


def is_token(value: str) -> bool:
    """Tell whether a string is a token (RFC 9110, 5.6.2)."""
    return _TOKEN.fullmatch(value) is not None


def check_token(what: str, value: str) -> str:
    """Return `value`, which the caller gave, if it is a token (RFC 9110, 5.6.2).

    The error's text does not show the value: a subprotocol may be a secret, since browsers can send one nowhere else.

    Args:
        what: what the value is, for the error's text.
        value: what was given.

    Raises:
        TypeError: the value is not a `str`.
        ValueError: the value is not a token.
    """
    if not isinstance(value, str):
        raise TypeError(f"expected {what} as str, got {type(value).__name__}")
    wrong = why_no_token(value)
    if wrong is not None:
        raise ValueError(f"expected {what} to be a token (RFC 9110, 5.6.2), got {wrong}")
    return value


def why_no_token(value: str) -> str | None:
    """Tell why a string is not a token, without showing the string; None if it is one."""
    match = _TOKEN.match(value)
    end = match.end() if match else 0
    if end == len(value):
        return None if value else "none"
    return f"{value[end]!a} at index {end}"


def check_header(name: str, value: str) -> None:
    """Check a header that the caller gives, so that it cannot smuggle another one.

    The error's text shows neither the name nor the value: a value may be a secret, and may have been put in the name's
    place.

    Args:
        name: must be a token.
        value: printable ASCII, Latin-1, spaces and tabs; no CR, LF, NUL or other control character.

    Raises:
        TypeError: if one is not a `str`.
        ValueError: if one has a character that it must not have.
    """
    if isinstance(name, str):
        wrong = why_no_token(name)
        if wrong is not None:
            # A common mistake: the name and the value in one string.
            raise ValueError(f"expected a header's name to be a token (RFC 9110, 5.6.2), got {wrong}")
    else:
        raise TypeError(f"expected a header's name as str, got {type(name).__name__}")
    if not isinstance(value, str):
        raise TypeError(f"expected the value of header {name} as str, got {type(value).__name__}")
    bad = _BAD_VALUE.search(value)
    if bad is not None:
        raise ValueError(
            f"expected the value of header {name} without control characters and within Latin-1, "
            f"got {bad.group()!a} at index {bad.start()}"
        )


_SHOWN = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "allow",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "forwarded",
        "host",
        "origin",
        "pragma",
        "retry-after",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-version",
        "server",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "vary",
        "via",
        "www-authenticate",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
    }
)


def shown(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return headers as a log or a repr may show them: with ``...`` for a value that may be a credential.

    Only headers that are known to carry no credential are shown: programs have names of their own for tokens, and
    browsers can send one only as a subprotocol.
    """
    return [(name, value if name.lower() in _SHOWN else "...") for name, value in headers]


def _repr(self: MultiMapping[str]) -> str:
    """Show the headers, but for what may be a credential: ``dict(headers)`` has that, too."""
    told = ", ".join(f"{name!r}: {value!r}" for name, value in shown(self.items()))
    return f"<{type(self).__name__}({told})>"


def _get_all(self: MultiMapping[str], name: str) -> list[str]:
    """Return all values of a header, in their order; an empty list if there is none."""
    return self.getall(name, [])


def _raw_items(self: MultiMapping[str]) -> Iterator[tuple[str, str]]:
    """Iterate over the headers as they came, a repeated one once for each value."""
    return iter(self.items())


class Headers(CIMultiDict[str]):
    """Headers: a `multidict.CIMultiDict` that also has `get_all` and `raw_items`, as in `websockets`.

    The case of names does not matter. ``headers[name]`` is the first value of a repeated header, and setting it
    replaces all; `add` adds one.
    """

    __slots__ = ()

    get_all = _get_all
    raw_items = _raw_items

    def __repr__(self) -> str:
        return _repr(self)

    def copy(self) -> Headers:
        """Return a copy."""
        return Headers(self)


class HeadersView(CIMultiDictProxy[str]):
    """Headers that cannot be changed: a `multidict.CIMultiDictProxy` that also has `get_all` and `raw_items`.

    Unlike multidict's own they can be pickled, and copied by `copy.copy` and `copy.deepcopy`.
    """

    __slots__ = ()

    get_all = _get_all
    raw_items = _raw_items

    def __repr__(self) -> str:
        return _repr(self)

    def copy(self) -> Headers:
        """Return a copy that can be changed."""
        return Headers(self)

    def __reduce__(self) -> tuple[Any, ...]:  # type: ignore[override]
        return _view, ([*self.items()],)


def _view(items: Iterable[tuple[str, str]]) -> HeadersView:
    return HeadersView(Headers(items))


def parse_headers(raw: bytes) -> Headers:
    """Return the headers of a well-formed head, values in Latin-1."""
    headers = Headers()
    for line in raw.decode("latin-1").split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        headers.add(name, value.strip("\t "))
    return headers


class Request:
    """A request's head, as it came or as it was sent.

    It keeps the bytes and parses them when asked: a connection that is idle for hours holds one. It can be copied and
    pickled.

    Args:
        raw: the whole head, well-formed, with the empty line that ends it.
    """

    __slots__ = ("_found", "_headers", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw: bytes = raw
        self._headers: HeadersView | None = None
        # For `check_request`, which drops it: the headers of the handshake, and the key if they are the usual ones.
        self._found: tuple[dict[str, str], str | None] | None = None

    @property
    def method(self) -> str:
        """The method; that of a request which became a WebSocket connection is ``"GET"``."""
        return self.raw[: self.raw.index(b" ")].decode("ascii")

    @property
    def target(self) -> str:
        """The request's target as it came: in origin-form, absolute-form, or ``"*"`` (RFC 9112, 3.2)."""
        return self.raw.split(b" ", 2)[1].decode("ascii")

    @property
    def http_version(self) -> str:
        """``"1.1"`` or ``"1.0"``."""
        return self.raw[: self.raw.index(b"\r")][-3:].decode("ascii")

    @property
    def path(self) -> str:
        """The path with the query, still percent-encoded; ``"*"`` for a request that is about no path."""
        target = self.target
        if target.startswith("/") or target == "*":
            return target
        match = _ABSOLUTE.fullmatch(target)
        path: str = "" if match is None else match.group(1)
        return path if path.startswith("/") else f"/{path}"

    @property
    def headers(self) -> HeadersView:
        """The headers: names without case, repeated ones kept, values in Latin-1. Parsed at the first access."""
        if self._headers is None:
            self._headers = HeadersView(parse_headers(self.raw))
        return self._headers

    def rewrite(self, path: str | None = None, headers: Iterable[tuple[str, str]] | None = None) -> None:
        """Change the request, as a `process_request` may do before it is judged.

        Args:
            path: the new path with the query, percent-encoded; default: what it is.
            headers: all of the new headers; default: those that it has.

        Raises:
            ValueError, TypeError: one of them has a character that it must not have.
        """
        target = self.target if path is None else path
        if _TARGET.fullmatch(target) is None:
            raise ValueError(f"expected a path of printable ASCII characters but '#', got {show(target)}")
        lines = [f"{self.method} {target} HTTP/{self.http_version}"]
        for name, value in self.headers.items() if headers is None else headers:
            check_header(name, value)
            lines.append(f"{name}: {value}")
        self.raw = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self._headers = self._found = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.raw,)

    def __repr__(self) -> str:
        # A query often holds a token, and a repr must not carry it into a log.
        return f"<Request {self.method} {show(without_query(self.target))}>"


class Response:
    """A response, to be sent or as it came. It can be copied and pickled.

    Args:
        status_code: 100 to 599.
        reason_phrase: of the status line; default the usual one of the code.
        headers: a mapping or pairs, which are copied; default none.
        body: default empty. What a client received is cut at 64 KiB.

    Raises:
        ValueError: if the code is out of range, or the phrase or a header has a character that it must not have.
        TypeError: if the code is no `int`, or `headers` are something else, or one of them is no `str`.
    """

    __slots__ = ("body", "headers", "reason_phrase", "status_code")

    def __init__(
        self,
        status_code: int,
        reason_phrase: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        body: bytes = b"",
    ) -> None:
        if reason_phrase is None:
            try:
                reason_phrase = HTTPStatus(status_code).phrase
            except ValueError:
                reason_phrase = ""
        self.status_code: int = status_code
        self.reason_phrase: str = reason_phrase
        try:
            self.headers: Headers = Headers(() if headers is None else headers)
        except (TypeError, ValueError):  # what multidict says could be the value of a header, which may be a secret
            kind = type(headers).__name__
            raise TypeError(f"headers must be a mapping, or pairs of a name and a value, got {kind}") from None
        self.body: bytes = body
        self._check()

    def _check(self) -> None:
        if not isinstance(self.status_code, int) or isinstance(self.status_code, bool):
            raise TypeError(f"expected a status code as int, got {type(self.status_code).__name__}")
        if not 100 <= self.status_code <= 599:
            raise ValueError(f"expected a status code from 100 to 599, got {self.status_code}")
        check_header("reason-phrase", self.reason_phrase)
        for name, value in self.headers.items():
            check_header(name, value)

    @classmethod
    def from_head(cls, raw: bytes) -> Response:
        """Make a response of a well-formed head, such as `accept_response` returns."""
        status_line = raw[: raw.index(b"\r\n")].decode("latin-1")
        _, status, *reason = status_line.split(" ", 2)
        return cls(int(status), reason[0] if reason else "", parse_headers(raw))

    def serialize(self, *, with_body: bool = True) -> bytes:
        """Return the bytes to send.

        A final response without framing gets Content-Length, and Connection: close, since wsfast
        closes a connection that does not become a WebSocket.

        Args:
            with_body: False for the answer to HEAD: the body is left out, and Content-Length still tells its
                length. Default: True.

        Raises:
            ValueError, TypeError: if a header that was added has a character that it must not have, or the status
                code was changed to something that is not valid.
        """
        self._check()
        lines = [f"HTTP/1.1 {self.status_code} {self.reason_phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status_code >= 200:
            # RFC 9110, 8.6: 204 has no Content-Length; in a 304 it would be the length of the 200.
            if (
                self.status_code not in (204, 304)
                and "Content-Length" not in self.headers
                and "Transfer-Encoding" not in self.headers
            ):
                lines.append(f"Content-Length: {len(self.body)}")
            if "Connection" not in self.headers:
                lines.append("Connection: close")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        # RFC 9110, 9.3.2: "the server MUST NOT send content in the response" to HEAD.
        return head + self.body if with_body else head

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
    all_headers = Headers(headers or {})
    if "Upgrade" in all_headers:
        # RFC 9110, 7.8: who sends Upgrade also names it in Connection.
        all_headers.add("Connection", "Upgrade")
    all_headers.add("Connection", "close")
    all_headers.add("Content-Type", "text/plain; charset=utf-8")
    all_headers.add("Content-Length", str(len(body)))
    return Response(status_code, None, all_headers, body)
