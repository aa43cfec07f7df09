"""The old name of connections."""

from __future__ import annotations

from ..asyncio.connection import Connection, broadcast

__all__ = ["WebSocketCommonProtocol", "broadcast"]


class WebSocketCommonProtocol(Connection):
    """A connection, as the old implementation names what it has."""

    @property
    def open(self) -> bool:
        """Whether messages may be sent."""
        return self.state.name == "OPEN"

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self.state.name == "CLOSED"

    @property
    def path(self) -> str:
        """The request's path with the query."""
        path: str = self.request.path
        return path

    @property
    def request_headers(self) -> object:
        """The request's headers."""
        return self.request.headers

    @property
    def response_headers(self) -> object:
        """The response's headers."""
        return self.response.headers
