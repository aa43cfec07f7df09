"""The client's side of the opening handshake, sans-IO (RFC 6455, 4.1).

A client makes a `ClientHandshake`, sends its `request`, feeds a `ResponseParser`, and judges the response with
`check_response`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hmac import compare_digest
from typing import NamedTuple

from ..escape import show
from ..exceptions import InvalidHandshake, InvalidHeader, InvalidStatus, InvalidUpgrade, NegotiationError
from ..http import Request, Response, check_header
from .headers import (
    ExtensionHeader,
    ExtensionParameter,
    build_authorization_basic,
    build_authorization_bearer,
    build_extensions,
    build_host,
    build_subprotocols,
    header_line,
    parse_extensions,
    parse_tokens,
)
from .key import KEY, accept_token, generate_key
from .uri import URI

__all__ = ["Agreement", "ClientHandshake"]


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
        # RFC 6455, 4.1, item 7: "The value of this header field MUST be a nonce consisting of a randomly selected
        # 16-byte value that has been base64-encoded". Items 2 to 9, in the order in which headers are sent: "The method
        # of the request MUST be GET, and the HTTP version MUST be at least 1.1"; "The request MUST contain a |Host|
        # header field"; "an |Upgrade| header field whose value MUST include the "websocket" keyword"; "a |Connection|
        # header field whose value MUST include the "Upgrade" token"; "|Sec-WebSocket-Version|. The value of this header
        # field MUST be 13".
        self.key: str = generate_key() if key is None else key
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
        lines = [header_line(name, value) for name, value in headers + additional]
        self.request: Request = Request(b"".join([f"GET {target} HTTP/1.1".encode(), *lines, b"\r\n\r\n"]))
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
        # RFC 6455, 4.1: "The client MUST validate the server's response as follows". Item 1: "If the status code
        # received from the server is not 101, the client handles the response per HTTP [RFC2616] procedures."
        if response.status_code != 101:
            raise InvalidStatus(response)
        headers = response.headers
        upgrade = headers.getall("Upgrade", [])
        # Item 2: "If the response lacks an |Upgrade| header field or the |Upgrade| header field contains a value that
        # is not an ASCII case-insensitive match for the value "websocket", the client MUST _Fail the WebSocket
        # Connection_."
        if len(upgrade) != 1 or upgrade[0].lower() != "websocket":
            raise InvalidUpgrade("Upgrade", _joined(upgrade), "expected websocket")
        connection = headers.getall("Connection", [])
        tokens = parse_tokens("Connection", ",".join(connection)) if connection else []
        # Item 3: "If the response lacks a |Connection| header field or the |Connection| header field doesn't contain a
        # token that is an ASCII case-insensitive match for the value "Upgrade", the client MUST _Fail [it]_."
        if not any(token.lower() == "upgrade" for token in tokens):
            raise InvalidUpgrade("Connection", _joined(connection), "expected Upgrade")
        # Item 4: "If the response lacks a |Sec-WebSocket-Accept| header field or the |Sec-WebSocket-Accept| contains a
        # value other than the base64-encoded SHA-1 of the concatenation of the |Sec-WebSocket-Key| [...] with the
        # string "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" [...], the client MUST _Fail the WebSocket Connection_."
        accept = _one(headers.getall("Sec-WebSocket-Accept", []), "Sec-WebSocket-Accept")
        if accept is None:
            raise InvalidHeader("Sec-WebSocket-Accept")
        if not compare_digest(accept.encode("latin-1"), accept_token(self.key.encode("latin-1"))):
            raise InvalidHeader("Sec-WebSocket-Accept", accept, "expected the one that belongs to the key")
        # Item 5: if it "indicates the use of an extension that was not present in the client's handshake [...], the
        # client MUST _Fail the WebSocket Connection_." RFC 6455, 11.3.2: the field "MUST NOT appear more than once in
        # an HTTP response".
        value = _one(headers.getall("Sec-WebSocket-Extensions", []), "Sec-WebSocket-Extensions")
        extensions = [] if value is None else parse_extensions(value)
        for name, _ in extensions:
            if name not in self._offered_extensions:
                raise NegotiationError(f"expected an extension that was offered, got {show(name)}")
        # Item 6: if it "indicates the use of a subprotocol that was not present in the client's handshake [...], the
        # client MUST _Fail the WebSocket Connection_." RFC 6455, 11.3.4: the field "MUST NOT appear more than once in
        # an HTTP response".
        subprotocols = headers.getall("Sec-WebSocket-Protocol", [])
        if len(subprotocols) > 1:
            subprotocols = [self._without_offers(value) for value in subprotocols]
        subprotocol = _one(subprotocols, "Sec-WebSocket-Protocol")
        if subprotocol is not None and subprotocol not in self._subprotocols:
            offered = len(self._subprotocols) or "none"
            came = show(self._without_offers(subprotocol))
            raise NegotiationError(f"expected a subprotocol that was offered ({offered}), got {came}")
        return Agreement(subprotocol, extensions)

    def _without_offers(self, value: str) -> str:
        """Return what came as Sec-WebSocket-Protocol without what was offered, which may be a secret.

        Some servers send all of it back.
        """
        parts = (part.strip("\t ") for part in value.split(","))
        return ", ".join("..." if part in self._subprotocols else part for part in parts)


# RFC 6455, 4.1, item 2: "/resource name/", which has no fragment.
_TARGET = re.compile(r"/[!\"$-~]*")


def _joined(values: list[str]) -> str | None:
    return ", ".join(values) if values else None


def _one(values: list[str], name: str) -> str | None:
    if len(values) > 1:
        raise InvalidHeader(name, ", ".join(values), "expected it once")
    return values[0] if values else None
