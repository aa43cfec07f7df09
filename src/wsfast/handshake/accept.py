"""The server's side of the opening handshake, sans-IO (RFC 6455, 4.2).

A server feeds a `RequestParser`, judges the request with `check_request`, and answers with `accept_response`, or with
the response of the `HandshakeRefused` that was raised.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..exceptions import InvalidHeaderFormat, show
from ._request_py import KEY
from .headers import (
    ExtensionHeader,
    check_token,
    header_line,
    parse_extensions,
    parse_subprotocols,
    parse_tokens,
    parse_upgrade,
)
from .http11 import Request, refuse
from .key import accept_token

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


def check_request(request: Request, origins: Origins | None = None) -> Upgrade:
    """Judge a request that `RequestParser` returned (RFC 6455, 4.2.1).

    Args:
        request: the request.
        origins: the origins that are allowed; default all.

    Raises:
        HandshakeRefused: 426 if it asks for no WebSocket or for another version, 403 if its origin is not allowed, 400
            if it breaks a rule; its `response` is the answer to send.
    """
    found = request._take_found()
    try:
        if isinstance(found, dict):
            key, origin, subprotocols, extensions = _check_fields(found)
        else:
            _, key, origin, subprotocols, extensions = found
        if origins is not None or (origin is not None and "\n" in origin):
            _check_origin(origin, origins)
        return Upgrade(
            key,
            [] if subprotocols is None else parse_subprotocols(subprotocols.replace("\n", ",")),
            [] if extensions is None else parse_extensions(extensions.replace("\n", ",")),
            origin,
        )
    except InvalidHeaderFormat as exc:
        raise refuse(400, f"Malformed {exc.name} header", str(exc)) from None


def _check_fields(fields: dict[str, str]) -> tuple[str, str | None, str | None, str | None]:
    """Judge a request that is not as most are; return its key, and origin, subprotocols and extensions as they came."""
    _check_upgrade(fields.get("Upgrade"))
    _check_connection(fields.get("Connection"))
    # RFC 6455, 4.2.2, item 4, and 4.4: tell which version is understood.
    version = fields.get("Sec-WebSocket-Version")
    if version != "13":
        came = "none" if version is None else _show(version)
        raise refuse(
            426,
            "Expected Sec-WebSocket-Version: 13",
            f"expected Sec-WebSocket-Version 13, once, got {came}",
            _VERSION,
        )
    key = fields.get("Sec-WebSocket-Key")
    if key is None or KEY.fullmatch(key) is None:
        came = "none" if key is None else _show(key)
        raise refuse(
            400,
            "Missing or malformed Sec-WebSocket-Key header",
            f"expected one Sec-WebSocket-Key header with 16 bytes in base64, got {came}",
        )
    return key, fields.get("Origin"), fields.get("Sec-WebSocket-Protocol"), fields.get("Sec-WebSocket-Extensions")


def _show(value: str) -> str:
    return show(value.replace("\n", ", "))


def _check_upgrade(value: str | None) -> None:
    # RFC 6455, 4.2.1, item 3: "websocket" among the values, in any case.
    if value is None:
        raise refuse(
            426,
            "This is a WebSocket endpoint: it takes WebSocket connections only",
            "expected a request for a WebSocket, got one without Upgrade",
            _VERSION,
        )
    if not any(token.lower() == "websocket" for token in parse_upgrade(value.replace("\n", ","))):
        raise refuse(426, "Expected Upgrade: websocket", f"expected Upgrade: websocket, got {_show(value)}", _VERSION)


def _check_connection(value: str | None) -> None:
    # RFC 6455, 4.2.1, item 4: Firefox sends "keep-alive, Upgrade".
    tokens = [] if value is None else parse_tokens("Connection", value.replace("\n", ","))
    if not any(token.lower() == "upgrade" for token in tokens):
        came = "none" if value is None else _show(value)
        raise refuse(
            400,
            "Expected Connection: Upgrade (a proxy in between may have dropped it)",
            f"expected Connection: Upgrade, got {came}",
        )


def _check_origin(origin: str | None, origins: Origins | None) -> None:
    # RFC 6454, 7.3: not more than one Origin.
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

    Raises:
        ValueError: if one of them has a character that it must not have.
    """
    response = _ACCEPT + accept_token(key.encode("latin-1"))
    if subprotocol is not None:
        response += header_line("Sec-WebSocket-Protocol", check_token("the subprotocol", subprotocol))
    if extensions is not None:
        response += header_line("Sec-WebSocket-Extensions", extensions)
    if date is not None:
        response += header_line("Date", date)
    if server is not None:
        response += header_line("Server", server)
    if headers is not None:
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            response += header_line(name, value)
    return response + b"\r\n\r\n"


_ACCEPT = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
