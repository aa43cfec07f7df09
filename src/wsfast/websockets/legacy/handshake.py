"""The opening handshake's headers (RFC 6455, 4), as the old implementation has them."""

from __future__ import annotations

from ..datastructures import Headers
from ..exceptions import InvalidHeaderValue
from ..headers import check_key, check_upgrade, one_value
from ..imports import lend
from ..utils import accept_key, generate_key

__all__ = ["build_request", "build_response", "check_request", "check_response"]


def build_request(headers: Headers) -> str:
    """Add to a client's headers what asks for a WebSocket connection; return the key."""
    key = generate_key()
    headers["Upgrade"] = "websocket"
    headers["Connection"] = "Upgrade"
    headers["Sec-WebSocket-Key"] = key
    headers["Sec-WebSocket-Version"] = "13"
    return key


def check_request(headers: Headers) -> str:
    """Check what a client asks for; return its key.

    Raises:
        InvalidHandshake: it is no WebSocket connection.
    """
    return check_key(headers)


def build_response(headers: Headers, key: str) -> None:
    """Add to a server's headers what accepts a WebSocket connection."""
    headers["Upgrade"] = "websocket"
    headers["Connection"] = "Upgrade"
    headers["Sec-WebSocket-Accept"] = accept_key(key)


def check_response(headers: Headers, key: str) -> None:
    """Check a server's response.

    Raises:
        InvalidHandshake: it does not accept.
    """
    check_upgrade(headers)
    accept = one_value(headers, "Sec-WebSocket-Accept")
    if accept != accept_key(key):
        raise InvalidHeaderValue("Sec-WebSocket-Accept", accept)


lend(globals())
