"""The opening handshake, sans-IO, both sides (RFC 6455, 4).

A server feeds a `RequestParser`, judges the request with `check_request`, and answers with `accept_response`, or with
the response of the `HandshakeRefused` that was raised. A client makes a `ClientHandshake`, sends its `request`, feeds a
`ResponseParser`, and judges the response with `check_response`.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from binascii import b2a_base64
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha1
from hmac import compare_digest
from typing import NamedTuple

from ._request_py import KEY
from .exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    show,
)
from .headers import (
    ExtensionHeader,
    ExtensionParameter,
    build_authorization_basic,
    build_authorization_bearer,
    build_extensions,
    build_host,
    build_subprotocols,
    check_header,
    check_token,
    parse_extensions,
    parse_subprotocols,
    parse_tokens,
    parse_upgrade,
)
from .http11 import (
    Request,
    RequestParser,
    Response,
    ResponseParser,
    refuse,
    text_response,
)
from .uri import URI, parse_uri

__all__ = [
    "URI",
    "Agreement",
    "ClientHandshake",
    "Origins",
    "Request",
    "RequestParser",
    "Response",
    "ResponseParser",
    "Upgrade",
    "accept_key",
    "accept_response",
    "check_request",
    "generate_key",
    "parse_uri",
    "refuse",
    "select_subprotocol",
    "text_response",
]

Origins = Sequence[str | re.Pattern[str] | None]
"""Origins that a server allows: exact strings, patterns that match in full, None for a request without Origin."""

# RFC 6455, 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}


def accept_key(key: str) -> str:
    """Return the value of Sec-WebSocket-Accept for a key (RFC 6455, 4.2.2, item 5.4)."""
    return _accept_key(key.encode("latin-1")).decode("ascii")


def _accept_key(key: bytes) -> bytes:
    # SHA-1 is what the RFC asks for, and no secret hangs on it: FIPS builds of OpenSSL want to be told.
    return b2a_base64(sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)


def generate_key() -> str:
    """Draw a value of Sec-WebSocket-Key from the operating system's random source (RFC 6455, 4.1, item 7)."""
    return b64encode(os.urandom(16)).decode("ascii")


# ------------------------------------------------------------------------------------------------ the server's side


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
    response = _ACCEPT + _accept_key(key.encode("latin-1"))
    if subprotocol is not None:
        response += _line("Sec-WebSocket-Protocol", check_token("the subprotocol", subprotocol))
    if extensions is not None:
        response += _line("Sec-WebSocket-Extensions", extensions)
    if date is not None:
        response += _line("Date", date)
    if server is not None:
        response += _line("Server", server)
    if headers is not None:
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            response += _line(name, value)
    return response + b"\r\n\r\n"


_ACCEPT = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "


def _line(name: str, value: str) -> bytes:
    try:
        return _checked_line(name, value)
    except TypeError:
        # Not hashable, so most likely of a wrong type: say which.
        return _checked_line.__wrapped__(name, value)


@lru_cache(maxsize=64)
def _checked_line(name: str, value: str) -> bytes:
    # A server sends the same few over and over.
    check_header(name, value)
    return f"\r\n{name}: {value}".encode("latin-1")


# ------------------------------------------------------------------------------------------------ the client's side


class Agreement(NamedTuple):
    """What a server chose of a client's offers."""

    subprotocol: str | None
    """The subprotocol, None without one."""
    extensions: list[ExtensionHeader]
    """The extensions with their parameters, which are for the extension to judge."""


# What the handshake itself says, and what would change the request's framing.
_RESERVED = {
    "connection": "it is part of the handshake",
    "content-length": "a handshake has no body",
    "sec-websocket-accept": "it is for the server to send",
    "sec-websocket-extensions": "use the parameter for extensions",
    "sec-websocket-key": "it is part of the handshake",
    "sec-websocket-protocol": "use the parameter for subprotocols",
    "sec-websocket-version": "it is part of the handshake",
    "transfer-encoding": "a handshake has no body",
    "upgrade": "it is part of the handshake",
}


class ClientHandshake:
    """One opening handshake from the client's side (RFC 6455, 4.1).

    Args:
        uri: where to connect to, as `parse_uri` returns it. Its user name and password become Authorization.
        origin: the value of Origin; default none.
        subprotocols: to offer, in order of preference; default none.
        extensions: to offer, each a name and its parameters; default none.
        user_agent_header: the value of User-Agent; default none.
        additional_headers: more headers; default none. Host, Origin, User-Agent and Authorization replace what would
            be sent otherwise; the headers of the handshake itself are not allowed.
        bearer_token: for Authorization (RFC 6750); it takes the place of the URI's user name. Default none.
        key: the value of Sec-WebSocket-Key; default drawn by `generate_key`.

    Attributes:
        key: the value of Sec-WebSocket-Key.
        request: the `Request`; what is to be sent is ``request.raw``.

    Raises:
        ValueError: if one of them has a character or a form that it must not have.
        TypeError: if one of them has a wrong type.
    """

    __slots__ = ("_offered_extensions", "_subprotocols", "key", "request")

    def __init__(
        self,
        uri: URI,
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] | None = None,
        extensions: Sequence[tuple[str, Sequence[ExtensionParameter]]] | None = None,
        user_agent_header: str | None = None,
        additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        bearer_token: str | None = None,
        key: str | None = None,
    ) -> None:
        self.key = generate_key() if key is None else key
        if KEY.fullmatch(self.key) is None:
            raise ValueError(f"expected a key of 16 bytes in base64, got {show(self.key)}")
        target = uri.resource_name
        if _TARGET.fullmatch(target) is None:
            raise ValueError(f"expected a path of printable ASCII characters but '#', got {show(target)}")
        additional: list[tuple[str, str]] = []
        if additional_headers is not None:
            items = additional_headers.items() if isinstance(additional_headers, Mapping) else additional_headers
            additional = list(items)
        for name, value in additional:
            check_header(name, value)
            if name.lower() in _RESERVED:
                raise ValueError(f"header {name} cannot be added: {_RESERVED[name.lower()]}")
        if sum(name.lower() == "host" for name, _ in additional) > 1:
            raise ValueError("expected at most one Host header")
        replaced = {name.lower() for name, _ in additional}

        headers = [("Host", build_host(uri.host, uri.port, uri.secure))]
        if bearer_token is not None:
            headers.append(("Authorization", build_authorization_bearer(bearer_token)))
        elif uri.user_info is not None:
            headers.append(("Authorization", build_authorization_basic(*uri.user_info)))
        if origin is not None:
            headers.append(("Origin", origin))
        if user_agent_header is not None:
            headers.append(("User-Agent", user_agent_header))
        headers = [(name, value) for name, value in headers if name.lower() not in replaced]
        headers += [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self.key),
            ("Sec-WebSocket-Version", "13"),
        ]
        if subprotocols is not None:
            headers.append(("Sec-WebSocket-Protocol", build_subprotocols(subprotocols)))
        if extensions:
            headers.append(("Sec-WebSocket-Extensions", build_extensions(extensions)))
        lines = [_line(name, value) for name, value in headers + additional]
        self.request = Request(b"".join([f"GET {target} HTTP/1.1".encode(), *lines, b"\r\n\r\n"]))
        self._subprotocols = tuple(subprotocols or ())
        self._offered_extensions = frozenset(name for name, _ in extensions or ())

    def check_response(self, response: Response) -> Agreement:
        """Judge a response (RFC 6455, 4.1, "Once the client's opening handshake has been sent").

        Every exception has the response as its `response`.

        Raises:
            InvalidStatus: if the status is not 101.
            InvalidUpgrade: if Upgrade or Connection does not agree to a WebSocket.
            InvalidHeader: if Sec-WebSocket-Accept is missing, doubled or wrong, or another header is doubled or empty.
            InvalidHeaderFormat: if a header does not follow its grammar.
            NegotiationError: if a subprotocol or an extension was not offered.
        """
        try:
            return self._check_response(response)
        except InvalidHandshake as exc:
            exc.response = response
            raise

    def _check_response(self, response: Response) -> Agreement:
        if response.status_code != 101:
            raise InvalidStatus(response)
        headers = response.headers
        upgrade = headers.getall("Upgrade", [])
        # Item 2: the value is "websocket", in any case, and no list.
        if len(upgrade) != 1 or upgrade[0].lower() != "websocket":
            raise InvalidUpgrade("Upgrade", _joined(upgrade), "expected websocket")
        connection = headers.getall("Connection", [])
        tokens = parse_tokens("Connection", ",".join(connection)) if connection else []
        # Item 3.
        if not any(token.lower() == "upgrade" for token in tokens):
            raise InvalidUpgrade("Connection", _joined(connection), "expected Upgrade")
        # Item 4.
        accept = _one(headers.getall("Sec-WebSocket-Accept", []), "Sec-WebSocket-Accept")
        if accept is None:
            raise InvalidHeader("Sec-WebSocket-Accept")
        if not compare_digest(accept.encode("latin-1"), _accept_key(self.key.encode("latin-1"))):
            raise InvalidHeader("Sec-WebSocket-Accept", accept, "expected the one that belongs to the key")
        # Item 5; RFC 6455, 11.3.2: the header does not come twice in a response.
        value = _one(headers.getall("Sec-WebSocket-Extensions", []), "Sec-WebSocket-Extensions")
        extensions = [] if value is None else parse_extensions(value)
        for name, _ in extensions:
            if name not in self._offered_extensions:
                raise NegotiationError(f"expected an extension that was offered, got {show(name)}")
        # Item 6; RFC 6455, 11.3.4: the header does not come twice in a response.
        subprotocol = _one(headers.getall("Sec-WebSocket-Protocol", []), "Sec-WebSocket-Protocol")
        if subprotocol is not None and subprotocol not in self._subprotocols:
            offered = show(", ".join(self._subprotocols)) if self._subprotocols else "none was"
            raise NegotiationError(f"expected a subprotocol that was offered ({offered}), got {show(subprotocol)}")
        return Agreement(subprotocol, extensions)


# RFC 6455, 4.1, item 2: "/resource name/", which has no fragment.
_TARGET = re.compile(r"/[!\"$-~]*")


def _joined(values: list[str]) -> str | None:
    return ", ".join(values) if values else None


def _one(values: list[str], name: str) -> str | None:
    if len(values) > 1:
        raise InvalidHeader(name, ", ".join(values), "expected it once")
    return values[0] if values else None
