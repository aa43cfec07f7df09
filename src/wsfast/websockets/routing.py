"""The `Router` of `websockets`, for all three faces: the connection itself keeps the handler that was chosen for it."""

from __future__ import annotations

from typing import Any

from wsfast.server import router

__all__ = ["Router"]


class Router(router.Router):
    """Chooses the handler of a connection by its path, as its `handler` with `handler_kwargs`; see `wsfast`'s."""

    def route_request(self, connection: Any, request: Any) -> Any:
        """Choose the handler of a connection, or return the response that refuses it."""
        response = super().route_request(connection, request)
        if response is None:
            connection.handler, connection.handler_kwargs = self._chosen.pop(connection)
        return response

    async def handler(self, connection: Any) -> None:
        """Run the handler that was chosen."""
        await connection.handler(connection, **connection.handler_kwargs)
