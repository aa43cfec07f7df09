"""`route`: another handler for each path, by werkzeug's URL maps. Needs werkzeug (extra ``router``)."""

from __future__ import annotations

import importlib
import inspect
import os
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from .serve import serve

if TYPE_CHECKING:
    from ..asyncio.websocket import WebSocket
    from ..handshake import Request, Response

__all__ = ["Router", "route", "unix_route"]


class Router:
    """Chooses the handler of a connection by its path.

    `route` makes one; derive from it, and give `route` the class as `create_router`, to choose in other ways.

    Args:
        url_map: a ``werkzeug.routing.Map`` whose endpoints are handlers. Its rules are made to match WebSockets.
        server_name: the host for redirects; default: what the client's Host says.
        url_scheme: the scheme for redirects, ``"ws"`` or ``"wss"``. Default: ``"ws"``.

    Raises:
        ImportError: werkzeug is not installed.
    """

    def __init__(self, url_map: Any, server_name: str | None = None, url_scheme: str = "ws") -> None:
        try:
            self._werkzeug: Any = importlib.import_module("werkzeug.routing")
            self._not_found: Any = importlib.import_module("werkzeug.exceptions").NotFound
        except ImportError as exc:
            raise ImportError("route() requires werkzeug: pip install wsfast[router]") from exc
        self.url_map = url_map
        self.server_name = server_name
        self.url_scheme = url_scheme
        # Kept here, because a connection has no attribute for it.
        self._chosen: WeakKeyDictionary[Any, tuple[Callable[..., Awaitable[Any]], Mapping[str, Any]]] = (
            WeakKeyDictionary()
        )
        for rule in url_map.iter_rules():
            rule.websocket = True

    def get_server_name(self, connection: Any, request: Any) -> str:
        """Return the host for redirects."""
        name: str = request.headers["Host"] if self.server_name is None else self.server_name
        return name

    def redirect(self, connection: Any, url: str) -> Any:
        """Return the response for a rule that redirects."""
        response = connection.respond(302, f"Found at {url}")
        response.headers["Location"] = url
        return response

    def not_found(self, connection: Any) -> Any:
        """Return the response for a path that matches nothing."""
        return connection.respond(404, "Not Found")

    def route_request(self, connection: Any, request: Any) -> Any:
        """Choose the handler of a connection, or return the response that refuses it: a `process_request`."""
        adapter = self.url_map.bind(server_name=self.get_server_name(connection, request), url_scheme=self.url_scheme)
        try:
            parsed = urlsplit(request.path)
            handler, arguments = adapter.match(path_info=parsed.path, query_args=parsed.query)
        except self._werkzeug.RequestRedirect as exc:
            return self.redirect(connection, exc.new_url)
        except self._not_found:
            return self.not_found(connection)
        self._chosen[connection] = handler, arguments
        return None

    async def handler(self, connection: Any) -> Any:
        """Run the handler that was chosen: what a server calls for each connection."""
        handler, arguments = self._chosen.pop(connection)
        return await handler(connection, **arguments)

    def after(self, process_request: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
        """Return a `process_request` that asks another one first, and then chooses."""
        if process_request is None:
            return self.route_request

        async def both(connection: Any, request: Any) -> Any:
            response = process_request(connection, request)
            if inspect.isawaitable(response):
                response = await response
            return self.route_request(connection, request) if response is None else response

        return both


def routed(
    serve: Callable[..., Any],
    url_map: Any,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., Router] | None = None,
    process_request: Callable[[Any, Any], Any] | None = None,
    **options: Any,
) -> Any:
    """Do the work of `route`, with the `serve` of any face."""
    if ssl is not True and ssl is not None:
        options["ssl"] = ssl
    make = Router if create_router is None else create_router
    router = make(url_map, server_name, "ws" if ssl is None else "wss")
    return serve(router.handler, *args, process_request=router.after(process_request), **options)


def route(
    url_map: Any,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., Router] | None = None,
    process_request: Callable[[WebSocket, Request], Response | Awaitable[Response | None] | None] | None = None,
    **options: Any,
) -> serve:
    """Start a server that has another handler for each path.

    ::

        from werkzeug.routing import Map, Rule

        async def channel(ws, channel_id): ...

        async with route(Map([Rule("/channel/<uuid:channel_id>", endpoint=channel)]), "127.0.0.1", 8765):
            ...

    The variable parts of the path are passed to the handler as keyword arguments. A path that matches nothing is
    answered 404, a rule with ``redirect_to`` 302.

    Args:
        url_map: a ``werkzeug.routing.Map`` whose endpoints are handlers.
        args, options: host and port, and the options of `serve`.
        server_name: the host for redirects, where a proxy changes Host; default: what the client's Host says.
        ssl: that of `serve`, or True behind a proxy that does TLS, for redirects to go to ``wss://``. Default: none.
        create_router: the class of the router; default `Router`.
        process_request: called before the router; a response of its own refuses the request. Default: none.

    Raises:
        ImportError: werkzeug is not installed.
        Exception: those of `serve`.
    """
    started: serve = routed(
        serve,
        url_map,
        *args,
        server_name=server_name,
        ssl=ssl,
        create_router=create_router,
        process_request=process_request,
        **options,
    )
    return started


def unix_route(url_map: Any, path: str | os.PathLike[str] | None = None, **options: Any) -> serve:
    """Start a server on a Unix socket that has another handler for each path.

    Args:
        url_map, options: those of `route`.
        path: of the socket; None, the default, if `sock` is given.
    """
    return route(url_map, path=path, **options)
