"""Exceptions of the old implementation."""

from __future__ import annotations

import http

from .. import datastructures
from ..exceptions import InvalidHandshake, InvalidMessage
from ..exceptions import ProtocolError as WebSocketProtocolError
from ..typing import StatusLike

__all__ = ["AbortHandshake", "InvalidMessage", "InvalidStatusCode", "RedirectHandshake", "WebSocketProtocolError"]


class InvalidStatusCode(InvalidHandshake):
    """The server answered with another status than 101."""

    def __init__(self, status_code: int, headers: datastructures.Headers) -> None:
        super().__init__(status_code, headers)
        self.status_code = status_code
        self.headers = headers

    def __str__(self) -> str:
        return f"server rejected WebSocket connection: HTTP {self.status_code}"


class AbortHandshake(InvalidHandshake):
    """A response that is sent in place of the opening handshake's."""

    def __init__(self, status: StatusLike, headers: datastructures.HeadersLike, body: bytes = b"") -> None:
        super().__init__(status, headers, body)
        self.status: http.HTTPStatus = http.HTTPStatus(status)
        self.headers: datastructures.Headers = datastructures.Headers(headers)
        self.body = body

    def __str__(self) -> str:
        return f"HTTP {self.status:d}, {len(self.headers)} headers, {len(self.body)} bytes"


class RedirectHandshake(InvalidHandshake):
    """A redirect."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        return f"redirect to {self.uri}"
