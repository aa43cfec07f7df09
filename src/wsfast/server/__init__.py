"""The server on asyncio: listening, the opening handshake, dispatch by subprotocol, and an orderly stop."""

from __future__ import annotations

from .server import Handler, ListenerFactory, Server, StreamHandler, serve

__all__ = ["Handler", "ListenerFactory", "Server", "StreamHandler", "serve"]
