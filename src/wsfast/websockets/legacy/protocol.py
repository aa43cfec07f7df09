"""The old name of connections."""

from __future__ import annotations

import warnings
from typing import Any

from wsfast.codes import CloseCode

from ..asyncio.connection import Connection, broadcast
from ..protocol import CLIENT

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
    def is_client(self) -> bool:
        """Whether this is the client's side."""
        return self.protocol.side is CLIENT

    @property
    def host(self) -> str | None:
        """Deprecated: the server's address."""
        return self._of_server(0)  # type: ignore[no-any-return]

    @property
    def port(self) -> int | None:
        """Deprecated: the server's port."""
        return self._of_server(1)  # type: ignore[no-any-return]

    def _of_server(self, part: int) -> Any:
        name = "remote_address" if self.is_client else "local_address"
        old = "port" if part else "host"
        warnings.warn(f"use {name}[{part}] instead of {old}", DeprecationWarning, stacklevel=3)
        address = getattr(self, name)
        return None if address is None else address[part]

    @property
    def secure(self) -> bool:
        """Deprecated: whether there is TLS."""
        warnings.warn("don't use secure", DeprecationWarning, stacklevel=2)
        return self.ssl_object is not None

    @property
    def origin(self) -> str | None:
        """The value of Origin, if the client sent one."""
        origin: str | None = self.request.headers.get("Origin")
        return origin

    @property
    def extensions(self) -> list[Any]:
        """The extensions that were agreed on."""
        return self.protocol.extensions

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
