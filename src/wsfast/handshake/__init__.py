"""The opening handshake of both sides, sans-IO (RFC 6455, 3, 4, 9.1 and 11.3).

`accept` is the server's side, `offer` the client's; `http11`, `body`, `headers` and `uri` are the grammar below them.
"""

from __future__ import annotations

from .accept import Origins, Upgrade, accept_response, check_request, select_subprotocol
from .http11 import HeadLimits, Request, RequestParser, Response, ResponseParser, refuse, text_response
from .key import accept_key, generate_key
from .offer import Agreement, ClientHandshake
from .uri import URI, parse_uri

__all__ = [
    "URI",
    "Agreement",
    "ClientHandshake",
    "HeadLimits",
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
