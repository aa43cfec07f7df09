"""The server on asyncio: listening, the opening handshake, dispatch by subprotocol, and an orderly stop."""

from __future__ import annotations

from .auth import basic_auth
from .router import Router, route, unix_route
from .server import Handler, ListenerFactory, Server, StreamHandler, serve

__all__ = [
    "Handler",
    "ListenerFactory",
    "Router",
    "Server",
    "StreamHandler",
    "basic_auth",
    "route",
    "serve",
    "unix_route",
]
