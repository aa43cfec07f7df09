"""`route` of `websockets` on trio: another handler for each path, by werkzeug's URL maps."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Callable
from typing import Any, Literal

import trio

from wsfast.server import router

from ..http11 import Request, Response
from .server import Server, ServerConnection, serve

__all__ = ["Router", "route"]


class Router(router.Router):
    """Chooses the handler of a connection by its path, as its `handler` with `handler_kwargs`; see `wsfast`'s."""

    def route_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Choose the handler of a connection, or return the response that refuses it."""
        response: Response | None = super().route_request(connection, request)
        if response is None:
            connection.handler, connection.handler_kwargs = self._chosen.pop(connection)
        return response

    async def handler(self, connection: ServerConnection) -> None:
        """Run the handler that was chosen."""
        await connection.handler(connection, **connection.handler_kwargs)


async def route(
    url_map: Any,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., router.Router] | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **kwargs: Any,
) -> None:
    """Serve with another handler for each path.

    Args:
        url_map: a ``werkzeug.routing.Map`` whose endpoints are handlers.
        args, task_status, kwargs: those of `serve`.
        server_name, ssl, create_router: those of `wsfast.server.route`.
    """
    await router.routed(
        serve,
        url_map,
        *args,
        server_name=server_name,
        ssl=ssl,
        create_router=Router if create_router is None else create_router,
        task_status=task_status,
        **kwargs,
    )
