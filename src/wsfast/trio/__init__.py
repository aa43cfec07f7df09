"""Client and server for trio.

``async with wsfast.trio.connect(uri) as ws:`` connects, ``await wsfast.trio.serve(handler, host, port)`` serves until
it is cancelled. It needs trio: ``pip install 'wsfast[trio]'``.
"""

from __future__ import annotations

from .bytestream import ByteStream, stream_handler
from .client import connect, unix_connect
from .server import Server, serve, unix_serve
from .websocket import PingWaiter, WebSocket

__all__ = [
    "ByteStream",
    "PingWaiter",
    "Server",
    "WebSocket",
    "connect",
    "serve",
    "stream_handler",
    "unix_connect",
    "unix_serve",
]
