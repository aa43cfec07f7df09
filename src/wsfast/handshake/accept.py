"""The server's side of the opening handshake, sans-IO (RFC 6455, 4.2).

A server feeds a `RequestParser`, judges the request with `check_request`, and answers with `accept_response`, or with
the response of the `HandshakeRefused` that was raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from ..escape import show
from ..exceptions import InvalidHeaderFormat
from ..http import Request, check_token
from .headers import (
    ExtensionHeader,
    header_line,
    parse_extensions,
    parse_subprotocols,
    parse_tokens,
    parse_upgrade,
)
from .http11 import find_fields, refuse
from .key import KEY, accept_token

__all__ = ["Origins", "Upgrade", "accept_response", "check_request", "select_subprotocol"]

Origins = Sequence[str | re.Pattern[str] | None]
"""Origins that a server allows: exact strings, patterns that match in full, None for a request without Origin."""

_VERSION = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}


class Upgrade(NamedTuple):
    """What a request for a WebSocket asks for."""

    key: str
    """Sec-WebSocket-Key, for `accept_response`."""
    subprotocols: list[str]
    """The offered subprotocols in the client's order of preference."""
    extensions: list[ExtensionHeader]
    """The offered extensions in the client's order of preference."""
    origin: str | None
    """Origin, None without it."""

    def __repr__(self) -> str:
        # A subprotocol may be a token: browsers can send one nowhere else.
        return f"<Upgrade, {len(self.subprotocols)} subprotocols, {len(self.extensions)} extensions>"


# `Upgrade(...)` runs code in Python, which takes as long as three calls.
_upgrade: Callable[[tuple[str, list[str], list[ExtensionHeader], str | None]], Upgrade] = partial(
    tuple.__new__, Upgrade
)


def check_request(request: Request, origins: Origins | None = None) -> Upgrade:
    """Judge a request that `RequestParser` returned (RFC 6455, 4.2.1).

    Args:
        request: the request.
        origins: the origins that are allowed; default all.

    Raises:
        HandshakeRefused: 405 if its method is not GET, 426 if it asks for no WebSocket or for another version, 403 if
            its origin is not allowed, 400 if it breaks a rule; its `response` is the answer to send.
    """
    found, request._found = request._found, None
    fields, key = (find_fields(request.raw), None) if found is None else found
    try:
        if key is None:
            _check_method(request)
            _check_no_body(fields)
            _check_upgrade(fields.get("Upgrade"), request.raw)
            _check_connection(fields.get("Connection"))
            key = _check_version_and_key(fields)
        origin = fields.get("Origin")
        if origins is not None or (origin is not None and "\n" in origin):
            _check_origin(origin, origins)
        subprotocols = fields.get("Sec-WebSocket-Protocol")
        extensions = fields.get("Sec-WebSocket-Extensions")
        return _upgrade(
            (
                key,
                [] if subprotocols is None else parse_subprotocols(subprotocols.replace("\n", ",")),
                [] if extensions is None else parse_extensions(extensions.replace("\n", ",")),
                origin,
            )
        )
    except InvalidHeaderFormat as exc:
        raise refuse(400, f"Malformed {exc.name} header", str(exc)) from None


def _check_method(request: Request) -> None:
    # RFC 6455, 4.2.1, item 1: "An HTTP/1.1 or higher GET request".
    if not request.raw.startswith(b"GET "):
        # RFC 9110, 15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
        raise refuse(405, "Expected GET", f"expected method GET, got {show(request.method)}", {"Allow": "GET"})


def _check_no_body(fields: dict[str, str]) -> None:
    # Its bytes would be taken for frames.
    if "Transfer-Encoding" in fields:
        coding = _show(fields["Transfer-Encoding"])
        raise refuse(400, "Unexpected request body", f"expected no Transfer-Encoding, got {coding}")
    if "Content-Length" in fields and fields["Content-Length"] != "0":
        length = _show(fields["Content-Length"])
        raise refuse(400, "Unexpected request body", f"expected no Content-Length but 0, once, got {length}")


def _check_version_and_key(fields: dict[str, str]) -> str:
    # RFC 6455, 4.4: "If the server doesn't support the requested version, it MUST respond with a
    # |Sec-WebSocket-Version| header field (or multiple |Sec-WebSocket-Version| header fields) containing all versions
    # it is willing to use."
    version = fields.get("Sec-WebSocket-Version")
    if version != "13":
        came = "none" if version is None else _show(version)
        raise refuse(
            426,
            "Expected Sec-WebSocket-Version: 13",
            f"expected Sec-WebSocket-Version 13, once, got {came}",
            _VERSION,
        )
    # RFC 6455, 4.2.1, item 5: "A |Sec-WebSocket-Key| header field with a base64-encoded value that, when decoded, is 16
    # bytes in length."
    key = fields.get("Sec-WebSocket-Key")
    if key is None or KEY.fullmatch(key) is None:
        came = "none" if key is None else _show(key)
        raise refuse(
            400,
            "Missing or malformed Sec-WebSocket-Key header",
            f"expected one Sec-WebSocket-Key header with 16 bytes in base64, got {came}",
        )
    return key


def _show(value: str) -> str:
    return show(value.replace("\n", ", "))


def _check_upgrade(value: str | None, head: bytes) -> None:
    # RFC 6455, 4.2.1, item 3: "An |Upgrade| header field containing the value "websocket", treated as an ASCII
    # case-insensitive value." RFC 9110, 7.8: "A server MUST ignore an Upgrade header field that is received in an
    # HTTP/1.0 request."
    if value is None or head.startswith(b"1.0", head.index(b"\r") - 3):
        raise refuse(
            426,
            "This is a WebSocket endpoint: it takes WebSocket connections only",
            "expected a request for a WebSocket, got one without Upgrade",
            _VERSION,
        )
    if value.lower() != "websocket" and not any(
        token.lower() == "websocket" for token in parse_upgrade(value.replace("\n", ","))
    ):
        raise refuse(426, "Expected Upgrade: websocket", f"expected Upgrade: websocket, got {_show(value)}", _VERSION)


def _check_connection(value: str | None) -> None:
    # RFC 6455, 4.2.1, item 4: "A |Connection| header field that includes the token "Upgrade", treated as an ASCII
    # case-insensitive value." Firefox sends "keep-alive, Upgrade".
    if value is not None and value.lower() == "upgrade":
        return
    tokens = [] if value is None else parse_tokens("Connection", value.replace("\n", ","))
    if not any(token.lower() == "upgrade" for token in tokens):
        came = "none" if value is None else _show(value)
        raise refuse(
            400,
            "Expected Connection: Upgrade (a proxy in between may have dropped it)",
            f"expected Connection: Upgrade, got {came}",
        )


def _check_origin(origin: str | None, origins: Origins | None) -> None:
    # RFC 6454, 7.3: "the user agent MUST NOT include more than one Origin header field in any HTTP request."
    if origin is not None and "\n" in origin:
        raise refuse(400, "Several Origin headers", f"expected at most one Origin header, got several: {_show(origin)}")
    for allowed in origins or ():
        if isinstance(allowed, re.Pattern):
            if origin is not None and allowed.fullmatch(origin) is not None:
                return
        elif allowed == origin:
            return
    came = "none" if origin is None else show(origin)
    raise refuse(403, "This origin is not allowed", f"expected an allowed Origin, got {came}")


def select_subprotocol(offers: Iterable[str], registered: Container[str | None]) -> str | None:
    """Return the first offered subprotocol that is registered, None if there is none. Case matters.

    Args:
        offers: in the client's order of preference.
        registered: those that the server has.
    """
    for offer in offers:
        if offer in registered:
            return offer
    return None


def accept_response(
    key: str,
    subprotocol: str | None = None,
    extensions: str | None = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    *,
    date: str | None = None,
    server: str | None = None,
    lines: bytes = b"",
) -> bytes:
    """Build the response that accepts a request (RFC 6455, 4.2.2, item 5).

    `Response.from_head` makes a `Response` of it, for who wants to look or change.

    Args:
        key: of the `Upgrade`.
        subprotocol: the one that was chosen; default none.
        extensions: the value of Sec-WebSocket-Extensions; default none.
        headers: more headers; default none.
        date: the value of Date, as RFC 9110, 5.6.7 has it; default none.
        server: the value of Server; default none.
        lines: more headers, ready to be sent and not checked, each line with CR LF in front; default none.

    Raises:
        ValueError: if one of them has a character that it must not have.
    """
    response = _ACCEPT + accept_token(key.encode("latin-1")) + lines
    if subprotocol is not None:
        response += header_line("Sec-WebSocket-Protocol", check_token("the subprotocol", subprotocol))
    if extensions is not None:
        response += header_line("Sec-WebSocket-Extensions", extensions)
    if date is not None:
        response += header_line("Date", date)
    if server is not None:
        response += _server_line(server) if isinstance(server, str) else header_line("Server", server)
    if headers is not None:
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            response += header_line(name, value)
    return response + b"\r\n\r\n"


_server_line = lru_cache(maxsize=8)(partial(header_line, "Server"))
_ACCEPT = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
