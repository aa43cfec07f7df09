"""`route` of `websockets`: another handler for each path, by werkzeug's URL maps."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Callable
from typing import Any, Literal

from wsfast.server import router

from ..imports import lend
from ..routing import Router
from ..typing import PathLike
from .server import Server, serve

__all__ = ["Router", "route", "unix_route"]


def route(
    url_map: Any,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., router.Router] | None = None,
    **kwargs: Any,
) -> Server:
    """Make a server that has another handler for each path.

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
    """Make a server on a Unix socket that has another handler for each path.

    Args:
        url_map, kwargs: those of `route`.
        path: of the socket.
    """
    return route(url_map, unix=True, path=path, **kwargs)


lend(globals())
