"""`route` of `websockets` in threads: another handler for each path, by werkzeug's URL maps."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Callable
from typing import Any, Literal

from wsfast.server import router

from .. import routing
from ..imports import lend
from ..typing import PathLike
from .server import Server, serve

__all__ = ["Router", "route", "unix_route"]


class Router(routing.Router):
    """Chooses the handler of a connection by its path; it and the hook before it are plain functions."""

    def handler(self, connection: Any) -> Any:
        """Run the handler that was chosen."""
        return connection.handler(connection, **connection.handler_kwargs)

    def after(self, process_request: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
        """Return a `process_request` that asks another one first, and then chooses."""

        def both(connection: Any, request: Any) -> Any:
            response = None if process_request is None else process_request(connection, request)
            return self.route_request(connection, request) if response is None else response

        return both


def route(
    url_map: Any,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., router.Router] | None = None,
    **kwargs: Any,
) -> Server:
    """Make a server in threads that has another handler for each path.

    Args:
        url_map: a ``werkzeug.routing.Map`` whose endpoints are handlers.
        args, kwargs: those of `serve`.
        server_name, ssl, create_router: those of `wsfast.server.route`.
    """
    server: Server = router.routed(
        serve,
        url_map,
        *args,
        server_name=server_name,
        ssl=ssl,
        create_router=Router if create_router is None else create_router,
        **kwargs,
    )
    return server


def unix_route(url_map: Any, path: PathLike | None = None, **kwargs: Any) -> Server:
    """Make a server in threads on a Unix socket that has another handler for each path.

    Args:
        url_map, kwargs: those of `route`.
        path: of the socket.
    """
    return route(url_map, unix=True, path=path, **kwargs)


lend(globals())
