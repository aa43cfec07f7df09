"""`connect` with the parameters and the exceptions of the old implementation."""

from __future__ import annotations

from typing import Any

from ..asyncio import client
from ..exceptions import InvalidStatus
from ..http11 import USER_AGENT
from ..typing import PathLike
from .exceptions import InvalidStatusCode
from .protocol import WebSocketCommonProtocol

__all__ = ["WebSocketClientProtocol", "connect", "unix_connect"]


class WebSocketClientProtocol(WebSocketCommonProtocol, client.ClientConnection):  # type: ignore[misc]
    """A connection from the client's side."""


class connect(client.connect):  # noqa: N801
    """Connect to a WebSocket server.

    Args:
        uri: ws:// or wss://.
        extra_headers: `additional_headers` of today's `connect`.
        create_protocol, klass: makes the connection.
        timeout: `close_timeout` of today's `connect`.
        loop, read_limit, max_queue, write_limit: of no effect.
        kwargs: those of today's `connect`.

    Raises:
        InvalidStatusCode: the server answered with another status than 101; else those of today's `connect`.
    """

    def __init__(
        self,
        uri: str,
        *,
        create_protocol: Any = None,
        klass: Any = None,
        extra_headers: Any = None,
        user_agent_header: str | None = USER_AGENT,
        timeout: float | None = None,
        close_timeout: float | None = None,
        loop: Any = None,
        read_limit: int = 2**16,
        max_queue: int | None = 2**5,
        write_limit: int = 2**16,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            uri,
            create_connection=create_protocol or klass or WebSocketClientProtocol,
            additional_headers=extra_headers,
            user_agent_header=user_agent_header,
            close_timeout=close_timeout or timeout or 10,
            max_queue=max_queue,
            write_limit=write_limit,
            **{"proxy": None, **kwargs},
        )

    async def __await_impl__(self) -> Any:
        """Connect, as ``await`` does."""
        return await self.connect()

    async def _connect(self) -> tuple[Any, Any]:
        try:
            return await super()._connect()
        except InvalidStatus as exc:
            raise InvalidStatusCode(exc.response.status_code, exc.response.headers) from exc


Connect = connect


def unix_connect(path: PathLike | None = None, uri: str = "ws://localhost/", **kwargs: Any) -> connect:
    """Connect to a WebSocket server that listens on a Unix socket.

    Args:
        path: of the socket.
        uri, kwargs: those of `connect`.
    """
    return connect(uri, unix=True, path=path, **kwargs)
