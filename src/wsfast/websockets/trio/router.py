"""`route` of `websockets` on trio: another handler for each path, by werkzeug's URL maps."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Callable
from typing import Any, Literal

import trio

from wsfast.server import router

from ..imports import lend
from ..routing import Router
from .server import Server, serve

__all__ = ["Router", "route"]


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


lend(globals())
