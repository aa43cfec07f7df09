"""The old name of connections."""

from __future__ import annotations

from wsfast.codes import CloseCode

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

    def fail_connection(self, code: int = CloseCode.ABNORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection because of an error, without waiting for the end.

        Args:
            code: the close code; 1006 drops the connection.
            reason: the close reason.
        """
        channel = self._channel
        if channel is None:
            if self.transport is not None:
                self.transport.close()
        elif code == CloseCode.ABNORMAL_CLOSURE:
            self.abort()
        else:
            self._fail(code, reason)
            channel.flush()  # who calls this may close the transport next

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
