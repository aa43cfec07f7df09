"""The server on asyncio: listening, the opening handshake, dispatch by subprotocol, and an orderly stop."""

from __future__ import annotations

from .auth import basic_auth
from .options import Handler, ListenerFactory, StreamHandler
from .router import Router, route, unix_route
from .serve import serve
from .server import Server

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
