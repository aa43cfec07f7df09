"""Client and server for trio.

``async with wsfast.trio.connect(uri) as ws:`` connects, ``await wsfast.trio.serve(handler, host, port)`` serves until
it is cancelled. It needs trio: ``pip install 'wsfast[trio]'``.
"""

from __future__ import annotations

from .client import connect, unix_connect
from .server import Server, serve, unix_serve
from .websocket import PingWaiter, WebSocket

__all__ = ["PingWaiter", "Server", "WebSocket", "connect", "serve", "unix_connect", "unix_serve"]
